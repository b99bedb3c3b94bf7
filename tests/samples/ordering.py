"""Sorting, scans and scatters: arguments on which ops are tried."""

from __future__ import annotations

from samples import Sample

SAMPLES: list[Sample] = []

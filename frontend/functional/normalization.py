"""Normalisation: batch, layer, group, instance, root mean square and local response."""

from __future__ import annotations

__all__: list[str] = []

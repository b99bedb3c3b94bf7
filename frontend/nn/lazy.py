"""Layers that learn their input size from the first call."""

from __future__ import annotations

__all__: list[str] = []

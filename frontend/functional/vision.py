"""Functions on images: resizing, sampling on a grid, shuffling of pixels."""

from __future__ import annotations

__all__: list[str] = []

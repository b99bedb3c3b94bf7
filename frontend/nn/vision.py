"""Modules on images: resizing and shuffling of pixels."""

from __future__ import annotations

__all__: list[str] = []

"""Augmentation in NumPy: transforms of one image (C, H, W) that draw from the generator they are given.

A loader gives each sample a generator of its own, made of seed, epoch and the sample's number, so that the result is
the same for any number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.errors import TenonError


class Transform:
    """``transform(image, generator)`` gives another image. Override :meth:`__call__`."""

    def __call__(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        raise NotImplementedError


class Compose(Transform):
    """Transforms one after the other."""

    def __init__(self, *transforms: Any):
        self.transforms = (
            transforms[0] if len(transforms) == 1 and isinstance(transforms[0], (list, tuple)) else transforms
        )

    def __call__(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            image = transform(image, generator)
        return image


class RandomFlip(Transform):
    """Mirrored left to right (or top to bottom with ``vertical``) with probability ``p``."""

    def __init__(self, p: float = 0.5, vertical: bool = False):
        if not 0 <= p <= 1:
            raise TenonError(f"RandomFlip: p must lie between 0 and 1, not {p}")
        self.p, self.vertical = p, vertical

    def __call__(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if generator.random() >= self.p:
            return image
        return image[..., ::-1, :] if self.vertical else image[..., ::-1]


class RandomCrop(Transform):
    """A part of ``size`` (height, width) somewhere in the image with ``padding`` zeros around it."""

    def __init__(self, size: int | tuple[int, int], padding: int = 0):
        self.size = (size, size) if isinstance(size, int) else size
        self.padding = padding

    def __call__(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        wide = _bordered(image, self.padding, self.padding) if self.padding else image
        room = [n - s for n, s in zip(wide.shape[-2:], self.size, strict=True)]
        if min(room) < 0:
            raise TenonError(f"RandomCrop: a part of {self.size} does not fit an image of {wide.shape[-2:]}")
        top, left = (int(generator.integers(0, r + 1)) for r in room)
        return wide[..., top : top + self.size[0], left : left + self.size[1]]


class RandomRotation(Transform):
    """Turned around its centre by an angle within ``degrees``, bilinear, with zeros where nothing was."""

    def __init__(self, degrees: float):
        self.degrees = degrees

    def __call__(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return rotate(image, generator.uniform(-self.degrees, self.degrees))


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """An image (C, H, W) turned counterclockwise around its centre, bilinear, with zeros where nothing was."""
    channels, height, width = image.shape
    cos, sin = np.float32(math.cos(math.radians(degrees))), np.float32(math.sin(math.radians(degrees)))
    y, x = _centred(height), _centred(width)
    # Where each pixel comes from; what lies outside comes from a border of zeros, which is two wide at the far sides.
    rows = np.clip(cos * y[:, None] + (sin * x + np.float32((height - 1) / 2)), -1, height)
    columns = np.clip(-sin * y[:, None] + (cos * x + np.float32((width - 1) / 2)), -1, width)
    top, left = np.floor(rows), np.floor(columns)
    down, right = rows - top, columns - left
    stride = width + 3
    first = ((top + 1) * stride + (left + 1)).astype(np.intp)
    pixels = _bordered(image, 1, 2).reshape(channels, -1)
    above, below = (
        (1 - right) * pixels.take(begin, 1) + right * pixels.take(begin + 1, 1) for begin in (first, first + stride)
    )
    found = (1 - down) * above + down * below
    return found.astype(image.dtype) if image.dtype.kind == "f" else found


def _centred(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32) - np.float32((count - 1) / 2)


def _bordered(image: np.ndarray, before: int, after: int) -> np.ndarray:
    """``image`` (..., H, W) with zeros around it; np.pad takes several times as long for small images."""
    *channels, height, width = image.shape
    wide = np.zeros((*channels, height + before + after, width + before + after), image.dtype)
    wide[..., before : before + height, before : before + width] = image
    return wide


class Normalize(Transform):
    """Each channel less its mean, divided by its standard deviation."""

    def __init__(self, mean: Sequence[float] | float, std: Sequence[float] | float):
        self.mean = np.reshape(np.asarray(mean, np.float32), (-1, 1, 1))
        self.std = np.reshape(np.asarray(std, np.float32), (-1, 1, 1))
        if not (self.std > 0).all():
            raise TenonError(f"Normalize: standard deviations must be above 0, not {std}")

    def __call__(self, image: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        return (image - self.mean) / self.std

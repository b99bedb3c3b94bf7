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
        p = self.padding
        wide = np.pad(image, ((0, 0), (p, p), (p, p))) if p else image
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
    height, width = image.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    rows, columns = cos * y + sin * x + (height - 1) / 2, -sin * y + cos * x + (width - 1) / 2
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    out = np.zeros(image.shape, np.result_type(image.dtype, np.float32))
    for down in (0, 1):
        for right in (0, 1):
            r, c = top + down, left + right
            share = (1 - np.abs(rows - r)) * (1 - np.abs(columns - c))
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            out += np.where(inside, share, 0) * image[..., np.clip(r, 0, height - 1), np.clip(c, 0, width - 1)]
    return out.astype(image.dtype) if image.dtype.kind == "f" else out


class Normalize(Transform):
    """Each channel less its mean, divided by its standard deviation."""

    def __init__(self, mean: Sequence[float] | float, std: Sequence[float] | float):
        self.mean = np.reshape(np.asarray(mean, np.float32), (-1, 1, 1))
        self.std = np.reshape(np.asarray(std, np.float32), (-1, 1, 1))
        if not (self.std > 0).all():
            raise TenonError(f"Normalize: standard deviations must be above 0, not {std}")

    def __call__(self, image: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        return (image - self.mean) / self.std

"""Files of data: IDX, CSV, npz, folders of images, lines of text."""

from __future__ import annotations

import csv
import gzip
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import TenonError

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> np.ndarray:
    """The array in a file of the IDX format (that of MNIST), which may be compressed by gzip.

    Raises TenonError for a file of another format, or one that is cut short.
    """
    raw = Path(path).read_bytes()
    try:
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise TenonError(f"{path} is a damaged gzip file: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise TenonError(f"{path} is no IDX file: it begins with {data[:4].hex(' ')}")
    rank = data[3]
    begin = 4 + 4 * rank
    if len(data) < begin:
        raise TenonError(f"{path} is cut short in its header: {len(data)} bytes of {begin}")
    shape = struct.unpack(f">{rank}I", data[4:begin])
    dtype = np.dtype(_IDX_TYPES[data[2]])
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - begin != expected:
        raise TenonError(f"{path} holds {len(data) - begin} bytes where {expected} were expected for shape {shape}")
    return np.frombuffer(data, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="))


def read_csv(
    path: str | Path,
    target: str | int | None = None,
    header: bool = True,
    separator: str = ",",
    dtype: Any = np.float32,
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """The numbers of a CSV file as ``(x, y, names)``: ``y`` is the column ``target`` (a name or a number), ``names``
    are those of the columns of ``x``. A target of texts becomes numbers of classes, in alphabetical order.

    Raises TenonError that names line and column for what is missing or no number.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        lines = [(i + 1, row) for i, row in enumerate(csv.reader(file, delimiter=separator)) if row]
    if len(lines) < 1 + header:
        raise TenonError(f"{path} has no rows")
    names = [n.strip() for n in lines[0][1]] if header else [str(i) for i in range(len(lines[0][1]))]
    lines = lines[1:] if header else lines
    column: int | None = None
    if target is not None:
        if isinstance(target, str) and target not in names:
            raise TenonError(f"{path} has no column {target!r}; it has {', '.join(names)}")
        column = names.index(target) if isinstance(target, str) else target % len(names)
    x = np.empty((len(lines), len(names) - (column is not None)), dtype)
    labels: list[str] = []
    for i, (line, row) in enumerate(lines):
        if len(row) != len(names):
            raise TenonError(f"{path}, line {line}: {len(row)} values where {len(names)} were expected")
        k = 0
        for j, text in enumerate(row):
            if j == column:
                labels.append(text.strip())
                continue
            try:
                x[i, k] = float(text)
            except ValueError:
                what = "a value is missing" if not text.strip() else f"{text!r} is no number"
                raise TenonError(f"{path}, line {line}, column {names[j]!r}: {what}") from None
            k += 1
    return x, _labels(labels, dtype) if column is not None else None, [n for j, n in enumerate(names) if j != column]


def _labels(texts: Sequence[str], dtype: Any) -> np.ndarray:
    """Texts as integers where they are, else as numbers where they are, else as the numbers of their classes."""
    for kind in (np.int64, dtype):
        try:
            return np.array([kind(t) for t in texts])
        except ValueError:
            continue
    return np.unique(texts, return_inverse=True)[1].astype(np.int64)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name. Files of pickled objects are refused: they could run anything."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise TenonError(f"{path} is no npz file of plain arrays: {error}") from None


class ImageFolder:
    """Images in a folder a class: sample ``i`` is the image as (C, H, W) in f32 from 0 to 1, and its class.

    ``size`` (height, width) resizes, ``mode`` is Pillow's ("RGB", "L"). Raises TenonError without Pillow, or where a
    folder holds no image.
    """

    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")

    def __init__(self, root: str | Path, size: tuple[int, int] | None = None, mode: str = "RGB"):
        try:
            import PIL.Image  # noqa: F401
        except ImportError:
            raise TenonError("ImageFolder reads images with Pillow: pip install pillow") from None
        self.root, self.size, self.mode = Path(root), size, mode
        self.classes = sorted(p.name for p in self.root.iterdir() if p.is_dir())
        self.files = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((self.root / name).rglob("*"))
            if path.suffix.lower() in self.suffixes
        ]
        if not self.files:
            raise TenonError(f"{root} has no images in folders, one for each class")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        from PIL import Image

        path, label = self.files[index]
        with Image.open(path) as image:
            converted = image.convert(self.mode)
            if self.size is not None:
                converted = converted.resize(self.size[::-1], Image.Resampling.BILINEAR)
            pixels = np.asarray(converted, np.float32) / 255
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), label


class TextLines:
    """The lines of a text file in UTF-8, without their ends; ``encode`` makes what a sample is of each."""

    def __init__(self, path: str | Path, encode: Any = None):
        self.lines = Path(path).read_text(encoding="utf-8").splitlines()
        self.encode = encode

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> Any:
        line = self.lines[index]
        return line if self.encode is None else self.encode(line)

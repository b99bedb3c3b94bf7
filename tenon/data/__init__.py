"""Data sets, files of them, augmentation, and loaders that make batches while the last step still runs. NumPy only."""

from tenon.data.augment import (
    Compose,
    Normalize,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    Transform,
)
from tenon.data.datasets import ArrayDataset, ConcatDataset, Dataset, Subset, random_split, train_test_split
from tenon.data.files import ImageFolder, TextLines, read_csv, read_idx, read_npz
from tenon.data.loader import Loader

__all__ = [
    "ArrayDataset", "Compose", "ConcatDataset", "Dataset", "ImageFolder", "Loader", "Normalize", "RandomCrop",
    "RandomFlip", "RandomRotation", "Subset", "TextLines", "Transform", "random_split", "read_csv", "read_idx",
    "read_npz", "train_test_split",
]  # fmt: skip

"""The Tensor methods that are functions of the frontend with the tensor as their first argument."""

from __future__ import annotations


class TensorMethods:
    """One line a method: ``name = module.function``."""

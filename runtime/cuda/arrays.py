"""Memory as arrays, for users' kernels: what the GPU kernel around such a function is written with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.cuda.intrinsics import skipped
from runtime.cuda.simulator.watched import watched
from runtime.cuda.toolkit import array_of, cuda, device

compiled = device
"""Decorator of the functions that kernels call."""


@device
def meet() -> None:
    """The threads of a block wait for one another."""
    cuda.syncthreads()


def _maker(name: str) -> Callable[..., Any]:
    dtype = np.dtype(getattr(np, name))

    def array(address: int, shape: tuple[int, ...]) -> np.ndarray:
        strides = [dtype.itemsize]
        for n in shape[:0:-1]:
            strides.insert(0, strides[0] * n)
        return watched(address, tuple(shape), tuple(strides[: len(shape)]), dtype)

    return array_of(name, array)


array_float32 = _maker("float32")
array_float64 = _maker("float64")
array_int8 = _maker("int8")
array_uint8 = _maker("uint8")
array_int32 = _maker("int32")
array_int64 = _maker("int64")
array_bool_ = _maker("bool_")

nan, inf, minus_inf = np.nan, np.inf, -np.inf

__all__ = ["array_bool_", "array_float32", "array_float64", "array_int8", "array_int32", "array_int64", "array_uint8",
           "compiled", "cuda", "inf", "meet", "minus_inf", "nan", "skipped"]  # fmt: skip

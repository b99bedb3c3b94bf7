"""Random numbers. A draw depends on the seed, the step, the stream and the element's own index, and on nothing else."""

from __future__ import annotations

import numpy as np

from engine import dtypes
from engine.dims import Shape
from engine.dtypes import DType
from engine.errors import DTypeError
from engine.graph import TensorType
from engine.op import REQUIRED, Op, register


def _rule(seed: TensorType, step: TensorType, stream: int, shape: Shape, dtype: DType) -> TensorType:
    for t in (seed, step):
        if t != TensorType((), dtypes.i64):
            raise DTypeError(f"random_uniform takes i64 scalars for seed and step, not {t}")
    if dtype not in (dtypes.f32, dtypes.f64):
        raise DTypeError(f"random_uniform gives f32 or f64, not {dtype}")
    return TensorType(shape, dtype)


def _uniform(seed: np.ndarray, step: np.ndarray, stream: int, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    from engine.random import uniform_reference

    index = np.arange(np.prod(shape, dtype=np.int64), dtype=np.int64).reshape(shape)
    return uniform_reference(int(seed), int(step), stream, index, dtype)


register(
    Op(
        "random_uniform",
        "random",
        ("seed", "step"),
        _rule,
        _uniform,
        attrs={"stream": REQUIRED, "shape": REQUIRED, "dtype": dtypes.f32},
        doc="Uniform draws from [0, 1): Philox 4x32-10 at the element's row-major index.",
    )
)

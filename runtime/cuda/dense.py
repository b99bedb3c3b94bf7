"""Copies of what lies otherwise than a kernel reads it, as specs: elementwise kernels, lowered as any others are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.buffers import Buffer
from engine.dims import Size, product
from engine.dtypes import DType
from engine.program import Lowered
from engine.schedule import Access, KernelSpec, Stmt

Lower = Callable[[KernelSpec], Lowered]
"""What lowers the kernels that others need before or after them."""


def dense_strides(shape: Sequence[Size]) -> tuple[Size, ...]:
    """The strides of a C-contiguous array of ``shape``."""
    return tuple(product(shape[axis + 1 :]) for axis in range(len(shape)))


def is_dense(shape: Sequence[Size], strides: Sequence[Size]) -> bool:
    """Whether ``strides`` walk an array of ``shape`` without gaps, the last axis innermost."""
    wanted = dense_strides(shape)
    return all(n == 1 or have == want for n, have, want in zip(shape, strides, wanted, strict=True))


def dense_copy(spec: KernelSpec, source: Access, shape: tuple[Size, ...], dtype: DType, name: str,
               strides: tuple[Size, ...] | None = None,
               size: Size | None = None) -> tuple[KernelSpec, Buffer, Access]:  # fmt: skip
    """The kernel that copies ``source``, whose strides run over ``shape``, into a new buffer of ``dtype``; that buffer,
    and its access over ``shape``. It is C-contiguous, or has these ``strides`` and this ``size``."""
    buffer = Buffer(f"{spec.name}.{name}", "temp", dtype, product(shape) if size is None else size)
    body = [Stmt("value", "load", (0,), source.dtype)]
    if dtype != source.dtype:
        body.append(Stmt("converted", "cast", ("value",), dtype))
    body.append(Stmt("stored", "store", (0, body[-1].name), dtype))
    target = Access(buffer.name, dtype, strides or dense_strides(shape))
    copy = KernelSpec(f"{spec.name} {name}", shape, (source,), (target,), tuple(body), nodes=spec.nodes,
                      location=spec.location)  # fmt: skip
    return copy, buffer, target

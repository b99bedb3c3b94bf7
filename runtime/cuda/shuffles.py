"""Values from other lanes of a warp, for every dtype that kernels compute with."""

from __future__ import annotations

from engine.dtypes import DType
from runtime.emit import computed_type

SHUFFLES = tuple(f"shfl_{way}_{kind}" for way in ("bfly", "up") for kind in ("u32", "f32", "u64", "f64"))
"""The names in runtime.cuda.ptx."""


def shuffled(way: str, dtype: DType, value: str, distance: int) -> str:
    """The expression of what another lane has of ``value``: the one ``distance`` before (``up``), or the one whose
    number differs in the bits of ``distance`` (``bfly``). All lanes of the warp execute it."""
    if dtype.is_float:
        return f"shfl_{way}_{dtype.computed}({value}, {distance})"
    if dtype.itemsize == 8:
        return f"shfl_{way}_u64({value}, {distance})"
    return f"{computed_type(dtype)}(shfl_{way}_u32({value}, {distance}))"

"""How exact products of float32 are on tensor cores, by PyTorch's names."""

from __future__ import annotations

from engine import settings
from engine.errors import TenonError


def set_float32_matmul_precision(precision: str) -> None:
    """How products of float32 are made on a GPU, in what is compiled from now on: ``"highest"`` gives errors as small
    as float32's own (three products of TF32), ``"high"`` takes one product of TF32 (a significand of 11 bits), and
    ``"medium"`` one of bfloat16 (8 bits). Sums are in float32. On the CPU it has no effect: products there are float32.
    Raises TenonError for any other name.

    PyTorch: torch.set_float32_matmul_precision.
    """
    if precision not in settings.EXACTNESS:
        expected = ", ".join(map(repr, settings.EXACTNESS))
        raise TenonError(f"the precision of products of float32 is {precision!r}; expected one of {expected}")
    settings.assign("float32_matmul_precision", precision)


def get_float32_matmul_precision() -> str:
    """What :func:`set_float32_matmul_precision` or ``TENON_FLOAT32_MATMUL_PRECISION`` has said, or ``"highest"``.

    PyTorch: torch.get_float32_matmul_precision.
    """
    return settings.get("float32_matmul_precision")

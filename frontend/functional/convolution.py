"""Convolutions as functions."""

from __future__ import annotations

from collections.abc import Sequence

from engine.dims import shape_text
from engine.errors import ShapeError, TenonError
from frontend.dispatch import call
from frontend.functional.padding import pad
from frontend.sizes import pair_of, plain_shape
from frontend.tensor import Tensor, as_tensor

Pair = int | Sequence[int]

__all__ = ["conv2d"]


def batched(name: str, x: Tensor) -> tuple[Tensor, bool]:
    """``x`` as (N, C, H, W), and whether it came without N."""
    x = as_tensor(x)
    if x.ndim not in (3, 4):
        raise ShapeError(f"{name} takes (N, C, H, W) or (C, H, W), not shape {shape_text(plain_shape(x.shape))}")
    return (x.unsqueeze(0), True) if x.ndim == 3 else (x, False)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional cross-correlation of (N, C, H, W), or (C, H, W), with a weight (O, C / groups, KH, KW).

    ``padding`` is a number of zeros on each side, "valid" (none), or "same" (the output as large as the input, which
    needs a stride of 1).
    """
    x, single = batched("conv2d", input)
    strides, dilations = pair_of(stride, "conv2d: stride"), pair_of(dilation, "conv2d: dilation")
    if isinstance(padding, str):
        kernel = plain_shape(as_tensor(weight).shape[2:])
        x, pads = _padded_by_name(x, padding, kernel, strides, dilations)  # type: ignore[arg-type]
    else:
        pads = pair_of(padding, "conv2d: padding")
    out = call("conv2d", x, weight, stride=strides, padding=pads, dilation=dilations, groups=groups)
    if bias is not None:
        out = out + as_tensor(bias).reshape(-1, 1, 1)
    return out.squeeze(0) if single else out


def _padded_by_name(
    x: Tensor, padding: str, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """The input and the symmetric padding that ``"same"`` or ``"valid"`` stands for; what is uneven is padded first."""
    if padding == "valid":
        return x, (0, 0)
    if padding != "same":
        raise TenonError(f'conv2d: padding must be numbers, "same" or "valid", not {padding!r}')
    if stride != (1, 1):
        raise TenonError(f'conv2d: padding="same" needs a stride of 1, not {stride}')
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(t % 2 for t in total):
        x = pad(x, (0, total[1] % 2, 0, total[0] % 2))
    return x, (total[0] // 2, total[1] // 2)

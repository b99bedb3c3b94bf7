"""Padding: with a constant, by reflection, by the last element, or round in a circle."""

from __future__ import annotations

from collections.abc import Sequence

from engine.dims import shape_text
from engine.errors import ShapeError, TenonError
from frontend import rearranging, shaping
from frontend.dispatch import call
from frontend.sizes import plain, plain_shape, rely_on
from frontend.tensor import Tensor, as_tensor

__all__ = ["pad"]


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """``input`` with something around it: ``value`` (0), or with the mode "reflect" what lies behind its first and last
    elements, mirrored at them; with "replicate" those elements; with "circular" what lies at the other end.

    ``pad`` counts from the last axis: (left, right, top, bottom, ...); a negative number crops. Any dtype. Raises
    ShapeError where there is not enough to reflect or wrap.

    PyTorch: torch.nn.functional.pad. Differs: modes other than "constant" take any number of axes.
    """
    x = as_tensor(input)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeError(f"pad: two numbers an axis are needed for at most {x.ndim} axes, not {tuple(pad)}")
    if mode != "constant" and mode not in _SIDES:
        raise TenonError(f"pad: the mode must be one of constant, {', '.join(_SIDES)}, not {mode!r}")
    low, high = [0] * x.ndim, [0] * x.ndim
    for i in range(len(pad) // 2):
        low[-1 - i], high[-1 - i] = pad[2 * i], pad[2 * i + 1]
    if any(n < 0 for n in (*low, *high)):
        x = x[tuple(slice(max(0, -a), size - max(0, -b)) for a, b, size in zip(low, high, x.shape, strict=True))]
    low, high = [max(0, n) for n in low], [max(0, n) for n in high]
    if mode == "constant":
        filler = 0 if value is None else value
        return call("pad", x, low=tuple(low), high=tuple(high), step=(1,) * x.ndim, value=filler)
    if value:
        raise TenonError(f"pad: the mode {mode!r} takes no value, not {value}")
    for axis in range(x.ndim):
        if low[axis] or high[axis]:
            before, after = _SIDES[mode](x, axis, low[axis], high[axis])
            x = shaping.concat([part for part in (before, x, after) if part is not None], axis)
    return x


def _need(x: Tensor, axis: int, least: int, what: str) -> None:
    shape = shape_text(plain_shape(x.shape))
    reason = f"pad: axis {axis} of {shape} must have at least {least} elements to {what}"
    rely_on([plain(x.shape[axis]) - least], reason)


def _mirrored(x: Tensor, axis: int, low: int, high: int) -> tuple[Tensor | None, Tensor | None]:
    _need(x, axis, max(low, high) + 1, f"reflect {max(low, high)}")
    size = x.shape[axis]
    before = rearranging.flip(rearranging.narrow(x, axis, 1, low), axis) if low else None
    after = rearranging.flip(rearranging.narrow(x, axis, size - 1 - high, high), axis) if high else None
    return before, after


def _repeated(x: Tensor, axis: int, low: int, high: int) -> tuple[Tensor | None, Tensor | None]:
    _need(x, axis, 1, "repeat its ends")

    def several(start: object, count: int) -> Tensor | None:
        shape = tuple(count if i == axis else n for i, n in enumerate(x.shape))
        return shaping.expand(rearranging.narrow(x, axis, start, 1), *shape) if count else None  # type: ignore[arg-type]

    return several(0, low), several(x.shape[axis] - 1, high)


def _wrapped(x: Tensor, axis: int, low: int, high: int) -> tuple[Tensor | None, Tensor | None]:
    _need(x, axis, max(low, high), f"wrap {max(low, high)} round")
    before = rearranging.narrow(x, axis, x.shape[axis] - low, low) if low else None
    return before, rearranging.narrow(x, axis, 0, high) if high else None


_SIDES = {"reflect": _mirrored, "replicate": _repeated, "circular": _wrapped}

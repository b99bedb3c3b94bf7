"""One direction of one recurrent layer as a function of tensors, and what lengths may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine import dtypes
from engine.cells import CELLS
from engine.dims import shape_text
from engine.errors import DTypeError, ShapeError
from frontend import creation
from frontend.dispatch import call
from frontend.sizes import plain_shape
from frontend.tensor import Tensor, as_tensor


def checked_lengths(lengths: Any, x: Tensor) -> Tensor:
    """``lengths`` (N) of the examples of ``x`` (T, N, I) as i64, each known to be from 1 to T in every call. Raises
    DTypeError and ShapeError, and IndexRangeError where a length is not."""
    found = as_tensor(lengths)
    if not found.dtype.is_integer:
        raise DTypeError(f"lengths are integers, not {found.dtype}")
    steps, batch, _ = plain_shape(x.shape)
    shape = plain_shape(found.shape)
    if len(shape) != 1 or (isinstance(batch, int) and isinstance(shape[0], int) and shape[0] != batch):
        raise ShapeError(f"lengths has shape {shape_text(shape)}, {shape_text((batch,))} was expected")
    return call("check_index", found.to(dtypes.i64), limit=steps + 1, first=1, what="length")


def within(x: Tensor, lengths: Tensor) -> Tensor:
    """``x`` (T, N, features) with zeros behind the length of each example."""
    step = creation.arange(0, x.shape[0]).reshape(-1, 1, 1)
    return call("where", step < lengths.reshape(1, -1, 1), x, 0.0)


def recur(
    kind: str, x: Tensor, weights: Sequence[Tensor | None], state: Sequence[Tensor] | None, lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """The states (T, N, P) of the recurrence ``kind`` (a name in engine.cells) over ``x`` (T, N, I), and the last
    state: h (N, P), in an lstm also c (N, H). ``weights`` are PyTorch's weight_ih, weight_hh, bias_ih, bias_hh and
    weight_hr; what is None is left out. The states behind an example's length are zero.

    The inputs of all steps are one contraction; the steps are one op.
    """
    weight_ih, weight_hh, bias_ih, bias_hh, weight_hr = weights
    assert weight_ih is not None and weight_hh is not None
    cell = CELLS[kind]
    steps, batch, features = plain_shape(x.shape)
    rows = plain_shape(weight_ih.shape)[0]
    inputs = call("matmul", call("reshape", x, shape=(steps * batch, features)), weight_ih.T)
    if bias_ih is not None:
        inputs = inputs + bias_ih
    recurrent_bias = bias_hh
    if bias_hh is not None and not cell.biased:
        inputs, recurrent_bias = inputs + bias_hh, None
    elif cell.biased and bias_hh is None:
        recurrent_bias = creation.zeros(weight_ih.shape[:1], dtype=x.dtype)
    given = {"h": state[0] if state else None, "c": state[1] if state and cell.memory else None}
    given |= {"bias": recurrent_bias, "projection": weight_hr, "lengths": lengths}
    named = {name: value for name, value in given.items() if value is not None}
    sequence = call("reshape", inputs, shape=(steps, batch, rows))
    found = call(kind, sequence, weight_hh, *named.values(), given=" ".join(named), reverse=reverse)
    hs, last = found[0], found[1 : 2 + cell.memory]
    return hs if lengths is None else within(hs, lengths), tuple(last)

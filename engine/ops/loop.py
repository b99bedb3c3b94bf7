"""A loop over the steps of sequences, whose body is a graph of its own: the op behind ``F.scan``.

The inputs are first the ``carries`` that go from step to step, as they are before the first; then ``sequences`` whose
first axis is the step; then whatever else the body reads, the same at every step. The body's inputs are these in the
same order, a sequence standing for what it holds at the step. Its results are the new carries and what is to be kept
of every step. The loop gives the last carries, and what was kept, stacked along a new first axis. With ``reverse`` the
steps run from the last to the first, and what they keep stays in its place.

A body has no state, and its random numbers are drawn outside, for all steps at once: element ``i`` of step ``t`` has
the index ``t * size + i`` in its stream, and all that a step computes follows from its inputs.
"""

from __future__ import annotations

from engine import dims
from engine.dims import Size
from engine.errors import DTypeError, TenonError
from engine.graph import Graph, TensorType
from engine.op import REQUIRED, Op, register
from engine.ops.loop_gradient import gradient
from engine.rules import need_equal, need_rank


def _rule(
    *types: TensorType, body: Graph, length: Size, carries: int, sequences: int, reverse: bool
) -> tuple[TensorType, ...]:
    if len(types) != len(body.inputs) or carries > len(body.outputs) or carries + sequences > len(types):
        raise TenonError(f"scan: {len(types)} inputs do not fit a body of {len(body.inputs)}")
    dims.assume(length, ">= 0", f"scan: {length} steps")
    for i, (given, port) in enumerate(zip(types, body.inputs, strict=True)):
        wanted = port.shape
        if carries <= i < carries + sequences:
            wanted = (length, *wanted)
        _need(f"input {i}", given, TensorType(wanted, port.dtype))
    for i, (new, old) in enumerate(zip(body.outputs[:carries], body.inputs, strict=False)):
        _need(f"the new carry {i}", new.type, old.type)
    kept = (TensorType((length, *v.shape), v.dtype) for v in body.outputs[carries:])
    return (*(v.type for v in body.inputs[:carries]), *kept)


def _need(what: str, given: TensorType, wanted: TensorType) -> None:
    if given.dtype != wanted.dtype:
        raise DTypeError(f"scan: {what} is {given.dtype}, and {wanted.dtype} was expected")
    need_rank("scan", what, given, wanted.rank)
    for a, b in zip(given.shape, wanted.shape, strict=True):
        text = f"scan: {what} has shape {dims.shape_text(given.shape)}, {dims.shape_text(wanted.shape)} was expected"
        need_equal(a, b, text)


register(
    Op(
        "scan",
        "loop",
        ("*values",),
        _rule,
        None,
        gradient,
        attrs={"body": REQUIRED, "length": REQUIRED, "carries": REQUIRED, "sequences": REQUIRED, "reverse": False},
        doc="The graph ``body`` at each of ``length`` steps: the last carries, and what every step keeps.",
    )
)

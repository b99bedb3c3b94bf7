"""Tensors that are joined along an axis can be written side by side by what makes them: joining then moves nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from engine.dims import Size
from engine.graph import Node, Value
from passes.clusters import LOOP_KINDS
from passes.views import View, source_of

_KINDS = LOOP_KINDS | {"contraction"}
_NAMES = frozenset({"attention", "attention_backward", "concat"})
"""Ops whose kernels write through any strides at no cost, as long as the last axis lies as it would."""


def places_of_parts(concat: Node, home: View, layouts: Mapping[Value, tuple[int, ...]]) -> Iterator[tuple[Value, View]]:
    """The values that the parts of ``concat`` are views of, each with the place in which it should be made if the whole
    lies in ``home``."""
    axis: int = concat.attrs["axis"]
    start: Size = 0
    for part in concat.inputs:
        made: Value = part
        place: View | None = replace(home, offset=home.offset + start * home.strides[axis])
        while place is not None and made.node.op.kind == "view":
            place = source_of(made.node, place)
            made = made.node.inputs[0]
        if place is not None and made.dtype == concat.output.dtype and _fits(made, place, layouts):
            yield made, place
        start = start + part.shape[axis]


def _fits(made: Value, place: View, layouts: Mapping[Value, tuple[int, ...]]) -> bool:
    """Whether ``place`` has the axes of ``made`` in the order in which it is to lie, the last one without gaps."""
    if made.node.op.kind not in _KINDS and made.node.op.name not in _NAMES:
        return False
    wanted = layouts.get(made, tuple(range(len(made.shape))))
    real = [a for a in wanted if made.shape[a] != 1]
    return real == [a for a in place.order if made.shape[a] != 1] and (not real or place.strides[real[-1]] == 1)

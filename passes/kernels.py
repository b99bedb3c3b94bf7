"""From a cluster of nodes to kernel specs: axes, accesses, bodies and cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from engine.dims import Size
from engine.graph import Group, Node, Value
from engine.schedule import (
    Access,
    Contraction,
    Conv2d,
    ConvChain,
    ConvWeightGrad,
    Core,
    KernelSpec,
    MaxPool2d,
    MaxPool2dGather,
    MaxPool2dGrad,
    Stmt,
)
from passes.bodies import Body, Operands, Placement
from passes.clusters import Cluster
from passes.layout import CHANNELS_LAST
from passes.spaces import Axis, Space
from passes.splitting import Partial, split_reduction
from passes.views import View, is_free, look_through

CHUNK_ELEMENTS = 4096
"""A long reduction is cut into chunks of about this many elements of its reduced axes."""

LONG_REDUCTION = 4 * CHUNK_ELEMENTS
"""A reduction over fewer elements is not worth a second kernel."""

MANY_ROWS, ROW_CHUNKS = 512, 16
"""Sums of columns over so many rows are cut in so many chunks of rows."""

LEAST_COLUMNS = 8
"""So many neighbours in memory are worth a vector each: below, reductions of several rounds go by rows."""

LONG_ROW = 64
"""The known part of a symbolic reduction from which on the whole is taken to be long."""

ALL_BUT_CHANNELS = (0, 1, 2)
"""The axes of a convolution's kernel over which the statistics of its channels are taken."""

Stores = dict[Value, View]


class KernelWriter:
    """Writes the specs of one group. ``view`` locates a value that is read, ``stores`` every member that is written,
    ``partial`` makes buffers for partial results of reductions that are cut into chunks; without it none is."""

    def __init__(self, group: Group, view: Callable[[Value], View], stores: Stores, partial: Partial | None):
        self.group = group
        self.cluster = Cluster(n for n in group.nodes if n.op.kind not in ("view", "source"))
        self.view = view
        self.stores = stores
        self.partial = partial
        self.operands = Operands()

    def write(self) -> list[KernelSpec]:
        """One kernel, or two where a long reduction is split."""
        if self.cluster.core is None:
            return self._loops()
        return [self._with_core(self.cluster.core)]

    def _spec(
        self, axes: Sequence[Size], body: Body, core: Core | None = None, reduced: tuple[int, ...] = ()
    ) -> KernelSpec:
        return KernelSpec(
            self.group.name,
            tuple(axes),
            tuple(self.operands.reads),
            tuple(self.operands.writes),
            tuple(body.statements),
            core,
            reduced,
            nodes=tuple(n.name for n in self.group.nodes),
            location=next((n.location for n in self.group.nodes if n.location is not None), None),
        )

    # -- loops ---------------------------------------------------------------------------------------------------

    def _loops(self) -> list[KernelSpec]:
        """Loops with the reduced axes last (rows), or first (columns) where memory runs along a kept axis."""
        space = Space(self.cluster.nodes)
        assert space.reduced is not None
        order = self._memory_order(space)
        reduced = [a for a in order if a in space.reduced]
        kept = [a for a in order if a not in space.reduced]
        one_round = bool(reduced) and self._one_round(space)
        columns = bool(reduced) and bool(kept) and order[-1] in kept and (one_round or self._fits_columns(space, order))
        axes = [*reduced, *kept] if columns else [*kept, *reduced]
        placement: Placement = {a: [(i, 1)] for i, a in enumerate(axes)}
        body = Body(self.operands, space, placement, len(axes), self.view)
        for node in self.cluster.nodes:
            body.compute(node)
        for value, view in self.stores.items():
            body.store(value, view)
        inside = tuple(range(len(reduced))) if columns else tuple(range(len(kept), len(axes)))
        spec = self._spec([space.size(a) for a in axes], body, reduced=inside)
        chunk = _chunk([space.size(a) for a in reduced], columns) if one_round else None
        return [spec] if chunk is None or self.partial is None else split_reduction(spec, chunk, self.partial)

    def _memory_order(self, space: Space) -> list[Axis]:
        """Loops in the order in which the largest operand lies in memory: stores first, then loads."""
        hints: list[tuple[int, list[Axis | None]]] = []
        for value, view in self.stores.items():
            hints.append((len(space.axes_of(value)), [space.axis(value, i) for i in view.order]))
        for node in self.cluster.nodes:
            for position, value in enumerate(node.inputs):
                loops = space.input_axes(node, position)
                if node.op.kind == "gather" and position == 0:  # its other axes lie around, or inside, the indexed one
                    loops = [space.axis(node.output, i) for i in range(len(value.shape))]
                members = {a for a in loops if a is not None}
                if members and not self._made_here(value):
                    hints.append((len(members), [loops[i] for i in self.view(value).order]))
        hints.sort(key=lambda h: -h[0])
        return space.ordered(h for _, h in hints)

    def _made_here(self, value: Value) -> bool:
        root = look_through(value)[0]
        return is_free(root.node) or root.node in self.cluster.nodes

    def _fits_columns(self, space: Space, order: Sequence[Axis]) -> bool:
        """Whether several rounds of reductions go by columns: there are some side by side, and none is looked up."""
        width = space.size(order[-1])
        wide = not isinstance(width, int) or width >= LEAST_COLUMNS
        return wide and not any(n.op.name in ("argmax", "argmin") for n in self.cluster.nodes)

    def _one_round(self, space: Space) -> bool:
        """Whether nothing over the reduced loops follows a reduction, and none looks for a position or goes twice."""
        assert space.reduced is not None
        after: set[Value] = set()
        for node in self.cluster.nodes:
            if node.op.name in ("argmax", "argmin", "moments"):
                return False
            later = any(v in after for v in _roots(node))
            if later and (node.op.kind == "reduce" or space.axes_of(node.output) & space.reduced):
                return False
            if later or node.op.kind == "reduce":
                after.update(node.outputs)
        return True

    # -- cores ---------------------------------------------------------------------------------------------------

    def _with_core(self, core: Node) -> KernelSpec:
        space = Space(self.cluster.outer)
        out = core.outputs[0]
        axes, places = _core_axes(core)
        placement: dict[Axis, list[tuple[int, Size]]] = {}
        for i, place in enumerate(places):
            loop = space.axis(out, i)
            if loop is not None:
                placement[loop] = place
        record = self._core(core)
        body = Body(self.operands, space, placement, len(axes), self.view)
        for node in self.cluster.outer:
            if node is core:
                for k, value in enumerate(core.outputs):
                    if value in self.stores or any(value in _roots(n) for n in self.cluster.outer):
                        body.names[value] = body.emit("core", (k,), value.dtype.computed)
            elif node.op.name == "moments":
                body.measure(node)
            else:
                body.compute(node)
        for value, view in self.stores.items():
            body.store(value, view)
        measures = any(n.op.name == "moments" for n in self.cluster.outer)
        return self._spec(axes, body, core=record, reduced=ALL_BUT_CHANNELS if measures else ())

    def _core(self, core: Node) -> Core:
        match core.op.name:
            case "matmul":
                return self._contraction(core)
            case "conv2d" if self.cluster.source is not None:
                x = core.inputs[0]
                last = self._conv2d(core, Access("", x.dtype, (0,) * len(x.shape)))
                return ConvChain(self._conv2d(self.cluster.source), self._inner(core), last)
            case "conv2d" | "conv2d_input_grad":
                return self._conv2d(core)
            case "conv2d_weight_grad":
                return self._weight_grad(core)
            case "max_pool2d":
                source = self._conv2d(self.cluster.source) if self.cluster.source else None
                return MaxPool2d(self._inner(core), _image_size(core), source=source, **_window(core))
            case "max_pool2d_grad":
                position = self._image(core.inputs[1])
                return MaxPool2dGrad(self._inner(core), position, _image_size(core), **_window(core))
            case "max_pool2d_gather":
                position = self._image(core.inputs[1])
                return MaxPool2dGather(self._inner(core), position, _image_size(core), **_window(core))
        raise AssertionError(core.op.name)

    def _inner(self, core: Node) -> tuple[Stmt, ...]:
        """The body that computes what a core reads point by point, over the channels-last axes of its input."""
        value = core.inputs[0]
        hidden = [n for n in self.cluster.nodes if n in self.cluster.inner or n is self.cluster.source]
        space = Space(hidden) if hidden else Space([core])
        placement: dict[Axis, list[tuple[int, Size]]] = {}
        if hidden:
            read = hidden[-1].outputs[0]
            loops: list[Axis | None] = [space.axis(read, i) for i in range(4)]
        else:
            loops = [("input", i) for i in range(4)]
        for place, i in enumerate(CHANNELS_LAST):
            if loops[i] is not None:
                placement[loops[i]] = [(place, 1)]
        body = Body(self.operands, space, placement, 4, self.view)
        for node in hidden:
            if node is self.cluster.source:
                body.names[node.output] = body.emit("core", (0,), node.output.dtype.computed)
            else:
                body.compute(node)
        last = body.load(value, loops)
        if body.statements[-1].name != last:
            # A backend takes the last statement's value.
            body.statements.append(Stmt(f"v{next(self.operands.numbers)}", "cast", (last,), value.dtype.computed))
        return tuple(body.statements)

    def _image(self, value: Value) -> Access:
        """An image read over (n, h, w, c). One channel lies as channels-last images do."""
        view = self.view(value)
        strides = [view.strides[i] for i in CHANNELS_LAST]
        if value.shape[1] == 1:
            strides[-1] = 1
        return Access(view.buffer, value.dtype, tuple(strides), view.offset)

    def _contraction(self, node: Node) -> Contraction:
        batch = len(node.output.shape) - 2

        def operand(value: Value) -> Access:
            view = self.view(value)
            extra = batch + 2 - len(value.shape)
            strides = [0] * extra + [
                0 if i < batch - extra and value.shape[i] == 1 else s for i, s in enumerate(view.strides)
            ]
            return Access(view.buffer, value.dtype, tuple(strides), view.offset)

        a, b = node.inputs
        return Contraction(operand(a), operand(b), a.shape[-1])

    def _conv2d(self, node: Node, image: Access | None = None) -> Conv2d:
        x, w = node.inputs
        view = self.view(w)
        o, i, h, v = view.strides
        groups, kernel = node.attrs["groups"], w.shape[2:]
        stride, padding, dilation = (node.attrs[k] for k in ("stride", "padding", "dilation"))
        forward = node.op.name == "conv2d"
        each = w.shape[0] // groups
        common = {
            "x": image or self._image(x),
            "w": Access(view.buffer, w.dtype, (o, i, h, v) if forward else (i, o, h, v), view.offset),
            "in_size": x.shape[2:],
            "out_size": node.output.shape[2:],
            "in_channels": x.shape[1],
            "out_channels": node.output.shape[1],
            "kernel": kernel,
            "dilation": dilation,
            "groups": groups,
            "w_group": o * each,
        }
        if forward:
            return Conv2d(**common, stride=stride, padding=padding)
        # The input gradient of a convolution is a convolution of the spread-out gradient with the reversed taps.
        mirrored = tuple(d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True))
        return Conv2d(**common, padding=mirrored, x_dilation=stride, flip=True)

    def _weight_grad(self, node: Node) -> ConvWeightGrad:
        x, dy = node.inputs
        return ConvWeightGrad(
            self._image(x),
            self._image(dy),
            x.shape[0],
            x.shape[2:],  # type: ignore[arg-type]
            dy.shape[2:],  # type: ignore[arg-type]
            x.shape[1],  # type: ignore[arg-type]
            dy.shape[1],  # type: ignore[arg-type]
            node.attrs["kernel_size"],
            *(node.attrs[k] for k in ("stride", "padding", "dilation", "groups")),
        )


def _roots(node: Node) -> list[Value]:
    """What the node reads, seen through transparent views."""
    return [look_through(v)[0] for v in node.inputs]


def _chunk(reduced: Sequence[Size], columns: bool) -> Size | None:
    """The length of a chunk of the first of the reduced loops, or None where the reduction is short. What is known of
    their sizes decides: where the first is symbolic, it is taken to be long if there is much inside it.

    Sums of ``columns`` are cut far earlier. Else each thread would sum up columns of its own over all rows, of which
    others have written a part.
    """
    first, *rest = reduced
    inside = math.prod(s for s in rest if isinstance(s, int))
    elements = CHUNK_ELEMENTS
    if not isinstance(first, int):
        long = inside >= LONG_ROW
    elif columns and MANY_ROWS <= first * inside < LONG_REDUCTION:
        long, elements = True, first * inside // ROW_CHUNKS
    else:
        long = first * inside >= LONG_REDUCTION
    return max(1, elements // max(inside, 1)) if long else None


def _image_size(core: Node) -> tuple[Size, Size]:
    height, width = core.inputs[0].shape[2:]
    return height, width


def _window(core: Node) -> dict[str, tuple[int, int]]:
    return {k: core.attrs[k] for k in ("kernel", "stride", "padding", "dilation")}


def _core_axes(core: Node) -> tuple[tuple[Size, ...], list[list[tuple[int, Size]]]]:
    """The kernel's axes, and for each axis of the core's output where it lies among them."""
    shape = core.outputs[0].shape
    if core.op.name == "matmul":
        return shape, [[(i, 1)] for i in range(len(shape))]
    if core.op.name == "conv2d_weight_grad":
        o, i, h, w = shape
        groups = core.attrs["groups"]
        each = o // groups
        return (groups, h, w, i, each), [[(0, each), (4, 1)], [(3, 1)], [(1, 1)], [(2, 1)]]
    axes = tuple(shape[i] for i in CHANNELS_LAST)
    return axes, [[(CHANNELS_LAST.index(i), 1)] for i in range(4)]

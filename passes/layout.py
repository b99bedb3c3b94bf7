"""Choose the physical order of axes: images are kept channels-last, so that convolution and pooling run along memory,
and what attention makes lies as the projections before and after it have it, the heads inside a position.

A layout never changes a value's logical shape, axes or random numbers. Where a row-major value meets channels-last ones
it is copied, once for all its readers, by an ``identity`` node: a transposing copy costs less than strided accesses
inside a convolution's or a pool's kernel. A flatten of a channels-last image copies likewise. Where images meet nothing
but convolutions with a window of one pixel, which are matrix products in either layout, they stay as they are; and so,
on a target whose convolutions turn images over as they go, do those that only convolutions read, and their results that
nobody reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from engine.graph import Graph, Node, Rewriter, Value, apply
from engine.schedule import Target

CHANNELS_LAST = (0, 2, 3, 1)
HEADS_INSIDE = (0, 2, 1, 3)

_IMAGE_KINDS = frozenset({"conv2d", "pool"})
_IMAGE_INPUTS = {
    "conv2d": (0,),
    "conv2d_input_grad": (0,),
    "conv2d_weight_grad": (0, 1),
    "max_pool2d": (0,),
    "max_pool2d_grad": (0, 1),
    "max_pool2d_gather": (0, 1),
}


LEAST_ROW = 16
"""The shortest row of an image that is turned over."""
LEAST_SUMMED = 8
"""The same where each row is summed up as it is: in the weight gradient of a depthwise convolution."""


def assign_layouts(graph: Graph, target: Target) -> Graph:
    """Annotate values with ``graph.layouts``, and copy row-major images that meet channels-last ones."""
    return _as_state(_heads_inside(_channels_last(graph, target)))


def _as_state(graph: Graph) -> Graph:
    """What is made of state that does not lie row-major point by point, or becomes its new value, lies as it does."""
    layouts = dict(graph.layouts)
    state = {v.node.attrs["name"]: layouts[v] for v in graph.state if v in layouts}
    if not state:
        return graph
    for node in graph.nodes:
        if node.op.kind == "elementwise":
            orders = (layouts[v] for v in _pointwise(node) if v in layouts)
            layouts.update((v, order) for order in orders for v in node.outputs if v not in layouts)
    waiting = [(v, state[name]) for name, v in graph.updates.items() if name in state]
    while waiting:
        value, order = waiting.pop()
        if value.node.op.name == "conv2d_weight_grad":
            layouts.setdefault(value, order)
        elif value.node.op.kind == "elementwise" and layouts.setdefault(value, order) == order:
            waiting += [(v, order) for v in _pointwise(value.node) if v not in layouts]
    return graph.with_(layouts=layouts)


def _pointwise(node: Node) -> list[Value]:
    """The inputs that an elementwise op reads point by point."""
    return [v for v in node.inputs if v.shape == node.output.shape]


def _heads_inside(graph: Graph) -> Graph:
    """What attention makes lies in the order in which somebody reads it: with heads and positions exchanged."""
    makers = [n for n in graph.nodes if n.op.name in ("attention", "attention_backward")]
    if not makers:
        return graph
    users = graph.users()
    turned = {
        v: HEADS_INSIDE
        for n in makers
        for v in n.outputs
        if any(u.op.name == "permute" and u.attrs["axes"] == HEADS_INSIDE for u in users[v])
    }
    return graph.with_(layouts=dict(graph.layouts) | turned)


def _channels_last(graph: Graph, target: Target) -> Graph:
    images = [n for n in graph.nodes if n.op.name in _IMAGE_INPUTS]
    if not target.channels_last or all(_is_pointwise(n) for n in images):
        return graph
    chosen: dict[Value, tuple[int, ...]] = {}
    for node in graph.nodes:
        if node.op.kind in _IMAGE_KINDS or any(v in chosen for v in _peers(node)):
            chosen.update(dict.fromkeys(node.outputs, CHANNELS_LAST))
    turned = _turned(graph, chosen) if target.turns else set()
    layouts = dict(graph.layouts) | {v: order for v, order in chosen.items() if v not in turned}
    return _convert_images(graph.with_(layouts=layouts), turned)


def _turned(graph: Graph, chosen: Mapping[Value, tuple[int, ...]]) -> set[Value]:
    """The row-major images that convolutions alone read, and of those ``chosen`` to be otherwise the results of such
    convolutions that nobody reads."""
    users = graph.users()
    images = {node.inputs[i] for node in graph.nodes for i in _IMAGE_INPUTS.get(node.op.name, ())}
    read = {v for v in images if v not in chosen and all(_turns(n, v) for n in users[v])}
    made = {v for v in graph.outputs if v in chosen and not users[v] and _turns(v.node, v)}
    return read | {v for v in made if v.node.attrs["groups"] == 1 or v.node.inputs[0] in read}


def _turns(node: Node, value: Value) -> bool:
    """Whether a convolution or a gradient of one turns ``value`` over, an image that it reads or makes."""
    width = value.shape[-1]
    if node.op.name not in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
        return False
    least = LEAST_ROW
    if node.op.name == "conv2d_weight_grad":
        if _meets_pixels(node):
            width *= value.shape[-2]  # rows follow on one another as one
        elif all(v.shape[1] == node.attrs["groups"] for v in node.inputs):
            least = LEAST_SUMMED
    return isinstance(width, int) and width >= least


def _is_pointwise(node: Node) -> bool:
    """Whether a convolution, or its gradient by the image, is a matrix product in either layout."""
    attrs = node.attrs
    return node.op.name in ("conv2d", "conv2d_input_grad") and attrs["groups"] == 1 and _meets_pixels(node)


def _meets_pixels(node: Node) -> bool:
    """Whether every output of a convolution meets a pixel of its own, or in a gradient of one the other way round."""
    attrs = node.attrs
    window = (node.output if node.op.name == "conv2d_weight_grad" else node.inputs[1]).shape[2:]
    return window == attrs["stride"] == (1, 1) and attrs["padding"] == (0, 0)


def _peers(node: Node) -> list[Value]:
    """The inputs that an elementwise op on images reads point by point, or the image that is gathered from."""
    if len(node.outputs) != 1 or len(node.output.shape) != 4:
        return []
    match node.op.kind:
        case "elementwise":
            return [v for v in node.inputs if v.shape == node.output.shape]
        case "gather":
            return [node.inputs[0]]
    return []


def _convert_images(graph: Graph, turned: Collection[Value]) -> Graph:
    """Copies the images that are read, but those ``turned`` over by their readers."""
    rewriter = Rewriter(graph)
    layouts = dict(graph.layouts)
    copies: dict[Value, Value] = {}

    def image(old: Value, new: Value) -> Value:
        if old in graph.layouts or old in turned or old.shape[1] == 1:
            return new
        if new not in copies:
            copies[new] = apply("identity", new)
            layouts[copies[new]] = CHANNELS_LAST
        return copies[new]

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op.kind == "elementwise" and node.output in graph.layouts:
            images = set(_peers(node))
        else:
            images = {node.inputs[i] for i in _IMAGE_INPUTS.get(node.op.name, ())}
        pairs = zip(node.inputs, inputs, strict=True)
        found = rewriter.keep(node, tuple(image(old, new) if old in images else new for old, new in pairs))
        for old, new in zip(node.outputs, found, strict=True):
            if old in layouts:
                layouts[new] = layouts[old]
        return found

    built = rewriter.run(emit)
    layouts |= built.layouts
    alive = {v for n in built.all_nodes() for v in n.outputs}
    return built.with_(layouts={v: order for v, order in layouts.items() if v in alive})

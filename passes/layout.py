"""Choose the physical order of axes: images are kept channels-last, so that convolution and pooling run along memory.

A layout never changes a value's logical shape, axes or random numbers. A pooled image that is only flattened is left
row-major: the pooling kernel writes it so, and the flatten moves nothing.
"""

from __future__ import annotations

from engine.graph import Graph, Node, Rewriter, Value, apply
from engine.schedule import Target

CHANNELS_LAST = (0, 2, 3, 1)

_IMAGE_KINDS = frozenset({"conv2d", "pool"})
_FOLLOWS = frozenset({"elementwise"})


def assign_layouts(graph: Graph, target: Target) -> Graph:
    """Annotate values with ``graph.layouts`` and copy row-major images that a convolution reads into channels-last."""
    if not target.channels_last or not any(n.op.kind in _IMAGE_KINDS for n in graph.nodes):
        return graph
    users = graph.users()
    chosen: dict[Value, tuple[int, ...]] = {}
    for node in graph.nodes:
        if node.op.kind in _IMAGE_KINDS:
            flattened = node.op.name == "max_pool2d" and _only_flattened(node.outputs[0], users)
            # The positions of a flattened pool stay channels-last: only its gradient reads them.
            chosen.update(dict.fromkeys(node.outputs[flattened:], CHANNELS_LAST))
        elif node.op.kind in _FOLLOWS and len(node.output.shape) == 4:
            full = [v for v in node.inputs if v.shape == node.output.shape]
            if any(chosen.get(v) == CHANNELS_LAST for v in full) and not _only_flattened(node.output, users):
                chosen[node.output] = CHANNELS_LAST
    return _convert_images(graph.with_(layouts=chosen))


def _only_flattened(value: Value, users: dict[Value, list[Node]]) -> bool:
    """Whether what reads the value, directly or through elementwise ops, reshapes it, and no convolution reads it."""
    reshaped = False
    pending = list(users[value])
    for _ in range(16):
        if not pending:
            return reshaped
        node = pending.pop()
        if node.op.name == "reshape":
            reshaped = True
        elif node.op.kind == "elementwise":
            pending.extend(users[node.output])
        elif node.op.kind in ("conv2d", "conv2d_weight_grad") or node.op.name == "max_pool2d":
            return False
    return False


def _convert_images(graph: Graph) -> Graph:
    """Convolutions read images of several channels channels-last: others are copied once, for all their readers."""
    rewriter = Rewriter(graph)
    layouts = dict(graph.layouts)
    copies: dict[Value, Value] = {}

    def image(old: Value, new: Value) -> Value:
        if layouts.get(old) == CHANNELS_LAST or old.shape[1] == 1 or old.node.op.kind == "view":
            return new
        if new not in copies:
            copies[new] = apply("identity", new)
            layouts[copies[new]] = CHANNELS_LAST
        return copies[new]

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        images = {"conv2d": (0,), "conv2d_input_grad": (0,), "conv2d_weight_grad": (0, 1)}.get(node.op.name, ())
        mapped = tuple(
            image(v, w) if i in images else w for i, (v, w) in enumerate(zip(node.inputs, inputs, strict=True))
        )
        found = rewriter.keep(node, mapped)
        for old, new in zip(node.outputs, found, strict=True):
            if old in layouts:
                layouts[new] = layouts[old]
        return found

    built = rewriter.run(emit)
    alive = {v for n in built.nodes for v in n.outputs}
    return built.with_(layouts={v: order for v, order in layouts.items() if v in alive})

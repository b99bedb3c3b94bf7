"""What one kernel can hold: the roles of its nodes, and whether they fit together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from engine.graph import Node, Value
from passes.spaces import LinksOf, Space
from passes.views import is_free, look_through

LOOP_KINDS = frozenset({"elementwise", "reduce", "random", "gather"})
CORE_KINDS = frozenset({"contraction", "conv2d", "conv2d_weight_grad", "pool"})
MAX_BUFFERS = 40
"""Past this many buffers a kernel's registers spill and its compile time grows faster than what fusion saves."""
MOST_TAPS = 25
"""A window with more taps asks for so many rows around its own that they cost more than an image in memory."""
MOST_WEIGHTS = 1 << 14
"""So many weights stay near while a few rows of pixels are multiplied by them."""


class Cluster:
    """The nodes of one kernel, in order, and their roles.

    ``core`` is the contraction, convolution or pooling among them. ``inner`` nodes compute what a pooling core reads,
    or the last of two convolutions, point by point; ``source`` is the convolution under such a core, whose output is
    never written to memory. ``outer`` nodes run at the points of the kernel's own axes, the core first.
    """

    def __init__(self, nodes: Iterable[Node]):
        self.nodes = list(nodes)
        members = set(self.nodes)
        cores = [n for n in self.nodes if n.op.kind in CORE_KINDS]
        above = [n for n in cores if n.op.kind == "pool"] or [n for n in cores[1:] if _may_stack(cores[0], n)]
        self.core = above[0] if above else cores[0] if cores else None
        self.cores = cores
        below = _ancestors(self.core, members) if above and self.core else set()
        self.inner = [n for n in self.nodes if n in below and n.op.kind not in CORE_KINDS]
        self.source = next((n for n in cores if n in below), None)
        self.outer = [n for n in self.nodes if n not in below]

    @property
    def values(self) -> list[Value]:
        return [v for n in self.nodes for v in n.outputs]


def _ancestors(core: Node, members: set[Node]) -> set[Node]:
    """The members from which the core's first input, the image, is computed."""
    found: set[Node] = set()
    pending = [look_through(core.inputs[0])[0].node]
    while pending:
        node = pending.pop()
        if node in members and node not in found:
            found.add(node)
            pending.extend(look_through(v)[0].node for v in node.inputs)
    return found


REFUSALS = {
    "kind": "one of them has a kernel of its own, which takes in nothing else",
    "buffers": f"one kernel would read more than {MAX_BUFFERS} buffers",
    "index": "an index may name an element that is not computed yet",
    "gather": "a product, convolution or pooling reads its operands in order, not where indices send it",
    "cores": "each of them is a product, convolution or pooling, and a kernel holds one",
    "spaces": "they run over different loops, or reduce over different axes",
    "rows": "a value between them lies along some of the loops only, and somebody else reads it",
    "window": "what a pooling window reads is seen by others too, or is no value at each point of its input",
    "operand": "a product, convolution or pooling reads many elements for each of its own: they must be there first",
    "reduction": "a reduction follows a product, convolution or pooling, whose tiles end before its rows do",
    "shape": "what follows does not run along the same axes as the product, convolution or pooling",
}
"""The rules by which nodes do not make one kernel, in words."""


def refusal(cluster: Cluster, stored: Callable[[Value], bool], links: LinksOf, chains: bool = False) -> str:
    """The rule, of REFUSALS, by which the nodes do not make one kernel; empty where they do. ``stored(value)`` tells
    whether anything else reads a member's value, ``chains`` whether there are kernels for two convolutions."""
    if any(n.op.kind not in LOOP_KINDS and n.op.kind not in CORE_KINDS for n in cluster.nodes):
        return "kind"
    if len(_buffers(cluster, links)) > MAX_BUFFERS:
        return "buffers"
    gathers = [n for n in cluster.nodes if n.op.kind == "gather"]
    if any(look_through(n.inputs[0])[0].node in cluster.nodes for n in gathers):
        return "index"
    if cluster.core is None:
        return _loops_refusal(cluster.nodes, stored, links)
    if gathers:
        return "gather"
    if len(cluster.cores) != 1 + (cluster.source is not None):
        return "cores"
    if cluster.source is not None and not _stacks(cluster.source, cluster.core, chains):
        return "cores"
    return _window_refusal(cluster, stored, links) or _epilogue_refusal(cluster, stored, links)


def _stacks(source: Node, core: Node, chains: bool) -> bool:
    """Whether a kernel can hold ``core`` over the convolution ``source``: a pool, or, where points of an image can be
    made as they are wanted, a convolution that reads each of them a few times only."""
    if source.op.name != "conv2d":
        return False
    return core.op.name == "max_pool2d" or (chains and _may_stack(source, core))


def _may_stack(source: Node, core: Node) -> bool:
    """Whether one of the two convolutions has a window for each channel, and the other reads single pixels. Where that
    is the second, a kernel reads all its weights again and again: so they are few."""
    if is_depthwise(core):
        return is_pointwise(source)
    return is_depthwise(source) and is_pointwise(core) and _weights(core) <= MOST_WEIGHTS


def _weights(node: Node) -> int:
    return math.prod(size for size in node.inputs[1].shape if isinstance(size, int))


def is_pointwise(node: Node) -> bool:
    """Whether every output of a convolution reads the pixel at its own place, and all channels of that."""
    alone = node.op.name == "conv2d" and node.inputs[1].shape[2:] == node.attrs["stride"] == (1, 1)
    return alone and node.attrs["padding"] == (0, 0) and node.attrs["groups"] == 1 and _computes_as_stored(node)


def is_depthwise(node: Node) -> bool:
    """Whether a convolution has a window, of not too many taps, for each channel alone."""
    if node.op.name != "conv2d" or node.attrs["dilation"] != (1, 1):
        return False
    channels, each, *window = node.inputs[1].shape
    return (
        each == 1
        and channels == node.attrs["groups"] > 1
        and math.prod(window) <= MOST_TAPS
        and _computes_as_stored(node)
    )


def _computes_as_stored(node: Node) -> bool:
    x, w = (v.dtype for v in node.inputs)
    return x == w and x.is_float and not x.storage_only


def _buffers(cluster: Cluster, links: LinksOf) -> set[Value]:
    read = {root for n in cluster.nodes for root in links[n].roots}
    return {v for v in read - set(cluster.values) if not is_free(v.node)}


def _loops_refusal(nodes: Sequence[Node], stored: Callable[[Value], bool], links: LinksOf) -> str:
    """Elementwise ops and reductions: every value runs along all loops, or all that are kept, or is one number."""
    space = Space(nodes, links)
    if not space.valid or space.reduced is None:
        return "spaces"
    every = space.axes
    allowed = (every, every - space.reduced)
    fits = all(space.axes_of(v) in allowed or not (space.axes_of(v) or stored(v)) for v in space.members)
    return "" if fits else "rows"


def _window_refusal(cluster: Cluster, stored: Callable[[Value], bool], links: LinksOf) -> str:
    """What a pooling core reads, or one over another: elementwise at each point of its input, seen by nobody else."""
    assert cluster.core is not None
    hidden = [*cluster.inner, *([cluster.source] if cluster.source else [])]
    if not hidden:
        return ""
    if any(n.op.kind == "reduce" or any(stored(v) for v in n.outputs) for n in hidden):
        return "window"
    outside = {look_through(v)[0].node for n in cluster.outer for v in n.inputs if n is not cluster.core}
    outside |= {look_through(v)[0].node for v in cluster.core.inputs[1:]}
    if outside & set(hidden):
        return "window"
    read, axes = look_through(cluster.core.inputs[0])
    if axes != (0, 1, 2, 3) or read.shape != cluster.core.inputs[0].shape:
        return "window"
    space = Space([n for n in cluster.nodes if n in set(hidden)], links)
    fits = space.valid and all(space.axes_of(v) in (space.axes_of(read), frozenset()) for v in space.members)
    return "" if fits else "window"


def _epilogue_refusal(cluster: Cluster, stored: Callable[[Value], bool], links: LinksOf) -> str:
    """What follows a core: elementwise at each point of its output, or behind the moments of its channels at each."""
    assert cluster.core is not None
    if any(look_through(v)[0].node in cluster.outer for v in cluster.core.inputs):
        return "operand"
    measured = [n for n in cluster.outer if n.op.kind == "reduce"]
    if any(not _measures(n, cluster) for n in measured):
        return "reduction"
    space = Space(cluster.outer, links)
    if not space.valid:
        return "spaces"
    every = space.axes_of(cluster.core.outputs[0])
    allowed = {every}
    if measured:
        kept = space.axes_of(measured[0].outputs[0])
        allowed.add(kept)
        after = set(measured)
        for node in cluster.outer:
            if any(look_through(v)[0].node in after for v in node.inputs):
                after.add(node)
                if space.axes_of(node.outputs[0]) - kept:
                    return "reduction"
    fits = all(space.axes_of(v) in allowed or not (space.axes_of(v) or stored(v)) for v in space.members)
    return "" if fits else "shape"


def _measures(node: Node, cluster: Cluster) -> bool:
    """Whether ``node`` takes mean and variance of what the cluster's convolution makes."""
    return node.op.name == "moments" and cluster.source is None and node.inputs[0].node is cluster.core

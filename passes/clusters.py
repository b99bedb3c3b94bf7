"""What one kernel can hold: the roles of its nodes, and whether they fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from engine.graph import Node, Value
from passes.spaces import Space
from passes.views import is_free, look_through

LOOP_KINDS = frozenset({"elementwise", "reduce", "random", "gather"})
CORE_KINDS = frozenset({"contraction", "conv2d", "conv2d_weight_grad", "pool"})
MAX_BUFFERS = 40
"""Past this many buffers a kernel's registers spill and its compile time grows faster than what fusion saves."""


class Cluster:
    """The nodes of one kernel, in order, and their roles.

    ``core`` is the contraction, convolution or pooling among them. ``inner`` nodes compute what a pooling core reads,
    point by point; ``source`` is the convolution under a pooling core, whose output is never written to memory.
    ``outer`` nodes run at the points of the kernel's own axes, the core first.
    """

    def __init__(self, nodes: Iterable[Node]):
        self.nodes = list(nodes)
        members = set(self.nodes)
        cores = [n for n in self.nodes if n.op.kind in CORE_KINDS]
        pools = [n for n in cores if n.op.kind == "pool"]
        self.core = pools[0] if pools else cores[0] if cores else None
        self.cores = cores
        below = _ancestors(self.core, members) if pools and self.core else set()
        self.inner = [n for n in self.nodes if n in below and n.op.kind not in CORE_KINDS]
        self.source = next((n for n in cores if n in below), None)
        self.outer = [n for n in self.nodes if n not in below]

    @property
    def values(self) -> list[Value]:
        return [v for n in self.nodes for v in n.outputs]


def _ancestors(core: Node, members: set[Node]) -> set[Node]:
    """The members from which the core's first input, the one that it pools, is computed."""
    found: set[Node] = set()
    pending = [look_through(core.inputs[0])[0].node]
    while pending:
        node = pending.pop()
        if node in members and node not in found:
            found.add(node)
            pending.extend(look_through(v)[0].node for v in node.inputs)
    return found


def fits(cluster: Cluster, stored: Callable[[Value], bool]) -> bool:
    """Whether the nodes make one kernel; ``stored(value)`` tells whether anything else reads a member's value."""
    if any(n.op.kind not in LOOP_KINDS and n.op.kind not in CORE_KINDS for n in cluster.nodes):
        return False
    if len(_buffers(cluster)) > MAX_BUFFERS:
        return False
    gathers = [n for n in cluster.nodes if n.op.kind == "gather"]
    if any(look_through(n.inputs[0])[0].node in cluster.nodes for n in gathers):
        return False  # an index may name an element that is yet to be computed
    if cluster.core is None:
        return _fits_loops(cluster.nodes, stored)
    if gathers:
        return False
    if len(cluster.cores) != 1 + (cluster.source is not None):
        return False
    return _fits_inner(cluster, stored) and _fits_epilogue(cluster, stored)


def _buffers(cluster: Cluster) -> set[Value]:
    read = {look_through(v)[0] for n in cluster.nodes for v in n.inputs}
    return {v for v in read - set(cluster.values) if not is_free(v.node)}


def _fits_loops(nodes: Sequence[Node], stored: Callable[[Value], bool]) -> bool:
    """Elementwise ops and reductions: every value runs along all loops, or all that are kept, or is one number."""
    space = Space(nodes)
    if not space.valid or space.reduced is None:
        return False
    every = space.axes
    allowed = (every, every - space.reduced)
    return all(space.axes_of(v) in allowed or not (space.axes_of(v) or stored(v)) for v in space.members)


def _fits_inner(cluster: Cluster, stored: Callable[[Value], bool]) -> bool:
    """What a pooling core reads: elementwise at each point of its input, seen by nobody else."""
    assert cluster.core is not None
    hidden = [*cluster.inner, *([cluster.source] if cluster.source else [])]
    if not hidden:
        return True
    if cluster.source is not None and (cluster.source.op.name != "conv2d" or cluster.core.op.name != "max_pool2d"):
        return False
    if any(n.op.kind == "reduce" or any(stored(v) for v in n.outputs) for n in hidden):
        return False
    outside = {look_through(v)[0].node for n in cluster.outer for v in n.inputs if n is not cluster.core}
    outside |= {look_through(v)[0].node for v in cluster.core.inputs[1:]}
    if outside & set(hidden):
        return False
    read, axes = look_through(cluster.core.inputs[0])
    if axes != (0, 1, 2, 3) or read.shape != cluster.core.inputs[0].shape:
        return False
    space = Space([n for n in cluster.nodes if n in set(hidden)])
    return space.valid and all(space.axes_of(v) in (space.axes_of(read), frozenset()) for v in space.members)


def _fits_epilogue(cluster: Cluster, stored: Callable[[Value], bool]) -> bool:
    """What follows a core: elementwise at each point of its output."""
    assert cluster.core is not None
    if any(n.op.kind == "reduce" for n in cluster.outer):
        return False
    if any(look_through(v)[0].node in cluster.outer for v in cluster.core.inputs):
        return False
    space = Space(cluster.outer)
    if not space.valid:
        return False
    every = space.axes_of(cluster.core.outputs[0])
    return all(space.axes_of(v) == every or not (space.axes_of(v) or stored(v)) for v in space.members)

"""Composite ops that the backend has no kernel for become the simpler ops that define them.

Mean and variance are left whole where a convolution can take them of what it makes.
"""

from __future__ import annotations

import itertools

from engine.errors import UnsupportedError, VerifyError
from engine.graph import Graph, Node, Rewriter, Value, apply
from engine.schedule import Target

PRIMITIVE_KINDS = frozenset(
    {"elementwise", "reduce", "view", "contraction", "conv2d", "conv2d_weight_grad", "pool", "random", "index",
     "check", "move", "source", "gather", "sort", "scan", "custom", "recurrence", "loop"}
)  # fmt: skip
"""The kernel classes that every backend implements."""
LEAST_MEASURED = 1 << 12
"""So many elements of an image are worth two more kernels, which saves reading them."""


def decompose(graph: Graph, target: Target) -> Graph:
    """``graph`` in ops that ``target`` claims and primitives. Raises UnsupportedError for an op that is neither."""

    def runs(node: Node) -> bool:
        if node.op.name == "moments":
            return target.measures and is_measured(node)
        return node.op.name in target.claims or node.op.kind in PRIMITIVE_KINDS

    def emit(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if runs(node):
            return None
        found = _of_shifted(inputs[0], node.attrs["axes"]) if node.op.name == "moments" and target.measures else None
        return _parts(node, inputs, target) if found is None else found

    while not all(map(runs, graph.nodes)):  # a decomposition may hold other composites, never itself
        graph = Rewriter(graph).run(emit)
    return graph


def is_measured(node: Node) -> bool:
    """Whether these are mean and variance of a convolution's channels, of images of some size. Windows of one pixel are
    left out, for those are matrix products, and groups."""
    image = node.inputs[0]
    made = image.node
    if made.op.name != "conv2d" or node.attrs["axes"] != (0, 2, 3) or made.attrs["groups"] != 1:
        return False
    channels, height, width = image.shape[1:]
    large = isinstance(channels * height * width, int) and channels * height * width >= LEAST_MEASURED
    return large and not image.dtype.storage_only and made.inputs[1].shape[2:] != (1, 1)


def _of_shifted(image: Value, axes: tuple[int, ...]) -> tuple[Value, Value] | None:
    """Mean and variance of a convolution plus a number for each channel, by those of the convolution."""
    if image.node.op.name != "add":
        return None
    for made, bias in itertools.permutations(image.node.inputs):
        if made.shape == image.shape and all(n == 1 for n in (*bias.shape[-4:-3], *bias.shape[-2:])):
            mean, variance = apply("moments", made, axes=axes)
            if is_measured(mean.node):
                return mean + bias, variance
    return None


def _parts(node: Node, inputs: tuple[Value, ...], target: Target) -> tuple[Value, ...]:
    if node.op.decompose is None:
        dtypes = ", ".join(str(v.dtype) for v in (node.inputs or node.outputs))
        raise UnsupportedError(
            f"the backend {target.name} has no kernel for {node.op.name} of {dtypes}, which has no decomposition",
            node.location,
        )
    found = node.op.decompose(*inputs, **node.attrs)
    outputs = found if isinstance(found, tuple) else (found,)
    for old, new in zip(node.outputs, outputs, strict=True):
        if (old.dtype, len(old.shape)) != (new.dtype, len(new.shape)):
            raise VerifyError(f"{node.op.name} of type {old.type} decomposes into {new.type}", node.location)
    return outputs

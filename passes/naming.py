"""Names of kernels, which say what they do: ``conv2d_bias_relu_maxpool_32x3x3``."""

from __future__ import annotations

from engine.dims import Size
from engine.graph import Node
from passes.clusters import Cluster
from passes.views import look_through

_SHORT = {"max_pool2d": "maxpool", "max_pool2d_grad": "maxpool_grad"}
_LONGEST = 6


def kernel_name(cluster: Cluster) -> str:
    """The ops in order, of many the cores and a few, and the known sizes of what is heavy: channels and window of a
    convolution, rows, depth and columns of a product."""
    words: list[str] = []
    for node in cluster.nodes:
        word = _word(node)
        if not words or words[-1] != word:
            words.append(word)
    if len(words) > _LONGEST:
        core = [_word(n) for n in cluster.cores]
        rest = [w for w in words if w not in core][:3] if core else words[: _LONGEST - 1]
        words = [*core, *rest, "etc"]
    sizes = [size for core in cluster.cores[:1] for size in _sizes(core) if isinstance(size, int)]
    return "_".join([*words, *(["x".join(map(str, sizes))] if sizes else [])])


def _word(node: Node) -> str:
    if node.op.name == "add":
        roots = [look_through(v)[0] for v in node.inputs]
        vector = any(r.node.op.name == "state" and len(r.shape) == 1 for r in roots)
        if vector and any(r.node.op.name in ("matmul", "conv2d") for r in roots):
            return "bias"
    return _SHORT.get(node.op.name, node.op.name).strip("_")


def _sizes(core: Node) -> tuple[Size, ...]:
    match core.op.name:
        case "matmul":
            a, b = core.inputs
            return (*a.shape[-2:-1], *a.shape[-1:], *b.shape[-1:])
        case "conv2d" | "conv2d_input_grad":
            out, _, *window = core.inputs[1].shape
            return (out, *window)
        case "conv2d_weight_grad":
            out, _, *window = core.output.shape
            return (out, *window)
    return core.attrs.get("kernel", ())

"""Views that change nothing, views of views, and reductions that are views."""

from __future__ import annotations

from engine.graph import Node, Value, apply
from engine.rules import full
from passes.simplify.patterns import Number, Rule, Var, op

X = Var("x")
_REDUCTIONS = ("sum", "max", "min", "prod", "mean", "any", "all")


def _same_shape(x: Value, root: Node) -> Value | None:
    return x if x.shape == root.output.shape else None


def _unpermuted(x: Value, root: Node) -> Value | None:
    return x if root.attrs["axes"] == tuple(range(len(x.shape))) else None


def _permuted_once(x: Value, root: Node) -> Value:
    first = root.inputs[0].node.attrs["axes"]
    return apply("permute", x, axes=tuple(first[a] for a in root.attrs["axes"]))


def _whole(x: Value, root: Node) -> Value | None:
    return x if x.shape == root.output.shape and all(s == 1 for s in root.attrs["step"]) else None


def _unpadded(x: Value, root: Node) -> Value | None:
    a = root.attrs
    changed = any(size != 0 for size in (*a["low"], *a["high"])) or any(s != 1 for s in a["step"])
    return None if changed else x


def _reshaped(x: Value, root: Node) -> Value | None:
    """A reduction over axes of size 1."""
    if any(x.shape[a] != 1 for a in root.attrs["axes"]):
        return None
    return apply("reshape", x, shape=root.output.shape)


def _filled(c: object, root: Node) -> Value:
    return full(root.output.shape, c, root.output.dtype)


RULES = (
    Rule("identity", op("identity", X), lambda x: x),
    Rule("reshape to the same shape", op("reshape", X), _same_shape),
    Rule("broadcast to the same shape", op("broadcast_to", X), _same_shape),
    Rule("permute nothing", op("permute", X), _unpermuted),
    Rule("slice of everything", op("slice", X), _whole),
    Rule("pad nothing", op("pad", X), _unpadded),
    Rule("concat of one", op("concat", X), lambda x: x),
    Rule("view of one number", op(("reshape", "permute", "slice"), Number("c")), _filled),
    Rule(
        "reshape of reshape",
        op("reshape", op("reshape", X)),
        lambda x, root: apply("reshape", x, shape=root.output.shape),
    ),
    Rule("permute of permute", op("permute", op("permute", X)), _permuted_once),
    Rule(
        "broadcast of broadcast",
        op("broadcast_to", op("broadcast_to", X)),
        lambda x, root: apply("broadcast_to", x, shape=root.output.shape),
    ),
    Rule("reduction of size 1", op(_REDUCTIONS, X), _reshaped),
)

"""Attention as one op, and its gradient as another: softmax(q k^T * scale + mask) v without a matrix of all scores.

``q`` (B, H, L, E), ``k`` (B, G, S, E) and ``v`` (B, G, S, V); G divides H, and a head of keys and values serves H / G
neighbouring heads of queries. ``given`` names the inputs that follow, each of which may be left out, in this order:

- ``mask``, whose axes are those of the scores (B, H, L, S) or 1: bool, True where a query may look, or numbers in the
  dtype of ``q`` that are added to the scores
- ``offset`` (B) or (1), integers: the position among the keys of the first query, which ``causal`` counts from; 0
  without. Where keys lie in a cache that is not full yet, those behind the last query are not even read
- ``seed`` and ``step``, i64 scalars: what dropout draws from, in the ``stream`` of that number

With ``causal`` query i sees keys up to ``offset + i``. ``dropout`` is the probability that a weight is left out; which
are depends on the element's row-major number in (B, H, L, S), as in ``random_uniform``.

The outputs are the result (B, H, L, V) and ``lse`` (B, H, L), the logarithm of the sum of a row's exponentials, from
which the gradient makes the weights again. **A query that sees no key gives** ``empty``, zeros or NaN; from zeros no
gradient flows. Its ``lse`` is infinity, not minus infinity, so that ``exp(score - lse)`` is zero.

``attention_backward`` takes ``q``, ``k``, ``v``, the gradient ``g`` of the result, ``lse``, ``delta`` (B, H, L) = sum
of g * result over V, less the gradient of ``lse``, and what is ``given``. With p the weights and d the factors of
dropout (0, or 1 / (1 - dropout)) it gives

    dv = (p * d)^T g,   ds = p * ((g v^T) * d - delta),   dq = scale * ds k,   dk = scale * ds^T q

Sources: Vaswani et al. (2017), "Attention is all you need"; Milakov and Gimelshein (2018), "Online normalizer
calculation for softmax"; Dao et al. (2022), "FlashAttention".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engine import dims, dtypes
from engine.dims import Shape, Size, shape_text
from engine.errors import DTypeError, ShapeError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.rules import full, keep_axes, need_equal, need_float, need_integer, need_rank, sum_to, transposed, widened

GIVEN = ("mask", "offset", "seed", "step")
FORWARD = ("q", "k", "v")
BACKWARD = ("q", "k", "v", "g", "lse", "delta")
INFINITY = float("inf")


def input_names(op: Op, given: str) -> tuple[str, ...]:
    """What the inputs of attention, or of its gradient, are called."""
    return (*(n for n in op.inputs if not n.startswith("*")), *given.split())


def known_inputs(node: Node) -> dict[str, Value]:
    """The inputs of a node of either op by name."""
    return dict(zip(input_names(node.op, node.attrs["given"]), node.inputs, strict=True))


# --- types -------------------------------------------------------------------------------------------------------


def _check(op: str, types: Mapping[str, TensorType], given: str) -> None:
    """Raises DTypeError and ShapeError unless the inputs fit together."""
    named = given.split()
    if sorted(named, key=GIVEN.index) != named or ("seed" in named) != ("step" in named):
        raise ShapeError(f"{op}: given is some of {' '.join(GIVEN)}, in this order, not {given!r}")
    q, k, v = (types[n] for n in FORWARD)
    for name in FORWARD:
        need_rank(op, f"{name} (batch, heads, length, features)", types[name], 4)
    need_float(op, q, k, v)
    if not q.dtype == k.dtype == v.dtype:
        raise DTypeError(f"{op} takes q, k and v of one dtype, not {q.dtype}, {k.dtype} and {v.dtype}")
    shapes = ", ".join(shape_text(t.shape) for t in (q, k, v))
    for axis, what in ((0, "batch"), (3, "features")):
        need_equal(q.shape[axis], k.shape[axis], f"{op}: queries and keys differ in {what}, as of {shapes}")
    for axis, what in ((0, "batch"), (1, "heads"), (2, "length")):
        need_equal(k.shape[axis], v.shape[axis], f"{op}: keys and values differ in {what}, as of {shapes}")
    if not isinstance(q.shape[3], int) or not isinstance(v.shape[3], int):
        raise ShapeError(f"{op} needs a known number of features, not those of {shapes}")
    sharing(op, q, k)
    batch, heads, length, _ = q.shape
    scores = (batch, heads, length, k.shape[2])
    rows = TensorType(scores[:3], q.dtype.computed)
    for name in ("lse", "delta", "g"):
        expected = TensorType((*scores[:3], v.shape[3]), q.dtype) if name == "g" else rows
        if name in types:
            _need_like(op, name, types[name], expected)
    if "mask" in types:
        _check_mask(op, types["mask"], scores, q)
    if "offset" in types:
        need_integer(f"{op}'s offset", types["offset"])
        need_rank(op, "offset", types["offset"], 1)
        if types["offset"].shape[0] != 1:
            need_equal(types["offset"].shape[0], batch, f"{op}: offset has another size than the batch, {batch}")
    for name in ("seed", "step"):
        if name in types and types[name] != TensorType((), dtypes.i64):
            raise DTypeError(f"{op} takes i64 scalars for seed and step, not {types[name]}")


def _need_like(op: str, name: str, found: TensorType, expected: TensorType) -> None:
    need_rank(op, name, found, expected.rank)
    if found.dtype != expected.dtype:
        raise DTypeError(f"{op}: {name} is {found.dtype}, {expected.dtype} was expected")
    for a, b in zip(found.shape, expected.shape, strict=True):
        need_equal(a, b, f"{op}: {name} has shape {shape_text(found.shape)}, {shape_text(expected.shape)} was expected")


def _check_mask(op: str, mask: TensorType, scores: Shape, q: TensorType) -> None:
    if mask.dtype not in (dtypes.bool_, q.dtype):
        raise DTypeError(f"{op} takes a mask of bool or {q.dtype}, not {mask.dtype}")
    need_rank(op, "the mask", mask, 4)
    for a, b in zip(mask.shape, scores, strict=True):
        if a != 1:
            need_equal(a, b, f"{op}: a mask {shape_text(mask.shape)} does not broadcast to {shape_text(scores)}")


def sharing(op: str, q: TensorType | Value, k: TensorType | Value) -> int:
    """How many heads of queries share one of keys. Raises ShapeError."""
    heads, own = q.shape[1], k.shape[1]
    if heads == own:
        return 1
    if not isinstance(heads, int) or not isinstance(own, int) or not own or heads % own:
        raise ShapeError(f"{op}: {heads} query heads cannot share {own} heads of keys and values")
    return heads // own


def _rule(*types: TensorType, given: str, **_: Any) -> tuple[TensorType, ...]:
    known = dict(zip((*FORWARD, *given.split()), types, strict=True))
    _check("attention", known, given)
    q, _k, v = types[:3]
    return TensorType((*q.shape[:3], v.shape[3]), q.dtype), TensorType(q.shape[:3], q.dtype.computed)


def _backward_rule(*types: TensorType, given: str, **_: Any) -> tuple[TensorType, ...]:
    known = dict(zip((*BACKWARD, *given.split()), types, strict=True))
    _check("attention_backward", known, given)
    return types[:3]


# --- on NumPy arrays ---------------------------------------------------------------------------------------------

Arrays = Mapping[str, np.ndarray]


def _array_scores(known: Arrays, causal: bool, scale: float) -> np.ndarray:
    """The scores (B, H, L, S), minus infinity where a query may not look."""
    q, k = widened(known["q"]), widened(known["k"])
    scores = (q * scale) @ np.repeat(k, q.shape[1] // k.shape[1], 1).swapaxes(2, 3)
    scores = scores.astype(q.dtype)
    mask = known.get("mask")
    if mask is not None:
        scores = np.where(mask, scores, -INFINITY) if mask.dtype == bool else scores + widened(mask)
    if causal:
        offset = known.get("offset", np.zeros(1, np.int64))
        length, keys = scores.shape[2:]
        seen = np.arange(length)[:, None] + offset.reshape(-1, 1, 1, 1) >= np.arange(keys)
        scores = np.where(seen, scores, -INFINITY)
    return scores.astype(q.dtype)


def _array_dropout(known: Arrays, shape: tuple[int, ...], dropout: float, stream: int) -> np.ndarray | float:
    """The factor of each weight."""
    from engine.random import uniform_reference

    if "seed" not in known:
        return 1.0
    dtype = dtypes.f64 if known["q"].dtype == np.float64 else dtypes.f32
    index = np.arange(np.prod(shape, dtype=np.int64), dtype=np.int64).reshape(shape)
    kept = uniform_reference(int(known["seed"]), int(known["step"]), stream, index, dtype) >= dropout
    return kept.astype(dtype.numpy) * dtype.numpy.type(1 / (1 - dropout))


def _reference(*arrays: np.ndarray, given: str, causal: bool, scale: float, dropout: float, stream: int,
               empty: float) -> tuple[np.ndarray, ...]:  # fmt: skip
    known = dict(zip((*FORWARD, *given.split()), arrays, strict=True))
    scores = _array_scores(known, causal, scale)
    top = scores.max(-1, keepdims=True, initial=-INFINITY)
    nowhere = top == -INFINITY
    e = np.exp(scores - np.where(nowhere, 0, top).astype(top.dtype))
    total = np.where(nowhere, 1, e.sum(-1, keepdims=True)).astype(top.dtype)
    weights = e / total * _array_dropout(known, scores.shape, dropout, stream)
    v = np.repeat(widened(known["v"]), scores.shape[1] // known["v"].shape[1], 1)
    return np.where(nowhere, empty, weights @ v), np.where(nowhere, INFINITY, np.log(total) + top)[..., 0]


def _backward_reference(*arrays: np.ndarray, given: str, causal: bool, scale: float, dropout: float, stream: int,
                        empty: float) -> tuple[np.ndarray, ...]:  # fmt: skip
    known = dict(zip((*BACKWARD, *given.split()), arrays, strict=True))
    scores = _array_scores(known, causal, scale)
    p = np.exp(scores - known["lse"][..., None])
    factor = _array_dropout(known, scores.shape, dropout, stream)
    q, k, v, g = (widened(known[n]) for n in ("q", "k", "v", "g"))
    ratio = q.shape[1] // k.shape[1]

    def grouped(x: np.ndarray) -> np.ndarray:
        return x.reshape(x.shape[0], -1, ratio, *x.shape[2:]).sum(2)

    ds = p * (g @ np.repeat(v, ratio, 1).swapaxes(2, 3) * factor - known["delta"][..., None])
    dq = ds @ np.repeat(k, ratio, 1) * scale
    return dq, grouped(ds.swapaxes(2, 3) @ q) * scale, grouped((p * factor).swapaxes(2, 3) @ g)


# --- as a graph --------------------------------------------------------------------------------------------------

Values = Mapping[str, Value]


def _wide(x: Value) -> Value:
    return x if x.dtype == x.dtype.computed else apply("cast", x, dtype=x.dtype.computed)


def _many_heads(x: Value, ratio: int) -> Value:
    """Each head of keys or values once for every head of queries that it serves."""
    if ratio == 1:
        return x
    batch, heads, length, features = x.shape
    spread = apply("reshape", x, shape=(batch, heads, 1, length, features))
    spread = apply("broadcast_to", spread, shape=(batch, heads, ratio, length, features))
    return apply("reshape", spread, shape=(batch, heads * ratio, length, features))


def _few_heads(x: Value, ratio: int) -> Value:
    """The sums over the heads of queries that share one of keys: the gradient of :func:`_many_heads`."""
    if ratio == 1:
        return x
    batch, heads, length, features = x.shape
    return apply("sum", apply("reshape", x, shape=(batch, heads // ratio, ratio, length, features)), axes=(2,))


def _scores(known: Values, causal: bool, scale: float) -> Value:
    q, k = _wide(known["q"]), _wide(known["k"])
    scores = apply("matmul", q * scale, transposed(_many_heads(k, sharing("attention", q, k))))
    mask, seen = known.get("mask"), None
    if mask is not None and mask.dtype == dtypes.bool_:
        seen = mask
    elif mask is not None:
        scores = scores + _wide(mask)
    if causal:
        shape = scores.shape[2:]
        at = apply("iota", shape=(*shape[:1], 1), axis=0)
        if "offset" in known:
            at = at + apply(
                "reshape", apply("cast", known["offset"], dtype=dtypes.i64), shape=(known["offset"].shape[0], 1, 1, 1)
            )
        below = apply("ge", at, apply("iota", shape=(1, *shape[1:]), axis=1))
        seen = below if seen is None else apply("and_", seen, below)
    return scores if seen is None else apply("where", seen, scores, -INFINITY)


def _dropped(known: Values, x: Value, dropout: float, stream: int) -> Value:
    """``x`` (B, H, L, S) times the factors of dropout."""
    if "seed" not in known:
        return x
    drawn = apply("random_uniform", known["seed"], known["step"], stream=stream, shape=x.shape, dtype=x.dtype)
    return apply("where", apply("ge", drawn, dropout), x * (1 / (1 - dropout)), 0.0)


def _parts(*values: Value, given: str, causal: bool, scale: float, dropout: float, stream: int,
           empty: float) -> tuple[Value, ...]:  # fmt: skip
    known = dict(zip((*FORWARD, *given.split()), values, strict=True))
    scores = _scores(known, causal, scale)
    top = apply("max", scores, axes=(3,), keepdims=True)
    nowhere = apply("eq", top, -INFINITY)
    e = apply("exp", scores - apply("where", nowhere, 0.0, top))
    total = apply("sum", e, axes=(3,), keepdims=True)
    total = total if empty else apply("where", nowhere, 1.0, total)  # 0 / 0 is NaN
    v = _many_heads(_wide(known["v"]), sharing("attention", known["q"], known["k"]))
    out = apply("matmul", _dropped(known, e / total, dropout, stream), v)
    lse = apply("where", nowhere, INFINITY, apply("log", total) + top)
    out = out if out.dtype == values[0].dtype else apply("cast", out, dtype=values[0].dtype)
    return out, apply("reshape", lse, shape=scores.shape[:3])


def _score_gradient(known: Values, attrs: Mapping[str, Any]) -> tuple[Value, Value]:
    """The weights behind their dropout, and the gradient of the scores."""
    dropout, stream = attrs["dropout"], attrs["stream"]
    p = apply("exp", _scores(known, attrs["causal"], attrs["scale"]) - keep_axes(known["lse"], (3,)))
    ratio = sharing("attention_backward", known["q"], known["k"])
    dp = apply("matmul", _wide(known["g"]), transposed(_many_heads(_wide(known["v"]), ratio)))
    ds = p * (_dropped(known, dp, dropout, stream) - keep_axes(known["delta"], (3,)))
    return _dropped(known, p, dropout, stream), ds


def _backward_parts(*values: Value, given: str, **attrs: Any) -> tuple[Value, ...]:
    known = dict(zip((*BACKWARD, *given.split()), values, strict=True))
    p, ds = _score_gradient(known, attrs)
    ratio, scale = sharing("attention_backward", known["q"], known["k"]), attrs["scale"]
    dq = apply("matmul", ds, _many_heads(_wide(known["k"]), ratio)) * scale
    dk = _few_heads(apply("matmul", transposed(ds), _wide(known["q"])), ratio) * scale
    dv = _few_heads(apply("matmul", transposed(p), _wide(known["g"])), ratio)
    found = zip((dq, dk, dv), values, strict=False)
    return tuple(d if d.dtype == x.dtype else apply("cast", d, dtype=x.dtype) for d, x in found)


# --- gradients ---------------------------------------------------------------------------------------------------


def _gradient(node: Node, g: Value | None, g_lse: Value | None) -> list[Value | None]:
    known, out = known_inputs(node), node.outputs[0]
    if g is None:
        g = full(out.shape, 0, out.dtype)
    delta = apply("sum", _wide(g) * _wide(out), axes=(3,))
    known |= {"g": g, "lse": node.outputs[1], "delta": delta if g_lse is None else delta - g_lse}
    order = (*BACKWARD, *node.attrs["given"].split())
    made = apply("attention_backward", *(known[n] for n in order), **node.attrs)
    found: dict[str, Value] = dict(zip(FORWARD, made, strict=True))
    if "mask" in known and known["mask"].dtype.is_float:  # dead code where nobody asks for it
        found["mask"] = sum_to(_score_gradient(known, node.attrs)[1], known["mask"].shape)
    return [found.get(n) for n in input_names(node.op, node.attrs["given"])]


def _second_gradient(node: Node, *grads: Value | None) -> list[Value | None]:
    """Through the decomposition of the gradient."""
    known = known_inputs(node)
    again = {n: apply("identity", v) for n, v in known.items()}
    made = _backward_parts(*again.values(), **node.attrs)
    terms = [apply("sum", m * g, axes=(0, 1, 2, 3)) for m, g in zip(made, grads, strict=True) if g is not None]
    wanted = {n: v for n, v in again.items() if v.dtype.is_float}
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    found = dict(zip(wanted, apply("grad", total, *wanted.values()), strict=True))
    return [found.get(n) for n in known]


# --- records -----------------------------------------------------------------------------------------------------

_ATTRS = {"given": "", "causal": False, "scale": REQUIRED, "dropout": 0.0, "stream": 0, "empty": 0.0}


def _flops(node: Node) -> Size:
    """Two products over all pairs of query and key; five in the gradient: the scores again, g v^T, and one for each of
    the three gradients. Half of that where a query sees only keys before its own."""
    q, k, v = node.inputs[:3]
    keyed, valued = (1, 1) if node.op.name == "attention" else (3, 2)
    pairs = dims.product(q.shape[:-1]) * k.shape[2]
    flops = 2 * pairs * (keyed * q.shape[-1] + valued * v.shape[-1])
    return flops // 2 if node.attrs["causal"] else flops


register(
    Op(
        "attention",
        "composite",
        (*FORWARD, "*more"),
        _rule,
        _reference,
        _gradient,
        _parts,
        attrs=_ATTRS,
        flops=_flops,
        doc="softmax(q k^T * scale + mask) v, and the logarithm of each row's sum of exponentials. A row that sees no "
        "key gives zeros. ``given`` names the inputs that follow: mask, offset, seed, step.",
    )
)
register(
    Op(
        "attention_backward",
        "composite",
        (*BACKWARD, "*more"),
        _backward_rule,
        _backward_reference,
        _second_gradient,
        _backward_parts,
        attrs=_ATTRS,
        flops=_flops,
        doc="The gradients of ``attention`` with respect to q, k and v.",
    )
)

"""Mixed precision: products in 16 bits, everything that must be exact in float32, by the lists of PyTorch's autocast.

The pass runs on the graph as it was traced, before autodiff. So the backward graph is made of the same casts the other
way round: the gradient of a product multiplies in 16 bits as the product did, and the gradient of a parameter's cast is
a cast, with which it arrives in float32 like the parameter. Run behind autodiff, the pass would have to find out anew
which of the values that are kept for the gradient belong to which product.

- *Products* (contractions, convolutions, attention, recurrences) take 16-bit operands and give 16-bit results. Backends
  add up in float32.
- *Exact* ops (exponentials, logarithms, powers, sums and means, softmax, losses, running sums, users' own ops) take and
  give float32. Norms are made of these, and so are their statistics.
- All others follow: on 16 bits alone they give 16 bits, so what lies between two products is kept in half the memory.
  Beside a float32 tensor they give float32, as NumPy promotes. Numbers, masks and the bias behind a product are no
  reason to: there the op computes in float32 and its result is rounded once.
- What is next rounded to 16 bits anyway is rounded before ops that only select and move elements: a norm's result goes
  into memory, through a relu and into a convolution in 16 bits.

Values that were traced in another dtype than float32 are left alone, and inputs, outputs and state keep their types: a
parameter stays in float32, and is rounded where a product reads it.

Source: Micikevicius et al. (2018), "Mixed precision training".
"""

from __future__ import annotations

from engine.dtypes import DType, f32
from engine.graph import Graph, Node, Rewriter, Value, apply

_PRODUCT_KINDS = frozenset({"contraction", "conv2d", "conv2d_weight_grad", "recurrence"})
_PRODUCTS = frozenset({"attention", "attention_backward"})
_EXACT_KINDS = frozenset({"scan", "custom", "loop"})
_EXACT = frozenset(
    {
        *("exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "pow", "rsqrt", "reciprocal", "tan", "sinh", "cosh"),
        *("asin", "acos", "acosh", "logaddexp", "logaddexp2", "xlogy", "softplus", "logsigmoid"),
        *("sum", "prod", "mean", "moments", "overlap_add"),
        *("softmax", "log_softmax", "logsumexp", "cross_entropy", "mse_loss"),
    }
)
_SELECTING_KINDS = frozenset({"view", "gather"})
_SELECTING = frozenset({"relu", "max_pool2d", "concat"})
"""Ops whose results are elements of their operands, or 0: rounding before them or behind them is the same."""


def is_product(node: Node) -> bool:
    """Whether ``node`` is computed in 16 bits, where precision is mixed."""
    return node.op.kind in _PRODUCT_KINDS or node.op.name in _PRODUCTS


def is_exact(node: Node) -> bool:
    """Whether ``node`` is computed in float32, where precision is mixed."""
    return node.op.kind in _EXACT_KINDS or node.op.name in _EXACT


def mix_precision(graph: Graph, narrow: DType) -> Graph:
    """``graph`` with its products, and what follows them, in the 16-bit dtype ``narrow``."""
    rounding = _Mixing(graph, narrow, frozenset())
    mixed = rounding.run(rounding.emit)
    early = _rounded_early(mixed, narrow)
    if not early:
        return mixed
    rounding = _Mixing(graph, narrow, frozenset(v.name for v in early))
    return rounding.run(rounding.emit)


class _Mixing(Rewriter):
    """Rewrites a traced graph. ``_weak`` values do not ask for float32 of what they meet: numbers and masks;
    ``_parameters`` do not where they are the bias of a product, which are the ``_products``."""

    def __init__(self, graph: Graph, narrow: DType, early: frozenset[str]):
        super().__init__(graph)
        self.narrow = narrow
        self.early = early  # the names of values that are rounded where they are made
        self._casts: dict[tuple[Value, DType], Value] = {}
        self._weak: set[Value] = set()
        self._products: set[Value] = set()
        self._parameters = {v for v in graph.state if v.dtype == f32}

    def emit(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        outputs = self._mixed(node, inputs)
        self._note(node, inputs, outputs)
        return tuple(self._to(v, self.narrow) if v.name in self.early and v.dtype == f32 else v for v in outputs)

    def finish(self) -> Graph:
        with self.builder:
            for v in self.graph.results:
                self.map[v] = self._to(self.map[v], v.dtype)
        return super().finish()

    def _mixed(self, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        floats = [v for v, old in zip(inputs, node.inputs, strict=True) if old.dtype == f32]
        if is_product(node) and len(floats) == sum(v.dtype.is_float for v in node.inputs):
            return self.keep(node, tuple(self._to(v, self.narrow) if v in floats else v for v in inputs))
        if all(v.dtype == f32 for v in floats):
            return self.keep(node, inputs)
        if node.op.kind == "grad":
            return self.keep(node, (self._to(inputs[0], f32), *inputs[1:]))
        wide = [v for v in floats if v.dtype == f32]
        if not wide and not is_exact(node) and len(floats) == _count_floats(node):
            return self.keep(node, inputs)
        follows = node.op.kind == "elementwise" and not is_exact(node)
        if follows and all(v in self._weak or self._is_bias(node, inputs, v) for v in wide):
            outputs = self.keep(node, inputs)
            return tuple(self._to(v, self.narrow) if v.dtype == f32 else v for v in outputs)
        # All that read a value in float32 read one cast of it: so their gradients are added up before they are rounded.
        return self.keep(node, tuple(self._to(v, old.dtype) for v, old in zip(inputs, node.inputs, strict=True)))

    def _is_bias(self, node: Node, inputs: tuple[Value, ...], value: Value) -> bool:
        return node.op.name == "add" and value in self._parameters and any(v in self._products for v in inputs)

    def _to(self, value: Value, dtype: DType) -> Value:
        if value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self._casts:
            self._casts[key] = apply("cast", value, dtype=dtype)
        return self._casts[key]

    def _note(self, node: Node, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """Remember what the outputs are, if they are something special."""
        for known in (self._parameters, self._products):
            if node.op.kind == "view" and inputs[0] in known:
                known.update(outputs)
        if is_product(node):
            self._products.update(outputs)
        from_mask = node.op.name == "cast" and not inputs[0].dtype.is_float
        made_of_weak = node.op.kind in ("view", "elementwise") and all(v in self._weak for v in inputs)
        if node.is_literal or from_mask or made_of_weak:
            self._weak.update(outputs)


def _count_floats(node: Node) -> int:
    return sum(v.dtype.is_float for v in node.inputs)


def _rounded_early(graph: Graph, narrow: DType) -> set[Value]:
    """The float32 values of ``graph`` that are read by nothing but casts to ``narrow``, be it behind ops that only
    select, and that are not rounded where they are made already."""
    users = graph.users()
    needed = {v for v in graph.results if v.dtype == f32}
    selecting: set[Node] = set()
    wanted: set[Value] = set()

    def rounds(node: Node) -> bool:
        return node in selecting or (node.op.name == "cast" and node.output.dtype == narrow)

    for node in reversed(graph.nodes):
        floats = [v for v in node.outputs if v.dtype == f32]
        if not floats or any(v in needed or not users[v] or not all(map(rounds, users[v])) for v in floats):
            continue
        if node.op.kind in _SELECTING_KINDS or node.op.name in _SELECTING:
            selecting.add(node)
        elif any(n in selecting for v in floats for n in users[v]) and not node.is_literal:
            wanted.update(floats)
    return wanted

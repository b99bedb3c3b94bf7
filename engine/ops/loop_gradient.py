"""The gradient of a loop: a loop that runs the other way.

The body and its gradient are first one graph. What the gradient needs of the forward part becomes a sequence that the
forward loop keeps, save for views, which are made again, and for what only a branch needs, which is computed again
under its condition. The gradients of the carries are the carries of the backward loop; the gradients of sequences are
sequences. The gradient of what is the same at every step is a sum over steps: where it is a product or a sum, one
contraction or reduction over all steps makes it, from operands that the loop keeps; else it is added up on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine import conditions
from engine.dims import product
from engine.graph import Builder, Graph, Node, Value, apply, current_builder
from engine.loops import body_of
from engine.rules import full

Make = Callable[[], Value]
"""Makes a value of the outer graph, once the backward loop is there."""

_MADE_AGAIN = frozenset({"view", "source", "index"})
"""Kinds of ops that cost less to repeat than to keep."""


def gradient(node: Node, *grads: Value | None) -> list[Value | None]:
    """One value an input, none for those that have no gradient."""
    return _Backward(node, grads).run()


class _Backward:
    """``stacks`` gives, for values of the joint graph, the outer value that holds them for all steps."""

    def __init__(self, node: Node, grads: Sequence[Value | None]):
        body = body_of(node)
        assert body is not None
        self.node, self.grads, self.body = node, grads, body
        self.outer = current_builder()
        count, last = node.attrs["carries"], node.attrs["carries"] + node.attrs["sequences"]
        self.carries, self.sequences, self.fixed = body.inputs[:count], body.inputs[count:last], body.inputs[last:]
        self.outside = dict(zip(body.inputs, node.inputs, strict=True))
        self.conditional = {n for n, need in conditions.needs(body).items() if need != conditions.ALWAYS}
        self.forward = {v for n in body.all_nodes() for v in n.outputs}
        self.stacks: dict[Value, Value] = {v: self.outside[v] for v in self.sequences}
        self.kept: dict[Value, None] = {}
        self.leaves: dict[Value, None] = {}

    def run(self) -> list[Value | None]:
        slopes = self._slopes()
        if not slopes:
            return [None] * len(self.node.inputs)
        sums: dict[Value, Make] = {}
        added: dict[Value, Value] = {}
        for v in self.fixed:
            if v not in slopes:
                continue
            total = self._total(slopes[v])
            if total is None:
                added[v] = slopes[v]
            else:
                sums[v] = total
        found = self._loop(slopes, added)
        found |= {v: make() for v, make in sums.items()}
        return [found.get(v) for v in self.body.inputs]

    def _slopes(self) -> dict[Value, Value]:
        """The gradient of each float input at one step, from ``given``, the gradients of the step's results, in the
        joint graph ``nodes``."""
        body, joint = self.body, self.outer.nested("joint")
        self.given: dict[int, Value] = {}
        for v in body.inputs:
            joint.take_input(v)
        for n in body.nodes:
            joint.adopt(n)
        inputs = [v for v in body.inputs if v.dtype.is_float]
        with joint:
            total = None
            for i, (out, g) in enumerate(zip(body.outputs, self.grads, strict=True)):
                if out.dtype.is_float and (g is not None or i < len(self.carries)):
                    self.given[i] = joint.port(f"g{i}", out.type)
                    term = apply("sum", apply("mul", out, self.given[i]), axes=tuple(range(out.type.rank)))
                    if total is not None and term.dtype != total.dtype:
                        term = apply("cast", term, dtype=total.dtype)
                    total = term if total is None else apply("add", total, term)
            if total is None or not inputs:
                return {}
            made = apply("grad", total, *inputs)
        self.nodes = joint.nodes
        return dict(zip(inputs, made if isinstance(made, tuple) else (made,), strict=True))

    # --- sums over the steps -------------------------------------------------------------------------------------

    def _total(self, v: Value) -> Make | None:
        """How to make the sum of ``v`` over all steps from what is kept of each; None where it is not known how."""
        node = v.node
        match node.op.name:
            case "add" if all(x.shape == v.shape for x in node.inputs):
                one, other = map(self._total, node.inputs)
                return None if one is None or other is None else lambda: apply("add", one(), other())
            case "neg" | "reshape" | "permute":
                inner = self._total(node.inputs[0])
                return None if inner is None else lambda: apply(node.op.name, inner(), **node.attrs)
            case "sum" if not node.attrs["keepdims"]:
                x, axes = node.inputs[0], node.attrs["axes"]
                if x.node.op.name == "matmul" and axes == tuple(range(x.type.rank - 2)):
                    return self._product(x.node)
                if self._is_fixed(x):
                    return None
                whole = self._stack(x)
                return lambda: apply("sum", whole(), axes=(0, *(a + 1 for a in axes)))
            case "matmul" if v.type.rank == 2:
                return self._product(node)
            case "broadcast_to" | "constant" if _is_zero(v):
                return lambda: full(v.shape, 0, v.dtype)
        return None

    def _product(self, node: Node) -> Make | None:
        """The sum of products as one product, with steps and batch among what is summed over."""
        a, b = node.inputs
        if self._is_fixed(a) or self._is_fixed(b) or a.shape[:-2] != b.shape[:-2]:
            return None
        left, right = self._stack(a), self._stack(b)
        batch = a.type.rank - 2
        depth = self.node.attrs["length"] * product((*a.shape[:-2], a.shape[-1]))

        def make() -> Value:
            rows = apply("permute", left(), axes=(batch + 1, *range(batch + 1), batch + 2))
            rows = apply("reshape", rows, shape=(a.shape[-2], depth))
            return apply("matmul", rows, apply("reshape", right(), shape=(depth, b.shape[-1])))

        return make

    def _is_fixed(self, v: Value) -> bool:
        """Whether it is the same at every step, seen through views."""
        while v.node.op.kind == "view":
            v = v.node.inputs[0]
        return v in self.fixed or v.node.op.kind == "index" or (v.node.op.kind == "source" and v not in self.forward)

    def _stack(self, v: Value) -> Make:
        """``v`` at all steps."""
        node = v.node
        if node.op.name == "permute":
            inner = self._stack(node.inputs[0])
            return lambda: apply("permute", inner(), axes=(0, *(a + 1 for a in node.attrs["axes"])))
        if node.op.name == "reshape":
            inner = self._stack(node.inputs[0])
            return lambda: apply("reshape", inner(), shape=(self.node.attrs["length"], *v.shape))
        if v not in self.stacks:
            (self.kept if v in self.forward else self.leaves)[v] = None
        return lambda: self.stacks[v]

    # --- the backward loop ---------------------------------------------------------------------------------------

    def _loop(self, slopes: dict[Value, Value], added: dict[Value, Value]) -> dict[Value, Value]:
        """The gradients of carries, of sequences and of what is added up."""
        carries = [v for v in self.carries if v in slopes]
        sequences = [v for v in self.sequences if v in slopes]
        results = [*(slopes[v] for v in (*carries, *sequences)), *added.values(), *self.leaves]
        nodes, read = self._needed(results)
        ports = set(self.body.inputs)
        for v in read:
            if v in self.forward and (v not in ports or v in self.carries):
                self.kept[v] = None
        if self.kept:
            body = self.body.with_(outputs=(*self.body.outputs, *self.kept))
            found = _values(apply("scan", *self.node.inputs, **{**self.node.attrs, "body": body}))
            self.stacks |= dict(zip(self.kept, found[len(self.body.outputs) :], strict=True))

        back = self.outer.nested(f"{self.body.name}_backward")
        known: dict[Value, Value] = {}
        arriving = {i: back.port(v.name, v.type) for i, v in self.given.items()}
        known |= {v: arriving[i] for i, v in self.given.items()}
        sums = {v: back.port(f"{v.name}_sum", v.type) for v in added}
        fixed = [v for v in read if v in self.fixed]
        steps = [v for v in read if v in self.forward and v not in self.fixed]
        for v in (*fixed, *steps):
            known[v] = back.port(v.name, v.type)
        with back:
            for n in nodes:
                known.update(zip(n.outputs, _copied(back, n, known), strict=True))
            totals = [apply("add", sums[v], known[slope]) for v, slope in added.items()]
        first = {i: v for i, v in arriving.items() if i < len(self.carries)}
        outputs = [*(known[slopes[v]] for v in carries), *totals]
        every = tuple(dict.fromkeys((*(slopes[v] for v in sequences), *self.leaves)))
        outputs += [known[v] for v in every]
        later = [i for i in arriving if i not in first]
        inputs = [*first.values(), *sums.values(), *(arriving[i] for i in later), *(known[v] for v in (*steps, *fixed))]
        body = Graph(back.name, tuple(inputs), (), tuple(back.nodes), tuple(outputs))
        start = [self._start(i) for i in first] + [full(v.shape, 0, v.dtype) for v in sums]
        values = [*start, *(g for i in later if (g := self.grads[i]) is not None), *(self.stacks[v] for v in steps)]
        values += [self.outside[v] for v in fixed]
        attrs = {
            "body": body, "length": self.node.attrs["length"], "carries": len(start),
            "sequences": len(later) + len(steps), "reverse": not self.node.attrs["reverse"],
        }  # fmt: skip
        made = _values(apply("scan", *values, **attrs))
        self.stacks |= dict(zip(every, made[len(start) :], strict=True))
        return dict(zip((*carries, *added), made, strict=False)) | {v: self.stacks[slopes[v]] for v in sequences}

    def _needed(self, results: Sequence[Value]) -> tuple[list[Node], list[Value]]:
        """The nodes that the backward body computes for ``results``, in order, and what it reads from elsewhere."""
        wanted, found = set(results), []
        for node in reversed(self.nodes):
            again = node.op.kind in _MADE_AGAIN or node.op.name == "switch" or node in self.conditional
            inside = again or node.outputs[0] not in self.forward
            if inside and any(v in wanted for v in node.outputs):
                wanted.update(node.inputs)
                found.append(node)
        found.reverse()
        made = {v for n in found for v in n.outputs}
        order = [v for n in (*(v.node for v in self.body.inputs), *self.nodes) for v in n.outputs]
        return found, [v for v in order if v in wanted and v not in made]

    def _start(self, i: int) -> Value:
        """The gradient of a last carry."""
        g, carry = self.grads[i], self.carries[i]
        return full(carry.shape, 0, carry.dtype) if g is None else g


def _copied(builder: Builder, node: Node, known: dict[Value, Value]) -> tuple[Value, ...]:
    return builder.add(node.op, tuple(known[v] for v in node.inputs), node.attrs)


def _values(found: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    return found if isinstance(found, tuple) else (found,)


def _is_zero(v: Value) -> bool:
    while v.node.op.name == "broadcast_to":
        v = v.node.inputs[0]
    return v.node.is_literal and not v.node.attrs["value"].any()

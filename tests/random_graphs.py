"""Random programs for property tests: graphs over the ops with fixed and symbolic shapes, and arguments for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from engine import dims, dtypes, interpreter, samples
from engine.dims import Shape
from engine.dtypes import DType
from engine.graph import Builder, Graph, TensorType, Value, apply, constant

BATCH = dims.dim("B")

UNARY = ("neg", "abs", "square", "exp", "sin", "cos", "tanh", "sigmoid", "relu", "erf", "expm1")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
JUMPS = ("sign", "floor", "ceil", "round", "trunc")
"""Unary ops with steps, where a last bit of difference decides the result."""


@dataclass(frozen=True)
class RandomProgram:
    """A graph with arguments that fit it."""

    graph: Graph
    inputs: dict[str, np.ndarray]
    state: dict[str, np.ndarray]

    def reference(self) -> tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]:
        """The interpreter's outputs, and the state afterwards."""
        return interpreter.run(self.graph, self.inputs, self.state)


@st.composite
def programs(draw: st.DrawFn, steps: int = 10, continuous: bool = False) -> RandomProgram:
    """Programs of up to ``steps`` drawn steps (most steps are one node). ``continuous`` leaves out ops that turn
    a last bit of difference into another result, for comparisons between backends."""
    batch = draw(st.integers(1, 5))
    symbolic = draw(st.booleans())
    builder = Builder("random_program")
    with builder:
        grower = _Grower(draw, builder, BATCH if symbolic else batch, continuous)
        for _ in range(draw(st.integers(1, 2))):
            grower.new_input()
        for _ in range(draw(st.integers(1, steps))):
            draw(st.sampled_from(grower.moves()))()
        outputs = draw(st.lists(st.sampled_from(grower.values), min_size=1, max_size=3, unique=True))
        updates = {name: v * 0.9 + 0.01 for name, v in builder.state.items() if draw(st.booleans())}
    graph = builder.build(outputs, updates)
    seed = draw(st.integers(0, 2**16))
    inputs, state = samples.sample(graph, seed, {"B": batch})
    inputs = {k: 2 * a - 1 if a.dtype.kind == "f" else a for k, a in inputs.items()}
    return RandomProgram(graph, inputs, state)


class _Grower:
    """Adds drawn nodes to a builder. ``values`` are what later nodes may read."""

    def __init__(self, draw: st.DrawFn, builder: Builder, batch: dims.Size, continuous: bool):
        self.draw = draw
        self.builder = builder
        self.batch = batch
        self.continuous = continuous
        self.values: list[Value] = []

    def moves(self) -> list[Callable[[], None]]:
        always = [self.unary, self.binary, self.binary, self.with_number, self.reduction, self.view, self.view]
        always += [self.normalised, self.product, self.window, self.constant, self.loss]
        always += [self.gather, self.scatter, self.windows]
        return always if self.continuous else [*always, self.jump, self.choice, self.integers]

    # --- choosing ------------------------------------------------------------------------------------------

    def pick(self, accept: Callable[[Value], bool] = lambda v: True) -> Value:
        """A floating-point value that ``accept`` takes: one of those there are, or a new input."""
        found = [v for v in self.values if v.dtype.is_float and accept(v)]
        return self.draw(st.sampled_from(found)) if found else self.new_input()

    def keep(self, v: Value) -> None:
        self.values.append(v)

    def new_input(self, shape: Shape | None = None, dtype: DType | None = None) -> Value:
        b = self.batch
        shapes = [(b, 4), (4,), (b, 1), (b, 3, 4), (), (3, 4), (1, 4), (b, 2, 5, 6)]
        shape = self.draw(st.sampled_from(shapes)) if shape is None else shape
        dtype = self.draw(st.sampled_from([dtypes.f32, dtypes.f32, dtypes.f64])) if dtype is None else dtype
        v = self.builder.input(f"in{len(self.builder.inputs)}", TensorType(shape, dtype))
        if dtype.is_float:
            self.keep(v)
        return v

    def new_state(self, shape: tuple[int, ...]) -> Value:
        return self.builder.state_input(f"layer{len(self.builder.state)}.weight", TensorType(shape, dtypes.f32))

    def axis_of(self, v: Value) -> int:
        return self.draw(st.integers(0, len(v.shape) - 1))

    # --- moves ---------------------------------------------------------------------------------------------

    def unary(self) -> None:
        self.keep(apply(self.draw(st.sampled_from(UNARY)), self.pick()))

    def jump(self) -> None:
        self.keep(apply(self.draw(st.sampled_from(JUMPS)), self.pick()))

    def binary(self) -> None:
        x = self.pick()
        y = self.pick(lambda v: _broadcasts(x.shape, v.shape))
        if _broadcasts(x.shape, y.shape):
            self.keep(apply(self.draw(st.sampled_from(BINARY)), x, y))

    def with_number(self) -> None:
        number = self.draw(st.sampled_from([0.5, -1.25, 2, 0.1, 1e-3]))
        name, swapped = self.draw(st.sampled_from(BINARY)), self.draw(st.booleans())
        self.keep(apply(name, number, self.pick()) if swapped else apply(name, self.pick(), number))

    def choice(self) -> None:
        x = self.pick()
        condition = apply(self.draw(st.sampled_from(COMPARISONS)), x, 0.25)
        self.keep(apply("where", condition, x, apply("tanh", x)))

    def integers(self) -> None:
        labels = self.new_input((self.batch,), dtypes.i64)
        counted = apply("bitxor", labels * 3 + 1, apply("iota", shape=labels.shape, axis=0))
        self.keep(apply("cast", counted, dtype=dtypes.f32))

    def constant(self) -> None:
        shape = self.draw(st.sampled_from([(), (4,), (3, 4), (5, 4), (1, 0, 4)]))
        values = self.draw(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=4))
        self.keep(constant(np.resize(np.array(values), shape), dtypes.f32))

    def reduction(self) -> None:
        x = self.pick(lambda v: len(v.shape) > 0 and 0 not in v.shape)
        rank = len(x.shape)
        if rank == 0 or 0 in x.shape:
            return
        axes = tuple(sorted(self.draw(st.sets(st.integers(0, rank - 1), min_size=1))))
        name, keepdims = self.draw(st.sampled_from(["sum", "max", "min", "mean"])), self.draw(st.booleans())
        self.keep(apply(name, x, axes=axes, keepdims=keepdims))

    def view(self) -> None:
        x = self.pick(lambda v: len(v.shape) > 0)
        rank = len(x.shape)
        if rank == 0:
            return
        axis = self.axis_of(x)
        kind = self.draw(st.sampled_from(["permute", "flatten", "slice", "pad", "broadcast", "concat"]))
        if kind == "permute":
            self.keep(apply("permute", x, axes=tuple(self.draw(st.permutations(range(rank))))))
        elif kind == "flatten":
            self.keep(apply("reshape", x, shape=(dims.product(x.shape),)))
        elif kind == "slice" and isinstance(x.shape[axis], int) and x.shape[axis] > 1:
            start, step = self.draw(st.sampled_from([(0, 1), (1, 1), (0, 2), (1, 2)]))
            at = [(start, x.shape[axis], step) if i == axis else (0, n, 1) for i, n in enumerate(x.shape)]
            start_, stop, step_ = zip(*at, strict=True)
            self.keep(apply("slice", x, start=start_, stop=stop, step=step_))
        elif kind == "pad":
            low = tuple(int(i == axis) for i in range(rank))
            self.keep(apply("pad", x, low=low, high=(0,) * rank, step=(1,) * rank, value=0))
        elif kind == "broadcast" and rank < 4:
            self.keep(apply("broadcast_to", x, shape=(2, *x.shape)))
        elif kind == "concat":
            self.keep(apply("concat", x, apply("neg", x), axis=axis))

    def normalised(self) -> None:
        x = self.pick(lambda v: len(v.shape) > 0 and 0 not in v.shape)
        if len(x.shape) == 0 or 0 in x.shape:
            return
        self.keep(apply(self.draw(st.sampled_from(["softmax", "log_softmax", "logsumexp"])), x, axis=self.axis_of(x)))

    def product(self) -> None:
        x = self.pick(lambda v: len(v.shape) >= 2 and isinstance(v.shape[-1], int))
        if len(x.shape) < 2 or not isinstance(x.shape[-1], int):
            return
        self.keep(apply("matmul", x, self.new_state((x.shape[-1], self.draw(st.integers(1, 5))))))

    def window(self) -> None:
        x = self.pick(_is_image)
        if not _is_image(x):
            x = self.new_input((self.batch, 2, 5, 6), dtypes.f32)
        kernel = self.draw(st.sampled_from([(1, 1), (2, 2), (2, 1)]))
        stride, padding = self.draw(st.sampled_from([(1, 1), (2, 1)])), self.draw(st.sampled_from([(0, 0), (1, 0)]))
        if self.draw(st.booleans()):
            channels = x.shape[1]
            assert isinstance(channels, int)
            weight = self.new_state((3, channels, *kernel))
            self.keep(apply("conv2d", x, weight, stride=stride, padding=padding))
        else:
            fits = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
            self.keep(apply("max_pool2d", x, kernel=kernel, stride=stride, padding=fits)[0])

    def places(self, x: Value, axis: int) -> Value:
        """An index along ``axis``: known, computed, or found by looking for the greatest."""
        size, rank = x.shape[axis], len(x.shape)
        count = self.draw(st.integers(0, 3))
        kind = self.draw(st.sampled_from(["known", "computed", "computed"] + ["found"] * (not self.continuous)))
        if kind == "found" and 0 not in x.shape:
            return apply("argmax", x, axis=axis, keepdims=True)
        if kind == "known":
            shape = [count if i == axis else 1 for i in range(rank)]
            return constant(np.arange(1, count + 1).reshape(shape) * 3 % size, dtypes.i64)
        along = self.axis_of(x)
        wide = tuple(count if i == axis else n if i == along else 1 for i, n in enumerate(x.shape))
        return apply("mod", apply("iota", shape=wide, axis=along) * 5 + apply("iota", shape=wide, axis=axis), size)

    def gather(self) -> None:
        x = self.pick(_has_known_axis)
        if _has_known_axis(x):
            axis = self.draw(st.sampled_from(_known_axes(x)))
            self.keep(apply("gather", x, self.places(x, axis), axis=axis))

    def scatter(self) -> None:
        x = self.pick(_has_known_axis)
        if _has_known_axis(x):
            axis = self.draw(st.sampled_from(_known_axes(x)))
            index = self.places(x, axis)
            source = apply("tanh", apply("gather", x, index, axis=axis) + 0.5)
            mode = self.draw(st.sampled_from(["add", "max", "min", "mul", "set"]))
            self.keep(apply("scatter", x, index, source, axis=axis, mode=mode))

    def windows(self) -> None:
        x = self.pick(_has_known_axis)
        if _has_known_axis(x) and len(x.shape) < 5:
            axis = self.draw(st.sampled_from(_known_axes(x)))
            step, dilation = self.draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
            size = 2 if x.shape[axis] > dilation else 1
            self.keep(apply("window", x, axis=axis, size=size, step=step, dilation=dilation))

    def loss(self) -> None:
        logits = self.pick(lambda v: v.shape == (self.batch, 4))
        if logits.shape != (self.batch, 4):
            logits = self.new_input((self.batch, 4), dtypes.f32)
        labels = self.new_input((self.batch,), dtypes.i64)
        reduction = self.draw(st.sampled_from(["mean", "sum", "none"]))
        self.keep(apply("cross_entropy", logits, labels, reduction=reduction))


def _broadcasts(a: Shape, b: Shape) -> bool:
    """Whether shapes meet without an assumption about dims."""
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))


def _known_axes(v: Value) -> list[int]:
    return [i for i, n in enumerate(v.shape) if isinstance(n, int) and n > 0]


def _has_known_axis(v: Value) -> bool:
    return bool(_known_axes(v))


def _is_image(v: Value) -> bool:
    return len(v.shape) == 4 and all(isinstance(n, int) and n >= 2 for n in v.shape[1:])

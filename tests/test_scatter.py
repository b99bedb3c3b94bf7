"""Scatters: gradients at ties and zeros, and kernels whose results do not depend on the number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled import executor
from graph_tools import tensor, trace

import tenon as tn
from engine import interpreter
from engine.errors import DTypeError, IndexRangeError, ShapeError, TenonError
from engine.graph import Value, apply
from frontend.dispatch import call
from passes.autodiff import expand_gradients

rng = np.random.default_rng(4)


def gradients(mode: str, x: np.ndarray, index: np.ndarray, src: np.ndarray, g: np.ndarray) -> list[np.ndarray]:
    def f(x: Value, index: Value, src: Value, g: Value) -> Any:
        out = apply("scatter", x, index, src, axis=0, mode=mode)
        return apply("grad", apply("sum", out * g, axes=tuple(range(len(out.shape)))), x, src)

    arrays = (x, index, src, g)
    types = [tensor(*a.shape, dtype="i64" if a.dtype == np.int64 else "f64") for a in arrays]
    graph = expand_gradients(trace(f, *types))
    return list(interpreter.run(graph, {f"x{i}": a for i, a in enumerate(arrays)})[0])


@pytest.mark.parametrize(("mode", "reduce"), [("add", "sum"), ("mul", "prod"), ("max", "amax"), ("min", "amin")])
def test_gradients_are_pytorch_s_at_ties_and_zeros(mode: str, reduce: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.array([1.0, 2.0, 0.0, -1.0, 3.0])
    index = np.array([0, 0, 1, 2, 2, 3, 4, 4])
    src = np.array([1.0, 0.5, 0.0, 2.0, -1.0, -1.0, 3.0, 3.0])
    g = rng.normal(size=5)
    a, b = torch.tensor(x, requires_grad=True), torch.tensor(src, requires_grad=True)
    out = a.scatter_reduce(0, torch.tensor(index), b, reduce)
    expected = torch.autograd.grad((out * torch.tensor(g)).sum(), (a, b))
    for found, e in zip(gradients(mode, x, index, src, g), expected, strict=True):
        np.testing.assert_allclose(found, e.numpy(), rtol=1e-12)


def test_set_keeps_the_last_and_gives_it_the_place_s_gradient() -> None:
    x, index, src, g = np.zeros(3), np.array([1, 1, 0]), np.array([5.0, 6.0, 7.0]), np.array([1.0, 2.0, 3.0])
    dx, dsrc = gradients("set", x, index, src, g)
    np.testing.assert_array_equal(dx, [0, 0, 3])
    np.testing.assert_array_equal(dsrc, [2, 2, 1])  # as PyTorch: also to what was written over


def test_mistakes_are_named() -> None:
    def scatter(mode: str, *shapes: tuple[int, ...], index: str = "i64", dtype: str = "f32") -> None:
        x, i, s = shapes
        trace(lambda *v: apply("scatter", *v, axis=0, mode=mode), tensor(*x, dtype=dtype), tensor(*i, dtype=index),
              tensor(*s, dtype=dtype))  # fmt: skip

    with pytest.raises(TenonError, match="mode must be one of set, add, mul, max, min"):
        scatter("sum", (3,), (2,), (2,))
    with pytest.raises(DTypeError, match="integer"):
        scatter("add", (3,), (2,), (2,), index="f32")
    with pytest.raises(DTypeError, match="numbers, not bool"):
        scatter("add", (3,), (2,), (2,), dtype="bool")
    with pytest.raises(ShapeError, match="as many axes"):
        scatter("add", (3, 4), (2,), (2, 4))
    with pytest.raises(ShapeError, match="axis 1"):
        scatter("add", (3, 4), (2, 1), (2, 3))


@pytest.mark.slow
def test_results_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of floats in every order differ; here the order is that of the index. Few places, many, rows and columns."""

    def f(x: Value, index: Value, src: Value, rows: Value, wide: Value, each: Value) -> list[Value]:
        found = [apply("scatter", x, index, src, axis=0, mode=mode) for mode in ("add", "mul", "set")]
        flat = apply("reshape", index, shape=(index.shape[0], 1))
        found.append(apply("scatter", rows, flat, wide, axis=0, mode="add"))
        found.append(apply("scatter", rows, apply("permute", each, axes=(1, 0)), wide, axis=0, mode="max"))
        found.append(apply("scatter", apply("permute", wide, axes=(1, 0)), each, apply("permute", wide, axes=(1, 0)),
                           axis=1, mode="add"))  # fmt: skip
        return found

    graph = trace(f, tensor("V"), tensor("N", dtype="i64"), tensor("N"), tensor("V", 24), tensor("N", 24),
                  tensor(24, "N", dtype="i32"))  # fmt: skip
    cases = []
    for v, n in ((5, 300), (999, 2000), (1, 7), (3, 0)):
        inputs = {
            "x0": rng.normal(size=v).astype(np.float32),
            "x1": rng.integers(0, v, n),
            "x2": rng.normal(size=n).astype(np.float32),
            "x3": rng.normal(size=(v, 24)).astype(np.float32),
            "x4": rng.normal(size=(n, 24)).astype(np.float32),
            "x5": rng.integers(0, max(1, min(v, n)), (24, n)).astype(np.int32),
        }
        cases.append((inputs, interpreter.run(graph, inputs)[0]))
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("TENON_THREADS", threads)
        runner = executor(graph, {})
        for inputs, expected in cases:
            for found, e in zip(runner.run(inputs), expected, strict=True):
                np.testing.assert_array_equal(found, e)


# --- into state ------------------------------------------------------------------------------------------------


class Kept(tn.nn.Module):
    """Rows written one after the other into a buffer, as a cache of keys and values is."""

    def __init__(self, source: str):
        super().__init__()
        self.source = source
        self.register_buffer("rows", np.arange(24, dtype=np.float32).reshape(6, 4))

    def forward(self, x: Any, at: Any) -> Any:
        old = self.rows + 0
        rows = {"x": x, "x and a row": x + old[0], "two rows": old[:2], "x, and the old returned": x}[self.source]
        new = call("scatter", old, call("check_index", at, limit=6), rows, axis=0, mode="set")
        self.rows.assign(new)
        return new.sum(0), old if "returned" in self.source else x.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "copies"), [("x", 0), ("x and a row", 0), ("two rows", 2), ("x, and the old returned", 1)]
)
def test_state_is_written_in_place_where_nobody_needs_the_old(source: str, copies: int) -> None:
    found = []
    for target in ("reference", "cpu"):
        module = Kept(source)
        exe = tn.compile(module, tn.spec(2, 4), tn.spec(2, 1, dtype="i64"), target=target)
        x = np.full((2, 4), 100, np.float32)
        results = [exe(x * (i + 1), np.array([[i], [i + 1]])) for i in range(3)]
        found.append([*(a for r in results for a in r), module.rows.numpy().copy()])
        with pytest.raises(IndexRangeError):
            exe(x, np.array([[0], [6]]))
        np.testing.assert_array_equal(module.rows.numpy(), found[-1][-1])
    assert [k.name for k in exe.stages["schedule"].kernels].count("copy") == copies
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)

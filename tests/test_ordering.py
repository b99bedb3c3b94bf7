"""Sorting, running and counting where PyTorch has no counterpart to compare with: symbolic sizes, kernels, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled import check
from graph_tools import tensor, trace

import tenon as tn
from engine import dtypes
from engine.errors import ShapeError, TenonError
from engine.graph import Value, apply

rng = np.random.default_rng(3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "f16", "i64", "u8", "bool"])
def test_running_extrema_along_every_axis(dtype: str) -> None:
    kind = dtypes.as_dtype(dtype).numpy

    def f(x: Value) -> list[Value]:
        found = [v for axis in range(3) for v in apply("cummax", x, axis=axis)]
        found += apply("cummin", apply("permute", x, axes=(2, 0, 1)), axis=2)
        return found

    graph = trace(f, tensor("B", 5, 70, dtype=dtype))
    cases = []
    for b in (3, 1, 0):
        x = rng.integers(0, 2 if dtype == "bool" else 5, (b, 5, 70)).astype(kind)
        if x.dtype.kind == "f" and x.size:
            x[0, 1, 3], x[0, 2, 3], x[-1, 4, 0], x[-1, 0, 9] = np.nan, np.inf, np.nan, -np.inf
        cases.append({"x0": x})
    check(graph, cases, levels=[0, 2] if dtype == "f32" else [2])


def reference(function: Any, *arrays: np.ndarray, names: tuple[str, ...]) -> Any:
    """``function`` traced with the last axis of each array symbolic."""
    specs = [
        tn.spec(*a.shape[:-1], name, dtype=str(a.dtype)) for a, name in zip(arrays, names, strict=True)
    ]  # fmt: skip
    return tn.compile(function, *specs, target="reference")(*arrays)


def test_sizes_may_be_symbolic() -> None:
    x = rng.normal(size=(3, 7))
    np.testing.assert_array_equal(reference(lambda x: tn.topk(x, 2).values, x, names=("N",)), -np.sort(-x, 1)[:, :2])
    np.testing.assert_array_equal(reference(lambda x: tn.median(x, 1).values, x, names=("N",)), np.median(x, 1))
    np.testing.assert_array_equal(reference(lambda x: tn.kthvalue(x, 3).values, x, names=("N",)), np.sort(x, 1)[:, 2])
    np.testing.assert_allclose(reference(lambda x: tn.quantile(x, 0.3, 1), x, names=("N",)), np.quantile(x, 0.3, 1))
    np.testing.assert_array_equal(
        reference(lambda x: tn.cummax(x, 1).values, x, names=("N",)), np.maximum.accumulate(x, 1)
    )
    expected = np.logaddexp.accumulate(x, 1)
    np.testing.assert_allclose(reference(lambda x: tn.logcumsumexp(x, 1), x, names=("N",)), expected)
    edges, values = np.sort(rng.normal(size=6)), np.append(rng.normal(size=4), np.nan)
    for right in (False, True):
        found = reference(
            lambda s, v, r=right: tn.searchsorted(s, v, right=r), edges, values, names=("N", "M")
        )  # fmt: skip
        np.testing.assert_array_equal(found, np.searchsorted(edges, values, "right" if right else "left"))


def test_a_size_that_is_too_small_is_found_when_it_is_known() -> None:
    exe = tn.compile(lambda x: tn.topk(x, 4).values, tn.spec("N"), target="reference")
    assert exe(np.arange(5.0, dtype=np.float32)).tolist() == [4, 3, 2, 1]
    with pytest.raises(ShapeError, match="no 4 elements"):
        exe(np.arange(3, dtype=np.float32))


def test_second_gradients_of_products_with_zeros() -> None:
    """Against the product rule: of [0, y, 0, z] only the first two sums of products survive."""
    x = np.array([0.0, 2.0, 0.0, 3.0])
    total = tn.grad(lambda x: tn.cumprod(x, 0).sum())
    found = tn.compile(lambda x: tn.grad(lambda x: total(x)[2])(x), tn.spec(4, dtype="f64"), target="reference")(x)
    # d/dx_2 of x0 + x0 x1 + x0 x1 x2 + x0 x1 x2 x3 is x0 x1 (1 + x3)
    np.testing.assert_allclose(found, [8.0, 0.0, 0.0, 0.0])


def test_counting_in_a_traced_function_needs_a_length() -> None:
    with pytest.raises(TenonError, match="bincount needs minlength"):
        tn.compile(tn.bincount, tn.spec("N", dtype="i64"), target="reference")
    found = tn.bincount(tn.tensor([1, 3, 3]))
    assert found.numpy().tolist() == [0, 1, 0, 2]


def test_mistakes_are_named() -> None:
    x = tn.tensor(np.arange(6.0).reshape(2, 3))
    for function, message in (
        (lambda: tn.topk(x, 4), "no 4 elements in an axis of 3"),
        (lambda: tn.kthvalue(x, 0), "no number 0 in an axis of 3"),
        (lambda: tn.quantile(x, 0.5, interpolation="cubic"), "interpolation is one of"),
        (lambda: tn.searchsorted(x, x[0]), "axes before the last"),
        (lambda: tn.histc(x, 0), "0 intervals"),
        (lambda: tn.median(x[:, :0], 1), "has no elements"),
    ):
        with pytest.raises(TenonError, match=message):
            function()

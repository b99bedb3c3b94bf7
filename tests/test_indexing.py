"""``x[...]`` with tensors, and reading and writing by index, against NumPy: at once, traced, and compiled."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from frontend_tools import traced

import tenon as tn
from engine.errors import DTypeError, IndexRangeError, ShapeError, UnsupportedError
from frontend.tensor import Tensor

rng = np.random.default_rng(3)
X = rng.normal(size=(4, 5, 3, 2)).astype(np.float32)


def keys() -> list[tuple[Any, ...]]:
    """Every way to mix up to three integers, slices, new axes and tensors in front, and some with more."""
    tensor, wrapped, pair = np.array([2, 0, 1]), np.array([[-1], [1]]), [0, -2]
    entries = [1, slice(None), slice(2, None, -2), None, tensor, wrapped]
    found: list[tuple[Any, ...]] = [k for n in (1, 2, 3) for k in itertools.product(entries, repeat=n)]
    found += [(..., e) for e in (tensor % 2, pair, [], [[1]])]
    found += [(tensor, ..., tensor % 2), (slice(None), tensor, ..., 0), (None, ..., tensor, slice(None))]
    found += [(np.int64(1), slice(None), tensor), (0, ..., tensor % 2), (tensor, tensor, tensor, tensor % 2)]
    found += [(np.array(2),), (slice(None), np.array(-1), ..., None), ((3, 1),), (np.uint8([3, 1]), pair)]
    masks = [X[:, 0, 0, 0] > 0, X[..., 0, 0] > 0, X[0, :, :, 0] > 0]
    found += [(masks[0],), (masks[1], 0), (slice(1, 3), masks[2]), (..., X[0, 0, 0] > 9), (masks[0].tolist(),)]
    found += [(masks[0], slice(None), np.array([[1]])), (X > 0.5,)]
    return [k for k in found if any(isinstance(e, (np.ndarray, list)) for e in k)]


def test_every_key_means_what_it_does_in_numpy() -> None:
    for key in keys():
        expected, found = X[key], tn.tensor(X)[key]
        assert isinstance(found, Tensor), key
        np.testing.assert_array_equal(found.numpy(), expected, err_msg=str(key))
        assert found.shape == expected.shape, key


def test_every_key_in_one_program() -> None:
    """And the gradient puts back what was taken, as often as it was."""
    every = keys()
    weights = [rng.normal(size=X[k].shape).astype(np.float32) for k in every]

    def loss(x: Tensor) -> Tensor:
        return sum((x[k] * w).sum() for k, w in zip(every, weights, strict=True))

    found = tn.compile(tn.grad(loss), tn.spec(*X.shape), target="reference")(X)
    expected = np.zeros(X.shape)
    for k, w in zip(every, weights, strict=True):
        np.add.at(expected, tuple(np.asarray(e) if isinstance(e, tuple) else e for e in k), w)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_axes_of_symbolic_size() -> None:
    def f(x: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        return x[i], x[:, i % 3], x[i, i % 3], x[..., [0, -1]], x[-1, i % 3], x[i][..., None, i % 3]

    run = tn.compile(f, tn.spec("B", 3), tn.spec("N", dtype="i64"), target="reference")
    for b, n in ((4, 2), (1, 5), (7, 0)):
        x, i = rng.normal(size=(b, 3)).astype(np.float32), rng.integers(0, b, n)
        expected = x[i], x[:, i % 3], x[i, i % 3], x[..., [0, -1]], x[-1, i % 3], x[i][..., None, i % 3]
        for a, e in zip(run(x, i), expected, strict=True):
            np.testing.assert_array_equal(a, e)
    for i in ([0, 4], [-5, 0]):
        with pytest.raises(IndexRangeError, match="is out of range"):
            run(X[:, :3, 0, 0], np.array(i))


def test_a_mask_that_a_trace_knows_must_fit_a_symbolic_axis() -> None:
    run = tn.compile(lambda x: x[np.array([True, False, True])], tn.spec("B", 2), target="reference")
    x = rng.normal(size=(3, 2)).astype(np.float32)
    np.testing.assert_array_equal(run(x), x[[0, 2]])
    with pytest.raises(ShapeError, match="axis 0 of a mask has 3 elements"):
        run(x[:2])


def test_a_mask_that_only_the_program_knows() -> None:
    for f in (lambda x: x[x > 0], lambda x: x.masked_select(x > 0), lambda x: x.nonzero(), lambda x: tn.argwhere(x)):
        with pytest.raises(UnsupportedError, match=r"use where\(mask, a, b\)"):
            traced(f, ("B", 3))
    with pytest.raises(UnsupportedError, match="takes a single number"):
        traced(lambda x: x.index_put((x > 0,), tn.ones(3)), (3,))


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda x: x[True], UnsupportedError, "is not indexed with True"),
        (lambda x: x[np.array(False)], UnsupportedError, "is not indexed with False"),
        (lambda x: x[[0.5]], DTypeError, "integer indices, not f64"),
        (lambda x: x[[4]], IndexRangeError, "index 4 is out of range"),
        (lambda x: x[:, [-6]], IndexRangeError, "index -6 is out of range"),
        (lambda x: x[[1], [1], [1], [1], [1]], ShapeError, "5 indices are too many"),
        (lambda x: x[np.ones((4, 5, 3, 2, 1), bool)], ShapeError, "5 indices are too many"),
        (lambda x: x[np.ones(3, bool)], ShapeError, "axis 0 of a mask has 3 elements, and the tensor there 4"),
        (lambda x: x[[0, 1], [0, 1, 2]], ShapeError, "broadcast"),
        (lambda x: x.gather(0, tn.tensor([[0]])), ShapeError, r"as many axes each, not shapes \(1, 1\) and"),
        (lambda x: x.gather(1, tn.zeros(5, 1, 1, 1, dtype="i64")), ShapeError, "axis 0 of the index has 5 elements"),
        (lambda x: x.gather(4, tn.zeros(1, 1, 1, 1, dtype="i64")), ShapeError, "axis 4 does not exist"),
        (lambda x: x.gather(0, tn.full((1, 1, 1, 1), 4)), IndexRangeError, "index 4 is out of range"),
        (lambda x: x.scatter(0, tn.zeros(1, 1, 1, 2, dtype="i64"), tn.ones(1, 1, 1, 1)), ShapeError, "source only 1"),
        (lambda x: x.scatter(0, tn.zeros(1, 1, 1, 1, dtype="i64")), tn.TenonError, "either src or value"),
        (lambda x: x.scatter(0, tn.zeros(1, 1, 1, 1, dtype="i64"), 1.0, "mean"), tn.TenonError, "reduce must be"),
        (lambda x: x.scatter_reduce(0, tn.zeros(1, 1, 1, 1, dtype="i64"), x, "max"), tn.TenonError, "sum, prod, mean"),
        (lambda x: x.long().index_add(0, tn.tensor([0]), x[:1]), DTypeError, "f32 does not fit into a tensor of i64"),
        (lambda x: x.index_add(0, tn.tensor([[0]]), x[:1]), ShapeError, "takes a vector of indices"),
        (lambda x: x.index_add(0, tn.tensor([0]), x[0]), ShapeError, r"must have the shape \(1, 5, 3, 2\)"),
        (lambda x: x.slice_scatter(x[:1], 0, 1, 3), ShapeError, "axis 0 of the source has 1 elements instead of 2"),
        (lambda x: x.slice_scatter(x, step=-1), ShapeError, "the step must be at least 1"),
        (lambda x: x.select_scatter(x[0], 0, 4), ShapeError, "index 4 does not exist in axis 0"),
        (lambda x: x.masked_fill(x, 0.0), DTypeError, "takes a mask of bool, not of f32"),
        (lambda x: x.masked_scatter(x == x, x[:1]), IndexRangeError, "out of range"),
        (lambda x: x.masked_select(np.ones(3)), DTypeError, "takes a mask of bool, not of f64"),
    ],
)  # fmt: skip
def test_what_is_refused(wrong: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        wrong(tn.tensor(X))


def test_numpy_names_and_what_is_known() -> None:
    i = rng.integers(-5, 5, (4, 2, 1, 2))
    np.testing.assert_array_equal(tn.take_along_axis(X, i, 1).numpy(), np.take_along_axis(X, i, 1))
    np.testing.assert_array_equal(tn.nonzero(X > 1).numpy(), np.argwhere(X > 1))
    for a, b in zip(tn.tensor(X).nonzero(as_tuple=True), np.nonzero(X), strict=True):
        np.testing.assert_array_equal(a.numpy(), b)
    np.testing.assert_array_equal(
        tn.masked_select(X[..., :1], X > 0).numpy(), np.broadcast_to(X[..., :1], X.shape)[X > 0]
    )


def test_an_embedding_is_one_kernel_with_what_is_added_to_it() -> None:
    def f(tokens: Tensor, table: Tensor, places: Tensor) -> Tensor:
        return table[tokens] * 2.0 + places

    exe = tn.compile(f, tn.spec("B", 3, dtype="i64"), tn.spec(9, 5), tn.spec(3, 5))
    groups = [g.name for g in exe.stages["fuse"].groups]
    assert "gather_mul_add" in groups and not any("gather" in g for g in groups if g != "gather_mul_add")
    table, places, tokens = (
        X[..., 0].reshape(12, 5)[:9],
        X[0, :3, :1, 0] * np.ones(5, np.float32),
        rng.integers(-9, 9, (4, 3)),
    )
    np.testing.assert_allclose(exe(tokens, table, places), table[tokens] * 2 + places, rtol=1e-6)


@pytest.mark.slow
def test_keys_compiled() -> None:
    """With gradients: rows, columns, several axes at once, apart from each other, repeated and negative."""

    def f(x: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, ...]:
        found = x[i], x[:, j], x[i, j], x[i, :, j % 3], x[0, j, None], x[-1, ..., j % 2]
        loss = sum((part * part).sum() for part in found)
        return *found, loss

    def gradient(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return f(x, i, j)[-1]

    specs = tn.spec("B", 5, 3, 2), tn.spec("N", dtype="i64"), tn.spec("N", dtype="i32")
    run, slope = tn.compile(f, *specs), tn.compile(tn.grad(gradient), *specs)
    for b, n in ((4, 6), (1, 1), (3, 0)):
        x = rng.normal(size=(b, 5, 3, 2)).astype(np.float32)
        i, j = rng.integers(-b, b, n), rng.integers(-5, 5, n).astype(np.int32)
        every: list[Any] = [i, np.s_[:, j], (i, j), np.s_[i, :, j % 3], np.s_[0, j, None], np.s_[-1, ..., j % 2]]
        expected = np.zeros(x.shape)
        for key, part in zip(every, run(x, i, j)[:-1], strict=True):
            np.testing.assert_array_equal(part, x[key])
            np.add.at(expected, key, 2 * x[key])
        np.testing.assert_allclose(slope(x, i, j), expected, rtol=0, atol=1e-4)

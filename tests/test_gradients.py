"""Every gradient rule against central differences in f64, once more for gradients of gradients, and against PyTorch.

What is differentiated is the sum of the op's output with fixed weights, so that every element matters differently.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from graph_tools import tensor, trace
from op_samples import SAMPLES, Sample

from engine.graph import Graph, TensorType, Value, apply, constant
from engine.interpreter import run
from engine.op import all_ops
from engine.schedule import Target
from engine.verify import verify
from passes.autodiff import expand_gradients
from passes.decompose import decompose
from passes.simplify import simplify

STEP = 1e-5
DIRECTIONS = 3
"""In which an input is moved where moving every element by itself takes too long. A wrong element is wrong in each."""
NOTHING_CLAIMED = Target("none", frozenset())


def types_of(sample: Sample) -> tuple[TensorType, ...]:
    return tuple(tensor(*a.shape, dtype=a.dtype.name) for a in sample.arrays)


def weights(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) + 0.1


def weighted_sum(values: list[Value], seed: int) -> Value:
    """One number made of all elements."""
    parts = (
        apply("sum", v * constant(weights(v.shape, seed + i), v.dtype), axes=tuple(range(len(v.shape))))
        for i, v in enumerate(values)
    )
    return reduce(lambda a, b: a + b, parts)


def floats(values: tuple[Value, ...]) -> list[Value]:
    return [v for v in values if v.dtype.is_float]


def gradients(y: Value, wrt: list[Value]) -> list[Value]:
    found = apply("grad", y, *wrt)
    return list(found) if isinstance(found, tuple) else [found]


def weighted_output(sample: Sample, *inputs: Value) -> Value:
    found = apply(sample.op, *inputs, **sample.attrs)
    return weighted_sum([found[0] if isinstance(found, tuple) else found], 1)


def weighted_gradient(sample: Sample, *inputs: Value) -> Value:
    return weighted_sum(gradients(weighted_output(sample, *inputs), floats(inputs)), 11)


def differences(graph: Graph, arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Central differences of the graph's only output by every element of every float input."""
    found = []
    for i, a in enumerate(arrays):
        if a.dtype.kind != "f":
            continue
        slope = np.zeros_like(a)
        for at in np.ndindex(a.shape):
            unit = np.zeros_like(a)
            unit[at] = 1
            slope[at] = slope_along(unit, graph, arrays, i)
        found.append(slope)
    return found


def slope_along(direction: np.ndarray, graph: Graph, arrays: tuple[np.ndarray, ...], i: int) -> np.ndarray:
    """The central difference of the graph's only output as input ``i`` moves."""
    sides = (run(graph, [*arrays[:i], arrays[i] + step * direction, *arrays[i + 1 :]])[0][0] for step in (STEP, -STEP))
    return (next(sides) - next(sides)) / (2 * STEP)


def assert_close(found: tuple[np.ndarray, ...], expected: list[np.ndarray], rtol: float, atol: float) -> None:
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        assert f.dtype == e.dtype
        np.testing.assert_allclose(f, e, rtol=rtol, atol=atol)


def test_every_differentiable_op_has_a_sample():
    differentiable = {name for name, op in all_ops().items() if op.gradient is not None and not op.version}
    loops = {"scan"}  # whose body is a graph of one dtype: test_scan.py tries them
    assert differentiable - loops <= {s.op for s in SAMPLES}


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_gradient_is_the_slope(sample):
    types = types_of(sample)
    forward = trace(lambda *xs: weighted_output(sample, *xs), *types)
    backward = expand_gradients(trace(lambda *xs: gradients(weighted_output(sample, *xs), floats(xs)), *types))
    expected = differences(forward, sample.arrays)
    assert_close(run(backward, sample.arrays)[0], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_gradient_of_gradient_is_the_slope_of_the_gradient(sample):
    types = types_of(sample)
    first = expand_gradients(trace(lambda *xs: weighted_gradient(sample, *xs), *types))
    second = expand_gradients(trace(lambda *xs: gradients(weighted_gradient(sample, *xs), floats(xs)), *types))
    moved = [i for i, a in enumerate(sample.arrays) if a.dtype.kind == "f"]
    random = np.random.default_rng(3)
    for i, found in zip(moved, run(second, sample.arrays)[0], strict=True):
        assert (found.shape, found.dtype) == (sample.arrays[i].shape, sample.arrays[i].dtype)
        for direction in random.normal(size=(DIRECTIONS, *found.shape)) / np.sqrt(max(found.size, 1)):
            expected = slope_along(direction, first, sample.arrays, i)
            np.testing.assert_allclose(np.vdot(found, direction), expected, rtol=2e-6, atol=2e-8)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_passes_around_autodiff_keep_the_gradients(sample):
    """As the pipeline runs them: simplified before and after, composites decomposed."""

    def both_orders(*inputs: Value) -> list[Value]:
        return [*gradients(weighted_output(sample, *inputs), floats(inputs)), weighted_gradient(sample, *inputs)]

    traced = trace(both_orders, *types_of(sample))
    plain = expand_gradients(traced)
    piped = simplify(decompose(expand_gradients(simplify(traced)), NOTHING_CLAIMED))
    assert len(piped.nodes) < len(decompose(plain, NOTHING_CLAIMED).nodes)
    expected = list(run(plain, sample.arrays)[0])
    assert_close(run(verify(piped, expanded=True), sample.arrays)[0], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.torch is not None], ids=str)
def test_gradient_is_that_of_pytorch(sample):
    torch = pytest.importorskip("torch")
    arrays = tuple(a.astype(np.float32) if a.dtype.kind == "f" else a for a in sample.arrays)
    types = tuple(tensor(*a.shape, dtype=a.dtype.name) for a in arrays)
    graph = expand_gradients(trace(lambda *xs: gradients(weighted_output(sample, *xs), floats(xs)), *types))

    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    if callable(sample.torch):
        out = sample.torch(torch, *tensors, **sample.attrs)
    else:
        out = reduce(getattr, sample.torch.split("."), torch)(*tensors, **sample.attrs)
    total = (out * torch.tensor(weights(tuple(out.shape), 1), dtype=out.dtype)).sum()
    expected = [g.numpy() for g in torch.autograd.grad(total, [t for t in tensors if t.requires_grad])]
    assert_close(run(graph, arrays)[0], expected, rtol=2e-5, atol=2e-5)

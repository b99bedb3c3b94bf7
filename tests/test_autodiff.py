"""The reverse walk: where gradients flow, where they stop, their types, and gradients of gradients."""

from __future__ import annotations

import numpy as np
import pytest
from graph_tools import ops, tensor, trace

from engine import dtypes
from engine.dtypes import DType
from engine.errors import DTypeError, ShapeError, VerifyError
from engine.graph import Builder, Graph, Value, apply
from engine.interpreter import run
from engine.op import Op
from engine.verify import verify
from passes.autodiff import expand_gradients
from passes.simplify import simplify


def total(x: Value) -> Value:
    return apply("sum", x, axes=tuple(range(len(x.shape))))


def grad(y: Value, *wrt: Value):
    return apply("grad", y, *wrt)


def results(graph: Graph, *arrays: object) -> list[np.ndarray]:
    """The outputs once expanded; simplification on either side must not change them."""
    arrays = tuple(np.asarray(a, v.dtype.numpy) for a, v in zip(arrays, graph.inputs, strict=True))
    found = run(verify(expand_gradients(graph), expanded=True), arrays)[0]
    for v, a in zip(graph.outputs, found, strict=True):
        assert v.dtype.numpy == a.dtype
    for other in (expand_gradients(simplify(graph)), simplify(expand_gradients(graph))):
        for a, b in zip(run(verify(other, expanded=True), arrays)[0], found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    return list(found)


def test_every_use_of_a_value_adds_to_its_gradient():
    graph = trace(lambda x: grad(total(x * x + 3.0 * x - x), x), tensor(2))
    np.testing.assert_allclose(results(graph, [1.0, 2.0])[0], [4.0, 6.0])


def test_a_value_by_which_nothing_depends_has_zeros():
    graph = trace(lambda x, y: grad(total(x), x, y), tensor(2), tensor("B", 3, dtype="f64"))
    ones, zeros = results(graph, [1.0, 2.0], np.ones((4, 3)))
    np.testing.assert_array_equal(ones, [1.0, 1.0])
    np.testing.assert_array_equal(zeros, np.zeros((4, 3)))


def test_the_gradient_of_a_value_by_itself_is_one():
    graph = trace(lambda x: grad(x, x), tensor(1, 1))
    np.testing.assert_array_equal(results(graph, [[5.0]])[0], [[1.0]])


def test_a_value_may_be_asked_for_twice():
    graph = trace(lambda x: grad(total(x * x), x, x), tensor(2))
    first, second = results(graph, [1.0, 2.0])
    np.testing.assert_array_equal(first, second)


def test_intermediate_values_are_differentiated_by():
    """y = h * x with h = x + x: dy/dh is x, and dy/dx counts both ways."""

    def function(x):
        h = x + x
        return grad(total(h * x), h, x)

    dh, dx = results(trace(function, tensor(2)), [1.0, 2.0])
    np.testing.assert_array_equal(dh, [1.0, 2.0])
    np.testing.assert_array_equal(dx, [4.0, 8.0])


def test_equal_intermediate_values_stay_apart():
    def function(x):
        a, b = x + 1.0, x + 1.0
        return grad(total(a * b), a)

    np.testing.assert_array_equal(results(trace(function, tensor(2)), [1.0, 2.0])[0], [2.0, 3.0])


@pytest.mark.parametrize("op", ["detach", "floor", "ceil", "round", "trunc", "sign"])
def test_ops_without_a_gradient_stop_it(op):
    graph = trace(lambda x: grad(total(apply(op, x) * x), x), tensor(2))
    x = np.array([1.5, -2.5], np.float32)
    stopped = x if op == "detach" else getattr(np, op)(x)
    np.testing.assert_array_equal(results(graph, x)[0], stopped)


def test_no_gradient_flows_through_comparisons_integers_and_positions():
    def function(x):
        flags = apply("cast", apply("gt", x, 0.0), dtype=dtypes.f32)
        whole = apply("cast", apply("cast", x, dtype=dtypes.i32), dtype=dtypes.f32)
        position = apply("cast", apply("argmax", x, axis=0), dtype=dtypes.f32)
        return grad(total(flags * whole) + position, x)

    expanded = expand_gradients(trace(function, tensor(3)))
    np.testing.assert_array_equal(results(trace(function, tensor(3)), [1.0, -2.0, 3.0])[0], np.zeros(3))
    assert ops(simplify(expanded)) == ["broadcast_to"]


def test_relu_stops_even_infinite_gradients_and_lets_nan_pass():
    graph = trace(lambda x, w: grad(total(apply("relu", x) * w), x), tensor(3), tensor(3))
    found = results(graph, [-1.0, 1.0, np.nan], [np.inf, np.inf, 2.0])[0]
    np.testing.assert_array_equal(found, [0.0, np.inf, 2.0])


@pytest.mark.parametrize("function", ["relu", "sigmoid"])
def test_pooling_before_a_monotone_function_keeps_the_gradient(function):
    def pooled(x):
        y, _ = apply("max_pool2d", apply(function, x), kernel=(2, 2), stride=(2, 2))
        return grad(total(y * y), x)

    graph = trace(pooled, tensor("B", 2, 6, 6))
    assert ops(simplify(graph))[:2] == ["max_pool2d", function]
    results(graph, np.random.default_rng(0).normal(-0.5, 1, (3, 2, 6, 6)))


@pytest.mark.parametrize("narrow", [dtypes.f16, dtypes.f32], ids=str)
def test_a_gradient_has_the_dtype_and_shape_of_its_value(narrow: DType):
    graph = trace(lambda x, y: grad(total(x * y), x, y), tensor(3, dtype=narrow.name), tensor(2, 3, dtype="f64"))
    dx, dy = results(graph, [1, 2, 3], np.ones((2, 3)))
    assert (dx.dtype, dx.shape) == (narrow.numpy, (3,))
    assert (dy.dtype, dy.shape) == (np.float64, (2, 3))
    np.testing.assert_array_equal(dx, [2, 2, 2])


def test_sizes_that_are_assumed_equal_are_reconciled():
    """x has B elements and y has 3: the sum says that B is 3, and x's gradient still has B."""
    graph = trace(lambda x, y: grad(total((x + y) * y), x), tensor("B"), tensor(3))
    assert expand_gradients(graph).outputs[0].shape == graph.inputs[0].shape
    np.testing.assert_array_equal(results(graph, [0.0, 0.0, 0.0], [1.0, 2.0, 3.0])[0], [1.0, 2.0, 3.0])


def test_gradients_of_gradients():
    def function(x):
        (first,) = (grad(total(x * x * x), x),)
        (second,) = (grad(total(first), x),)
        third = grad(total(second), x)
        return first, second, third

    found = results(trace(function, tensor(2)), [1.0, 2.0])
    for order, expected in zip(found, ([3.0, 12.0], [6.0, 12.0], [6.0, 6.0]), strict=True):
        np.testing.assert_allclose(order, expected)


def test_a_gradient_is_an_ordinary_value():
    """A penalty on the gradient's square, differentiated by the weight: d/dw of sum((w cos(wx))**2)."""

    def function(x, w):
        slope = grad(total(apply("sin", w * x)), x)
        return grad(total(slope * slope), w)

    x, w = np.array([0.3, 1.2]), np.array(0.7)
    found = results(trace(function, tensor(2, dtype="f64"), tensor(dtype="f64")), x, w)[0]
    u = w * x
    np.testing.assert_allclose(found, np.sum(2 * w * np.cos(u) ** 2 - 2 * w**2 * x * np.cos(u) * np.sin(u)))


def test_state_is_differentiated_by_and_updated():
    builder = Builder()
    with builder:
        x, w = builder.input("x", tensor("B", 2)), builder.state_input("w", tensor(2))
        g = grad(total(x * w), w)
        graph = builder.build([], {"w": w - 0.5 * g})
    state = run(expand_gradients(graph), [np.ones((4, 2), np.float32)], {"w": np.zeros(2, np.float32)})[1]
    np.testing.assert_array_equal(state["w"], [-2.0, -2.0])


def test_new_nodes_carry_the_line_of_what_they_differentiate():
    def function(x):
        y = apply("exp", x)
        z = total(y)
        return grad(z, x)

    graph = trace(function, tensor(3))
    exp, summed, asked = graph.nodes
    new = [n for n in expand_gradients(graph).nodes if n not in graph.nodes]
    lines = {n.op.name: n.location for n in new}
    assert lines == {"constant": asked.location, "reshape": summed.location, "broadcast_to": summed.location,
                     "mul": exp.location}  # fmt: skip


def test_only_what_is_on_the_way_is_differentiated():
    def function(x, w):
        hidden = apply("exp", apply("matmul", x, w))
        return grad(total(hidden * 2.0), hidden)

    expanded = simplify(expand_gradients(trace(function, tensor(2, 3), tensor(3, 2))))
    assert ops(expanded) == ["broadcast_to"]


def test_a_graph_without_gradients_keeps_its_nodes():
    graph = trace(lambda x: apply("exp", x), tensor(3))
    assert expand_gradients(graph).nodes == graph.nodes


@pytest.mark.parametrize(
    "function, types, error, message",
    [
        (lambda x: grad(x, x), (tensor(3),), ShapeError, "scalar, not of a tensor of shape (3,)"),
        (lambda x: grad(x, x), (tensor("B"),), ShapeError, "scalar, not of a tensor of shape (B,)"),
        (lambda x: grad(total(x), x), (tensor(3, dtype="i64"),), DTypeError, "floating point tensors, not i64"),
        (lambda x: grad(apply("argmax", x, axis=0), x), (tensor(3),), DTypeError, "scalar, not of i64"),
    ],
)
def test_what_cannot_be_differentiated_is_said_at_the_users_line(function, types, error, message):
    with pytest.raises(error) as caught:
        trace(function, *types)
    assert message in caught.value.message
    assert caught.value.location is not None
    assert caught.value.location.file == __file__


def test_a_rule_that_breaks_its_contract_is_named():
    broken = Op("broken", "elementwise", ("x",), lambda x: x, gradient=lambda node, g: (total(g),))
    builder = Builder()
    with builder:
        x = builder.input("x", tensor(3))
        (y,) = builder.add(broken, (x,), {})
        graph = builder.build([grad(total(y), x)])
    with pytest.raises(VerifyError, match=r"gradient rule of broken gives f32\[\(\)\] for the input x: f32\[3\]"):
        expand_gradients(graph)

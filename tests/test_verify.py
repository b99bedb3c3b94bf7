"""The verifier: it passes what tracing makes, and names the node and the invariant of what is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graph_tools import tensor, trace
from hypothesis import HealthCheck, given, settings
from random_graphs import RandomProgram, programs

from engine import dtypes
from engine.errors import SourceLocation, VerifyError
from engine.graph import Builder, Graph, Group, Node, TensorType, Value, apply
from engine.op import get
from engine.verify import verify


def step() -> Graph:
    """``w - 0.5 * x`` for an input and a state."""
    builder = Builder("step")
    with builder, builder.at(SourceLocation("model.py", 3, "step")):
        x = builder.input("x", tensor("B", 3))
        w = builder.state_input("w", tensor("B", 3))
        new = w - x * 0.5
    return builder.build((new,), {"w": new})


def node(op: str, inputs: tuple[Value, ...], types: tuple[TensorType, ...], name: str = "t9", **attrs: Any) -> Node:
    """A node as a careless pass would make it: with any types and attributes."""
    return Node(get(op), inputs, attrs, types, name, SourceLocation("model.py", 9, "f"))


def with_node(graph: Graph, new: Node) -> Graph:
    return graph.with_(nodes=(*graph.nodes, new))


@given(programs())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_traced_graphs_pass(program: RandomProgram) -> None:
    assert verify(program.graph) is program.graph


def _renamed(g: Graph, name: str) -> Graph:
    x = g.inputs[0]
    return with_node(g, node("neg", (x,), (x.type,), name))


def _foreign(g: Graph) -> Graph:
    other = step().inputs[0]
    return with_node(g, node("neg", (other,), (other.type,)))


def _writable_constant(g: Graph) -> Graph:
    value = np.zeros(3, np.float32)
    return with_node(g, node("constant", (), (tensor(3),), value=value, dtype=dtypes.f32))


BROKEN: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "type": (lambda g: with_node(g, node("neg", g.inputs, (tensor("B", 4),))), r't9: neg gives f32\["B", 3\], and'),
    "inputs": (lambda g: with_node(g, node("neg", (*g.inputs, *g.state), (tensor(3),))), "t9: neg does not take"),
    "order": (lambda g: g.with_(nodes=g.nodes[::-1]), "reads t1 before it is made"),
    "foreign value": (_foreign, "t9 reads x before it is made, or from another graph"),
    "result": (lambda g: g.with_(nodes=g.nodes[:-1]), "the result t2 is not made in this graph"),
    "name twice": (lambda g: _renamed(g, "t2"), "t2 names two values"),
    "name of an op": (lambda g: _renamed(g, "sum"), "'sum' cannot name a value"),
    "no identifier": (lambda g: _renamed(g, "a.b"), "'a.b' cannot name a value"),
    "input twice": (lambda g: g.with_(inputs=g.inputs * 2), "two nodes stand for the input 'x'"),
    "state as input": (lambda g: g.with_(inputs=g.state), "w is listed as input, and is made by state"),
    "unknown state": (lambda g: g.with_(updates={"v": g.outputs[0]}), "t2 updates the state 'v', which"),
    "new type of state": (
        lambda g: with_node(g, node("cast", g.inputs, (tensor("B", 3, dtype="f64"),), dtype=dtypes.f64)).with_(
            updates={"w": g.state[0], "x": g.state[0]}
        ),
        "updates the state 'x', which the graph does not have",
    ),
    "layout": (lambda g: g.with_(layouts={g.outputs[0]: (0, 2)}), r"the layout \(0, 2\) of t2 is no order"),
    "layout of nothing": (lambda g: g.with_(layouts={step().inputs[0]: (1, 0)}), "x has a layout and is not"),
    "grad": (lambda g: with_node(g, node("grad", (g.inputs[0],), ())), "t9 is a grad node"),
    "attributes": (lambda g: with_node(g, node("neg", g.inputs, (g.inputs[0].type,), axis=1)), "t9: neg has the attr"),
    "list attribute": (
        lambda g: with_node(g, node("permute", g.inputs, (g.inputs[0].type,), axes=[0, 1])),
        "t9: axes: an attribute of type list cannot be printed",
    ),
    "writable constant": (_writable_constant, "t9: the attribute value is an array that can change"),
    "kernel twice": (
        lambda g: g.with_(groups=(Group("a", g.nodes[-1:]), Group("b", g.nodes[-1:]))),
        "t2 is in two kernels",
    ),
    "kernel out of order": (lambda g: g.with_(groups=(Group("a", g.nodes[::-1]),)), "'a' do not stand side by side"),
    "kernel of others": (
        lambda g: g.with_(groups=(Group("a", step().nodes),)),
        "the kernel 'a' holds a node that is not in the graph",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_graphs_are_named(name: str) -> None:
    break_, message = BROKEN[name]
    graph = verify(step())
    with pytest.raises(VerifyError, match=message):
        verify(break_(graph), expanded=True)


def test_the_users_line_is_named() -> None:
    with pytest.raises(VerifyError, match="at model.py:9 in f"):
        verify(_renamed(step(), "sum"))


def test_update_of_another_type() -> None:
    builder = Builder()
    with builder:
        w = builder.state_input("w", tensor(3))
        new = apply("cast", w, dtype=dtypes.f64)
    with pytest.raises(VerifyError, match=r"t0: f64\[3\] updates the state 'w': f32\[3\]"):
        verify(builder.build((), {"w": new}))


def test_an_assumption_that_was_lost() -> None:
    graph = trace(lambda x, y: x + y, tensor("B"), tensor("N"))
    verify(graph)
    with pytest.raises(VerifyError, match="t0 relies on B - N == 0, which the graph does not assume"):
        verify(graph.with_(assumptions=()))


def test_grad_nodes_are_fine_before_autodiff() -> None:
    graph = trace(lambda x: apply("grad", apply("sum", x, axes=(0,)), x), tensor(3))
    verify(graph)
    with pytest.raises(VerifyError, match="autodiff must have expanded"):
        verify(graph, expanded=True)


@pytest.mark.parametrize(("shape", "fits"), [((3,), True), ((4,), False)])
def test_random_streams_belong_to_one_draw(shape: tuple[int, ...], fits: bool) -> None:
    def draws(seed: Value, step: Value) -> tuple[Value, Value]:
        return (
            apply("random_uniform", seed, step, stream=1, shape=(3,)),
            apply("random_uniform", seed, step, stream=1, shape=shape),
        )

    graph = trace(draws, tensor(dtype="i64"), tensor(dtype="i64"))
    if fits:
        verify(graph)
    else:
        with pytest.raises(VerifyError, match="t0 and t1 draw different numbers from the random stream 1"):
            verify(graph)

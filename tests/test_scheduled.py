"""Schedules run on NumPy as the graphs they were made from do, and reaching outside of a buffer is caught."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import difference
from hypothesis import given, settings
from op_samples import SAMPLES
from random_graphs import programs
from test_compiled_ops import OTHERS, together

from engine import binding, interpreter, scheduled
from engine.dtypes import f32
from engine.errors import VerifyError
from engine.graph import Graph
from engine.options import Options
from engine.schedule import Access, KernelSpec, Stmt
from passes.autodiff import expand_gradients
from passes.pipeline import graph_passes
from passes.places import input_buffer, output_buffer, state_buffer
from passes.schedule import schedule
from runtime.cpu.target import target


def interpreted(graph: Graph, inputs, state, level: int):
    """Outputs and new state of the graph's schedule."""
    sizes = binding.solve(binding.ports(graph.inputs), [np.shape(inputs[p.name]) for p in binding.ports(graph.inputs)])
    for _, run in graph_passes(target(), Options(level)):
        graph = run(graph)
    plan = schedule(graph)
    given = {input_buffer(n): a for n, a in inputs.items()} | {state_buffer(n): a for n, a in state.items()}
    constants = {n.name: n.attrs["value"] for n in graph.nodes if n.op.name == "constant"}
    known = {b.name for b in plan.buffers}
    memory = scheduled.Memory(plan.buffers, sizes, {n: a for n, a in {**given, **constants}.items() if n in known})
    scheduled.run(plan, memory)
    shapes = [tuple(memory.size(s) for s in v.shape) for v in graph.outputs]
    outputs = [memory.arrays[output_buffer(i)].reshape(shape) for i, shape in enumerate(shapes)]
    return outputs, {n: memory.arrays[state_buffer(n)].reshape(np.shape(a)) for n, a in state.items()}


def check(graph: Graph, inputs, state, level: int) -> None:
    expected, after = interpreter.run(expand_gradients(graph), inputs, state)
    outputs, found = interpreted(graph, inputs, state, level)
    for v, a, b in zip(graph.outputs, outputs, expected, strict=True):
        assert difference(a, b) is None, f"{v.name} of {v.node}: {difference(a, b)}"
    for name in state:
        assert difference(found[name], after[name]) is None, name


@pytest.mark.parametrize("level", [0, 2])
def test_every_op(level):
    for sample in (*SAMPLES, *OTHERS):
        check(*together([sample]), {}, level)


@given(programs())
@settings(max_examples=40)
def test_random_programs(program):
    check(program.graph, program.inputs, program.state, 2)


def test_what_lies_outside_of_a_buffer_is_caught():
    body = (Stmt("v0", "load", (0,), f32), Stmt("v1", "store", (0, "v0"), f32))
    spec = KernelSpec("copy", (5,), (Access("a", f32, (1,), 2),), (Access("b", f32, (1,)),), body)
    memory = scheduled.Memory((), {}, {})
    memory.arrays = {"a": np.zeros(6, "f4"), "b": np.zeros(5, "f4")}
    with pytest.raises(VerifyError, match="a is read or written at elements 2 to 6 of 6"):
        scheduled.execute(spec, memory)

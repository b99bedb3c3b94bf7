"""Random graphs, many to a program, compiled and held to the interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
from compiled import cells, difference, executor, merge, renamed
from hypothesis import HealthCheck, Phase, given, settings
from random_graphs import RandomProgram, programs

from engine import dtypes, interpreter
from engine.canonical import digest
from engine.graph import Graph, Rewriter, Value, apply
from passes.autodiff import expand_gradients

ULPS = 16
"""Inputs that are off by so many units in the last place tell how far a right result may be off."""
SHAKES = 3
"""Times that inputs are moved."""

CANCELLED = 1e-6
"""What may be left of numbers around 1 that cancel."""

Named = Mapping[str, np.ndarray]


def draw(seed: int, count: int, continuous: bool) -> list[RandomProgram]:
    """``count`` different random programs, the same for the same seed and version of hypothesis. What nothing reads
    is an output, so that no drawn op is dead."""
    found: dict[str, RandomProgram] = {}

    @hypothesis.seed(seed)
    @settings(max_examples=4 * count, database=None, phases=[Phase.generate], deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(programs(continuous=continuous))
    def collect(program: RandomProgram) -> None:
        unread = [v for v, nodes in program.graph.users().items() if not nodes and v.node.op.kind != "source"]
        graph = program.graph.with_(outputs=tuple(dict.fromkeys((*program.graph.outputs, *unread))))
        found.setdefault(digest(graph), replace(program, graph=graph))

    collect()
    assert len(found) >= count
    return list(found.values())[:count]


def differentiated(program: RandomProgram) -> RandomProgram:
    """The program with one more output for each float input and state: the gradient of the mean of what it computes."""
    graph = program.graph
    wrt = [v for v in (*graph.inputs, *graph.state) if v.dtype.is_float]
    losses = [v for v in graph.outputs if v.dtype.is_float]
    if not wrt or not losses:
        return program
    rewriter = Rewriter(graph)
    rewriter.run(lambda node, inputs: None)
    builder = rewriter.builder
    with builder:
        total: Value | float = 0.0
        for v in losses:
            wide = apply("cast", apply("tanh", v), dtype=dtypes.f64)
            total = total + apply("sum", wide, axes=tuple(range(len(v.shape))))
        gradients = apply("grad", total, *wrt)
    found = (gradients,) if isinstance(gradients, Value) else gradients
    return RandomProgram(builder.build((*graph.outputs, *found), graph.updates), program.inputs, program.state)


def check_together(batch: Sequence[RandomProgram], level: int) -> None:
    """Compile the programs of ``batch`` as one and compare each with the interpreter, run on it alone."""
    graph, parts = merge([p.graph for p in batch])
    inputs = {renamed(k, i): a for i, p in enumerate(batch) for k, a in p.inputs.items()}
    state = {renamed(k, i): a for i, p in enumerate(batch) for k, a in p.state.items()}
    store = cells(graph, state)
    outputs = executor(graph, store, level).run(inputs)
    wrong = []
    for i, (program, part) in enumerate(zip(batch, parts, strict=True)):
        found = {f"output {k}": a for k, a in enumerate(outputs[part])}
        found |= {name: store[renamed(name, i)].array for name in program.state}
        wrong += [describe(program, what, why) for what, why in mistakes(program, found)]
    assert not wrong, f"{len(wrong)} wrong results at level {level}\n\n" + "\n\n".join(wrong[:3])


def mistakes(program: RandomProgram, found: Named) -> list[tuple[str, str]]:
    """The results that are further from the interpreter's than rounding explains, and how far."""
    graph = expand_gradients(program.graph)
    expected = reference(graph, program.inputs, program.state)
    slack = {name: np.full(np.shape(a), CANCELLED) for name, a in expected.items() if a.dtype.kind == "f"}
    for seed in range(SHAKES):
        moved = reference(graph, shaken(program.inputs, seed), shaken(program.state, seed))
        with np.errstate(invalid="ignore"):
            for name, most in slack.items():
                slack[name] = np.fmax(most, np.abs(moved[name].astype(np.float64) - expected[name]))
    checked = ((name, difference(found[name], a, slack=slack.get(name, 0.0))) for name, a in expected.items())
    return [(name, why) for name, why in checked if why]


def reference(graph: Graph, inputs: Named, state: Named) -> dict[str, np.ndarray]:
    outputs, after = interpreter.run(graph, inputs, state)
    return {f"output {k}": a for k, a in enumerate(outputs)} | after


def shaken(arrays: Named, seed: int) -> dict[str, np.ndarray]:
    """Floats moved up or down by some units in the last place."""
    random = np.random.default_rng(seed)

    def move(a: np.ndarray) -> np.ndarray:
        return a + (random.choice([-ULPS, ULPS], a.shape) * np.spacing(a)).astype(a.dtype)

    return {name: move(a) if a.dtype.kind == "f" else a for name, a in arrays.items()}


def describe(program: RandomProgram, what: str, why: str) -> str:
    shapes = {name: (a.dtype.name, a.shape) for name, a in (program.inputs | program.state).items()}
    return f"{what}: {why}\nwith {shapes}\n{program.graph}"


def batch(seed: int, count: int, gradients: bool) -> list[RandomProgram]:
    found = draw(seed, count, continuous=gradients)
    return [differentiated(p) for p in found] if gradients else found


@pytest.mark.parametrize("level", [0, 2])
def test_a_few_random_graphs(level: int) -> None:
    check_together(batch(seed=1, count=12, gradients=False), level)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "level"), [(10, 0), (11, 1), (12, 2), (13, 3), (14, 2)])
def test_random_graphs(seed: int, level: int) -> None:
    check_together(batch(seed, count=40, gradients=False), level)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "level"), [(20, 0), (21, 2), (22, 3)])
def test_gradients_of_random_graphs(seed: int, level: int) -> None:
    check_together(batch(seed, count=40, gradients=True), level)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_random_graphs(seed: int) -> None:
    check_together(batch(seed, count=40, gradients=seed % 2 == 1), level=2)

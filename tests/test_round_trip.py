"""Every dump reads back as the graph that it is of, prints the same again, and gives the same numbers when it runs: of
random programs and of the examples' graphs, after every pass."""

from __future__ import annotations

import contextlib
import io
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from compiled import difference
from hypothesis import given, settings
from random_graphs import programs

from engine import interpreter, samples, text
from engine.graph import Graph
from engine.options import Options
from engine.verify import verify
from passes.autodiff import expand_gradients
from passes.pipeline import graph_passes
from runtime.cpu.target import target
from tenon.text import load_arrays, write, write_inputs

ROOT = Path(__file__).resolve().parent.parent
LEVELS = (0, 2, 3)


def stages(graph: Graph, level: int) -> Iterator[tuple[str, Graph]]:
    """The graph as traced, and after every pass."""
    yield "trace", graph
    for name, run in graph_passes(target(), Options(level)):
        graph = run(graph)
        yield name, graph


def round_trip(graph: Graph, what: str) -> Graph:
    """Print, parse, print: the same text and the same graph."""
    printed, constants = text.to_text_and_constants(graph)
    again = text.parse(printed, constants)
    assert text.difference(again, graph) is None, what
    assert text.to_text_and_constants(again)[0] == printed, what
    return again


def runs(graph: Graph, inputs, state, folder: Path):
    """What the dumped file gives when its own lines run."""
    path = folder / "stage.py"
    write(graph, path)
    program = runpy.run_path(str(path), run_name="dump")
    (found,) = [p for p in program.values() if type(p).__name__ == "Program"]
    values = {v.name: inputs[v.node.attrs["name"]] for v in graph.inputs}
    results = found(**values, **{v.name: state[v.node.attrs["name"]] for v in graph.state})
    results = results if isinstance(results, tuple) else (results,)
    count = len(graph.outputs)
    return results[:count], results[count] if graph.updates else {}


def check_runs(graph: Graph, inputs, state, folder: Path, levels=LEVELS) -> None:
    outputs, after = interpreter.run(expand_gradients(graph), inputs, state)
    for level in levels:
        for name, stage in stages(graph, level):
            if any(n.op.kind == "grad" for n in stage.nodes):
                continue  # its lines cannot run before autodiff
            found, updates = runs(stage, inputs, state, folder)
            for i, (a, b) in enumerate(zip(found, outputs, strict=True)):
                assert difference(np.asarray(a), b, slack=1e-6) is None, f"level {level}, {name}, output {i}"
            for key, array in updates.items():
                assert difference(np.asarray(array), after[key], slack=1e-6) is None, f"level {level}, {name}, {key}"


# --- random programs -------------------------------------------------------------------------------------------


def _random(count: int, levels: tuple[int, ...], running: bool, folder: Path) -> None:
    @given(programs())
    @settings(max_examples=count)
    def check(program):
        for level in levels:
            for name, stage in stages(program.graph, level):
                round_trip(stage, f"level {level}, {name}")
        if running:
            check_runs(program.graph, program.inputs, program.state, folder, levels)

    check()


def test_some_random_programs(tmp_path):
    _random(12, (2,), True, tmp_path)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_500_random_programs(tmp_path):
    _random(500, LEVELS, True, tmp_path)


# --- the examples ----------------------------------------------------------------------------------------------

EXAMPLES = {
    "digits_cnn": (),
    "linear_regression": (),
    "feedforward": (),
    "overfitting": (),
    "cnn_color": ("--epochs", "1", "--size", "28"),
    "autoencoder": (),
    "gan_digits": (),
    "transfer_learning": (),
    "segmentation": ("--images", "40", "--size", "32", "--width", "6", "--epochs", "1"),
    "detection": ("--images", "40", "--width", "6", "--epochs", "1"),
    "lstm_digits": (),
    "sine_rnn": (),
    "char_gpt": ("--steps", "6", "--width", "32", "--layers", "2", "--kilobytes", "200", "--checks", "2"),
    "reverse_translation": ("--count", "64", "--epochs", "1", "--hidden", "32", "--layers", "1"),
    "text_classifier": ("--epochs", "1", "--count", "50", "--length", "48"),
    "cnn_rnn": ("--epochs", "1"),
    "spoken_digits": ("--epochs", "1", "--count", "10"),
}


def traced(name: str, folder: Path, python) -> list[Graph]:
    """The graph of every program that an example compiles."""
    folder.mkdir()
    python(ROOT / "tests" / "example_graphs.py", folder, ROOT / "examples" / f"{name}.py", *EXAMPLES[name])
    graphs = [
        text.parse(path.read_text(encoding="utf-8"), load_arrays(path.with_suffix(".npz")))
        for path in sorted(folder.glob("*.py"))
    ]
    assert graphs, f"{name} compiled nothing"
    return graphs


def check_example(name: str, folder: Path, python, levels=LEVELS, running: bool = True) -> None:
    graphs = traced(name, folder / "graphs", python)
    for number, graph in enumerate(graphs):
        for level in levels:
            for stage, found in stages(graph, level):
                verify(found, expanded=not any(n.op.kind == "grad" for n in found.nodes))
                round_trip(found, f"{name} {number}, level {level}, {stage}")
        if running:
            check_runs(graph, *samples.sample(graph), folder, levels)


def test_every_example_is_here():
    examples = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert examples - set(EXAMPLES) == {"bert_embed"}  # which needs the folder of a model


@pytest.mark.slow
def test_an_example(python, tmp_path):
    pytest.importorskip("matplotlib")
    check_example("sine_rnn", tmp_path, python, (2,))


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example(name, python, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    check_example(name, tmp_path, python)


# --- what dumps say --------------------------------------------------------------------------------------------


def test_a_file_runs_on_the_inputs_beside_it(tmp_path):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        graph = _small()
        inputs, state = samples.sample(graph, 3)
        write(graph, tmp_path / "stage.py")
        write_inputs(tmp_path, inputs, state)
        runpy.run_path(str(tmp_path / "stage.py"), run_name="__main__")
    (expected,), _ = interpreter.run(graph, inputs, state)
    assert f"= {expected.tolist()}" in printed.getvalue() and "inputs.npz" in printed.getvalue()


def _small() -> Graph:
    import tenon as tn

    return tn.compile(lambda x: (x * 2).sum(), tn.spec("B", 3), target="reference").graph

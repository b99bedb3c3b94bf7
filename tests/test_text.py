"""Printed graphs: they parse back to the same graph, run as Python, and refuse what is not one."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graph_tools import tensor, trace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import RandomProgram, programs

from engine import dims, dtypes, interpreter, samples
from engine.errors import SourceLocation, TextError
from engine.graph import Builder, Graph, Group, Value, apply, constant
from engine.text import assumption, difference, parse, structurally_equal, to_text, to_text_and_constants
from engine.text.literals import attr_from, attr_text
from tenon.text import Program, run, write, write_inputs

ROOT = Path(__file__).resolve().parent.parent


def classifier() -> Graph:
    """A graph with most of what text must carry: state, two outputs of an op, constants, dims in attributes."""
    b = dims.dim("B")
    builder = Builder("step")
    with builder:
        x = builder.input("x", tensor("B", 1, 8, 8))
        y = builder.input("batch.labels", tensor("B", dtype="i64"))
        kernel = builder.state_input("conv1.weight", tensor(4, 1, 3, 3))
        weight = builder.state_input("fc.weight", tensor(64, 10))
        h = apply("relu", apply("conv2d", x, kernel, padding=(1, 1)) * 2.0 + 0.1)
        pooled, _ = apply("max_pool2d", h, kernel=(2, 2), stride=(2, 2))
        logits = apply("matmul", apply("reshape", pooled, shape=(b, 64)), weight)
        loss = apply("cross_entropy", logits, y)
        step = constant(np.linspace(0, 1, 640).reshape(64, 10), dtypes.f32)
        new = weight - step * 0.5
    return builder.build((loss, logits), {"fc.weight": new})


def round_trip(graph: Graph) -> Graph:
    text, constants = to_text_and_constants(graph)
    found = parse(text, constants)
    assert difference(graph, found) is None
    assert to_text(found) == text
    return found


def load(path: Path) -> Program:
    """The program in a dump, run as Python runs a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (found,) = (v for v in vars(module).values() if isinstance(v, Program))
    return found


def body(graph: Graph) -> list[str]:
    """The lines of the function without comments."""
    lines = to_text(graph).splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith("):")) + 1
    return [line.split("  #")[0].strip() for line in lines[start:-4]]


# --- round trips -------------------------------------------------------------------------------------------


def test_classifier_reads_well_and_parses_back() -> None:
    graph = classifier()
    text = to_text(graph)
    assert 'conv1_weight: State["conv1.weight", f32[4, 1, 3, 3]],' in text
    assert 'batch_labels: Input["batch.labels", i64["B"]],' in text
    assert 't0: f32["B", 4, 8, 8] = conv2d(x, conv1_weight, padding=(1, 1))' in text
    assert 't2: f32["B", 4, 8, 8] = t0 * 2.0' in text
    assert 'reshape(t6_0, shape=("B", 64))' in text
    assert "test_text.py:" in text and "in classifier" in text
    round_trip(graph)


@given(programs())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_graphs_parse_back(program: RandomProgram) -> None:
    round_trip(program.graph)


def test_locations_come_back_from_comments() -> None:
    graph = classifier()
    wanted = [str(n.location) for n in graph.nodes if n.op.name != "constant"]
    found = [str(n.location) for n in round_trip(graph).nodes if n.op.name != "constant"]
    assert found == wanted


def test_a_location_ends_where_a_line_has_none() -> None:
    builder = Builder()
    x = builder.input("x", tensor(3))
    with builder, builder.at(SourceLocation("/home/a b/model.py", 7, "f.<locals>.g")):
        y = apply("exp", x)
    graph = builder.build((y,))
    x.node.location = None
    assert [str(n.location) for n in round_trip(graph).all_nodes()] == ["None", "model.py:7 in f.<locals>.g"]
    x.node.location, y.node.location = y.node.location, None
    assert [str(n.location) for n in round_trip(graph).all_nodes()] == ["model.py:7 in f.<locals>.g", "None"]


def test_layouts_groups_and_assumptions_come_back() -> None:
    graph = trace(lambda x: apply("exp", x) + 1.0, tensor("B", 2, 3, 3))
    exp, one, add = graph.nodes
    fact = assumption("B - 1 >= 0", 'the batch "x" must not be empty')
    graph = graph.with_(
        layouts={graph.inputs[0]: (0, 2, 3, 1), exp.output: (0, 2, 3, 1)},
        groups=(Group("exp", (exp,)), Group("add", (one, add))),
        assumptions=(fact,),
    )
    found = round_trip(graph)
    assert len(found.groups) == 2 and found.assumptions[0].expr == fact.expr
    assert found.layouts[found.inputs[0]] == (0, 2, 3, 1)


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.1, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3.4e38], np.float32),
        np.array([[0.1, 1e300]], np.float64),
        np.array([1.5, 2.5], np.float16),
        np.array([[1], [-128]], np.int8),
        np.array([True, False]),
        np.array([2**62], np.int64),
        np.zeros((0, 3), np.float32),
        np.arange(17, dtype=np.int32),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_constants_keep_every_bit(array: np.ndarray) -> None:
    graph = trace(lambda: constant(array))
    found = round_trip(graph).nodes[0].attrs["value"]
    assert found.dtype == array.dtype and found.tobytes() == array.tobytes()


@pytest.mark.parametrize("size", [3, 40])
def test_bf16_constants_and_inputs_survive_files(tmp_path: Path, size: int) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.linspace(-1, 1, size).astype(ml_dtypes.bfloat16)
    graph = trace(lambda x: x + constant(values), tensor(size, dtype="bf16"))
    write(graph, tmp_path / "bf16.py")
    write_inputs(tmp_path, {"x0": values}, {})
    loaded = load(tmp_path / "bf16.py")
    assert difference(loaded.graph, graph) is None
    assert loaded(values).dtype == values.dtype
    run(loaded)


def test_float32_constants_survive_decimal_notation() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 320, dtype=np.uint32).view(np.float32)
    for part in bits[np.isfinite(bits)][:304].reshape(-1, 16):
        round_trip(trace(lambda part=part: constant(part)))


def test_attributes_of_every_kind_come_back() -> None:
    values = (
        1, -1, True, None, 0.5, -0.0, float("inf"), -float("inf"), "a \"quoted\" text", "B", dims.dim("B"),
        (1, (2, dims.dim("B") * 2 + 1)), ("B", "mean"), (), (dtypes.f32, dtypes.bool_),
    )  # fmt: skip
    for value in values:
        found = attr_from(ast.parse(attr_text(value), mode="eval").body)
        assert repr(found) == repr(value) and type(found) is type(value)


# --- how lines read ----------------------------------------------------------------------------------------


def test_numbers_are_bare_where_they_take_their_neighbours_dtype() -> None:
    def f(x: Value, i: Value) -> tuple[Value, ...]:
        wide = constant(2.0, dtypes.f64)
        chosen = apply("where", apply("gt", i, 0), 1.0, x)
        return x * 2, x * wide, apply("div", 1.0, x), i * 3, i * 0.5, chosen, -x, x - 1e-7

    graph = trace(f, tensor(3), tensor(3, dtype="i32"))
    lines = body(graph)
    right = [line.split(" = ")[1] for line in lines[:-1]]
    assert right == [
        "gt(x1, 0)",
        "where(t2, 1.0, x0)",
        "x0 * 2.0",
        "mul(x0, f64(2.0))",
        "1.0 / x0",
        "x1 * 3",
        "mul(x1, 0.5)",
        "-x0",
        "x0 - 1e-07",
    ]
    round_trip(graph)


def test_operators_stay_calls_where_numpy_would_compute_otherwise() -> None:
    half = trace(lambda x: x + x, tensor(3, dtype="f16"))
    mixed = trace(lambda x, y: x + y, tensor(3, dtype="i64"), tensor(3, dtype="i32"))
    assert body(half)[0].endswith("add(x0, x0)") and body(mixed)[0].endswith("add(x0, x1)")


def test_scalar_results_and_literal_arguments_alone() -> None:
    graph = trace(lambda: (constant(2.5, dtypes.f32), apply("add", constant(1, dtypes.i64), constant(2, dtypes.i64))))
    assert body(graph) == ["t0: f32[()] = constant(2.5, f32)", "t3: i64[()] = add(1, 2)", "return t0, t3"]
    round_trip(graph)


def test_a_kernel_of_a_scalar_constant_alone_is_kept() -> None:
    graph = trace(lambda x: x + 2.0, tensor(3))
    two, add = graph.nodes
    round_trip(graph.with_(groups=(Group("fill", (two,)), Group("add", (add,)))))


def test_names_that_python_or_the_language_takes() -> None:
    builder = Builder("<lambda>")
    with builder:
        names = ("sum", "lambda", "t1", "t2_0", "x²", "a.b", "a_b", "", "run", "f32")
        values = [builder.input(name, tensor(2)) for name in names]
        total = values[0]
        for v in values[1:]:
            total = total + v
    found = round_trip(builder.build((total,)))
    assert [v.node.attrs["name"] for v in found.inputs][:3] == ["sum", "lambda", "t1"]
    assert found.name == "<lambda>"


def test_many_updates_stand_on_lines_of_their_own() -> None:
    builder = Builder("step")
    with builder:
        state = {name: builder.state_input(name, tensor(2)) for name in (f"block{i}.linear.weight" for i in range(9))}
        new = {name: v * 0.5 for name, v in state.items()}
    graph = builder.build((), new)
    assert '        "block8.linear.weight": t17,' in to_text(graph)
    round_trip(graph)


def test_differences_are_told() -> None:
    a = trace(lambda x: apply("sum", x, axes=(0,)), tensor(2, 3))
    b = trace(lambda x: apply("sum", x, axes=(1,)), tensor(2, 3))
    assert structurally_equal(a, a) and not structurally_equal(a, b)
    assert "axes" in str(difference(a, b))


# --- what is refused ---------------------------------------------------------------------------------------

GOOD = """\
from tenon.text import *


@program
def f(x: f32["B", 4], *, w: State["w", f32[4]]):
    t0: f32["B", 4] = x * w
    return t0


if __name__ == "__main__":
    run(f)
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('f32["B", 4] = x', 'f32["B", 5] = x', 6, "declared as f32"),
        ("x * w", "x * v", 6, "v is used and not defined"),
        ("x * w", "nothing(x, w)", 6, "no op 'nothing'"),
        ("x * w", "sum(x, axis=0)", 6, "no argument 'axis'"),
        ("x * w", "sum(x, axes=3)", 6, "does not take these arguments"),
        ("x * w", "matmul(x, w)", 6, "at least 2 axes"),
        ("x * w", "matmul(x, x)", 6, 'relies on assume("-B + 4 == 0"'),
        ("x * w", "x @ w", 6, "not the application of an op"),
        ("x * w", "__import__('os').system('true')", 6, "not the application"),
        ("x * w", "exec('1')", 6, "no op 'exec'"),
        ("x * w", "mul(x, [1, 2][0])", 6, "not an attribute"),
        ("x * w", "mul(x, i64('3'))", 6, "a number was expected"),
        ("x * w", "add(x, i8(300))", 6, "these numbers are no i8 array"),
        ("x * w", 'constant("c")', 6, "must be given beside"),
        ("t0: f32[", "x: f32[", 6, "x is defined twice"),
        ("t0: f32[", "sum: f32[", 6, "name of an op"),
        ("t0: f32", "t0: complex", 6, "not a type"),
        ("t0: f32[", "t1: f32[3]; t0: f32[", 7, "t1 has a type but no value"),
        ('x: f32["B", 4]', 'x: f32["B +", 4]', 5, "not a size"),
        ('x: f32["B", 4]', "x", 5, "x needs a type"),
        ('State["w", f32[4]]', "f32[4]", 5, "the state w needs a type such as State"),
        ("    return t0", "    return t1", 7, "t1 is used and not defined"),
        ("    return t0", "    pass", 7, "must end with a return"),
        ("@program\n", "", 4, "decorator @program"),
        ("    run(f)", "    run(f)\n    run(f)", 10, "may follow the function"),
        ("import *", "import *\nimport os", 1, "expected 'from tenon.text import *'"),
        ("    t0: f32", "    for i in x: pass\n    t0: f32", 6, "not a statement"),
        ("    t0: f32", '    assume("B", "why")\n    t0: f32', 6, "an assumption is such as"),
        ("    t0: f32", "    with kernel(1):\n        pass\n    t0: f32", 6, "with kernel"),
        ("return t0", "return (t0", 7, "not Python"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(old: str, new: str, line: int, message: str) -> None:
    assert parse(GOOD).name == "f"
    assert GOOD.count(old) == 1
    with pytest.raises(TextError) as error:
        parse(GOOD.replace(old, new))
    assert error.value.message.startswith(f"line {line}: ")
    assert message in error.value.message


REPLACEMENTS = ("", "0", "x", "-1.5", "None", "(", "t0", "*", "f32", '"B"', "x, y", "[1, []]", "10**9", "lambda: 0")


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_damaged_text_is_refused_and_never_trips_the_parser(data: st.DataObject) -> None:
    text, constants = to_text_and_constants(classifier())
    tokens = re.findall(r"\w+|\s+|.", text)
    place = data.draw(st.integers(0, len(tokens) - 1))
    tokens[place] = data.draw(st.sampled_from(REPLACEMENTS))
    with contextlib.suppress(TextError):
        parse("".join(tokens), constants)


# --- running -----------------------------------------------------------------------------------------------


@given(programs())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_printed_programs_compute_what_the_interpreter_does(
    tmp_path_factory: pytest.TempPathFactory, program: RandomProgram
) -> None:
    path = tmp_path_factory.mktemp("dump") / "program.py"
    write(program.graph, path)
    loaded = load(path)
    g = program.graph
    found = loaded(
        **{v.name: program.inputs[v.node.attrs["name"]] for v in g.inputs},
        **{v.name: program.state[v.node.attrs["name"]] for v in g.state},
    )
    outputs, after = program.reference()
    results = list(found) if isinstance(found, tuple) else [found]
    if g.updates:
        new = results.pop()
        for name in g.updates:
            np.testing.assert_array_equal(new[name], after[name])
    assert len(results) == len(outputs)
    for a, b in zip(results, outputs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_dump_runs_as_a_script_on_made_up_and_on_saved_inputs(tmp_path: Path) -> None:
    graph = classifier()
    path = tmp_path / "01-trace.py"
    write(graph, path, "the graph as traced")

    def output() -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, path.name], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert "made-up inputs" in output()
    inputs, state = samples.sample(graph, seed=5, sizes={"B": 7})
    write_inputs(tmp_path, inputs, state)
    outputs, _ = interpreter.run(graph, inputs, state)
    printed = output()
    assert f"f32[()] = {float(outputs[0])}" in printed
    assert "f32[7, 10], min" in printed and "state fc.weight: f32[64, 10]" in printed


def test_a_dump_from_before_autodiff_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = trace(lambda x: apply("grad", apply("sum", x * x, axes=(0,)), x), tensor("N"))
    write(graph, tmp_path / "grad.py")
    write_inputs(tmp_path, {"x0": np.array([1, 2, 3], np.float32)}, {})
    run(load(tmp_path / "grad.py"))
    assert "f32[3] = [2.0, 4.0, 6.0]" in capsys.readouterr().out

"""The interpreter, the reference backend, the checks of inputs, made-up arguments and the graph's hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from graph_tools import tensor, trace
from hypothesis import HealthCheck, given, settings
from random_graphs import RandomProgram, programs

from engine import binding, dims, dtypes, interpreter, samples
from engine.canonical import digest
from engine.errors import (
    DTypeError,
    IndexRangeError,
    ShapeError,
    SourceLocation,
    StateError,
    TenonError,
    UnsupportedError,
    VerifyError,
)
from engine.graph import Builder, Graph, Rewriter, Value, apply, constant
from engine.op import Op
from engine.program import Port
from engine.state import Cell
from engine.text import assumption, parse, to_text_and_constants
from runtime.reference import ReferenceExecutor

F32 = np.float32


def counter() -> Graph:
    """Looks ``index`` up below 10 and adds the table's state to it; the state counts calls."""
    builder = Builder("counter")
    with builder, builder.at(SourceLocation("model.py", 5, "lookup")):
        index = builder.input("index", tensor("B", dtype="i64"))
        count = builder.state_input("count", tensor(dtype="i64"))
        checked = apply("check_index", index, limit=10)
        new = count + 1
        out = checked + new
    return builder.build((out,), {"count": new})


# --- interpreter -------------------------------------------------------------------------------------------


def test_outputs_and_new_state() -> None:
    state = {"count": np.int64(4), "other": np.zeros(1)}
    (out,), after = interpreter.run(counter(), {"index": [1, 2]}, {k: np.asarray(v) for k, v in state.items()})
    assert out.tolist() == [6, 7] and after["count"] == 5 and "other" in after and state["count"] == 4


def test_every_node_can_be_watched() -> None:
    seen: dict[str, list[int]] = {}
    interpreter.run(
        counter(), [[3]], {"count": np.array(0)}, trace=lambda n, found: seen.update({n.name: found[0].tolist()})
    )
    assert seen == {"t0": [3], "t1": 1, "t2": 1, "t3": [4]}


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_symbolic_attributes_take_the_sizes_of_the_call(batch: int) -> None:
    b = dims.dim("B")
    graph = trace(lambda x: apply("reshape", x, shape=(b * 2, 3)), tensor("B", 6))
    (out,), _ = interpreter.run(graph, [np.zeros((batch, 6), F32)])
    assert out.shape == (batch * 2, 3)


def test_composites_without_a_reference_are_decomposed() -> None:
    def rule(x):
        return x

    op = Op("twice", "composite", ("x",), rule, decompose=lambda x: x + x)
    (found,) = interpreter.evaluate(op, [np.arange(3.0, dtype=F32)], {}, {})
    assert found.tolist() == [0, 2, 4] and found.dtype == F32


def test_a_reference_that_breaks_its_type_rule_is_told() -> None:
    graph = trace(lambda x: apply("exp", x), tensor(3))
    lying = Op("exp", "elementwise", ("x",), lambda x: x, lambda x: x[:2])
    graph.nodes[0].op = lying
    with pytest.raises(VerifyError, match=r"the reference of exp gave float32\[2\] for t0"):
        interpreter.run(graph, [np.zeros(3, F32)])


def test_errors_name_the_users_line() -> None:
    with pytest.raises(IndexRangeError, match="index 10 is out of range: expected 0 <= index < 10") as error:
        interpreter.run(counter(), [[3, 10]], {"count": np.array(0)})
    assert str(error.value.location) == "model.py:5 in lookup"


def test_what_cannot_run_is_refused() -> None:
    graph = trace(lambda x: apply("grad", apply("sum", x, axes=(0,)), x), tensor(3))
    with pytest.raises(UnsupportedError, match="grad has no reference"):
        interpreter.run(graph, [np.zeros(3, F32)])
    with pytest.raises(StateError, match="reads the state count, which was not given"):
        interpreter.run(counter(), [[3]])
    with pytest.raises(StateError, match=r"the state 'count' has shape \(1,\); the program expects \(\)"):
        interpreter.run(counter(), [[3]], {"count": np.zeros(1, np.int64)})


def test_assumptions_are_checked() -> None:
    graph = trace(lambda x: x, tensor("B"))
    fact = assumption("(B%2) == 0", "pairs are made of even batches", SourceLocation("m.py", 1, "f"))
    with pytest.raises(ShapeError, match=r"pairs are made of even batches \(here B=3\)\n  at m.py:1 in f"):
        interpreter.run(graph.with_(assumptions=(fact,)), [np.zeros(3, F32)])


# --- binding -----------------------------------------------------------------------------------------------

B, N = dims.dim("B"), dims.dim("N")


def ports(*shapes: dims.Shape) -> list[Port]:
    return [Port(f"x{i}", shape, dtypes.f32, f"x{i}") for i, shape in enumerate(shapes)]


def test_dims_are_solved_from_linear_sizes() -> None:
    assert binding.solve(ports((B * 2 + 1, 3), (N + B,)), [(7, 3), (5,)]) == {"B": 3, "N": 2}


@pytest.mark.parametrize(
    ("expected", "given", "message"),
    [
        (((B, 3),), ((2, 3, 1),), "rank 3 instead of 2"),
        (((B, 3),), ((2, 4),), "axis 1 is 4 instead of 3"),
        (((B,), (B,)), ((2,), (3,)), "B is already 2"),
        (((B * 2,),), ((3,),), "B"),
        (((B * N,),), ((6,),), "do not settle the dim"),
    ],
)
def test_shapes_that_do_not_fit(expected: tuple, given: tuple, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        binding.solve(ports(*expected), given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": 1.0}, "the input 'y' is missing; the inputs are: x, y"),
        ({"x": 1.0, "y": 1.0, "z": 1.0}, "there is no input 'z'"),
        ([1.0], r"expected 2 inputs \(x, y\), and got 1"),
    ],
)
def test_wrong_names_and_counts(given: dict | list, message: str) -> None:
    expected = [Port(n, (), dtypes.f32, n) for n in "xy"]
    with pytest.raises(TenonError, match=message):
        binding.arrange(expected, given)


def test_arrays_need_the_dtype_and_numbers_do_not() -> None:
    port, whole = Port("x", (2,), dtypes.f32, "x"), Port("i", (2,), dtypes.i64, "i")
    assert binding.as_input([1, 2.5], port).dtype == F32
    with pytest.raises(DTypeError, match="input 'x' has dtype float64; expected f32"):
        binding.as_input(np.zeros(2), port)
    with pytest.raises(DTypeError, match="does not fit i64"):
        binding.as_input([0.5, 1.0], whole)


# --- the reference backend ---------------------------------------------------------------------------------


def test_the_backend_writes_cells_in_place() -> None:
    cells = {"count": Cell(np.array(1), dtypes.i64), "other": Cell(np.zeros(2), dtypes.f32)}
    array = cells["count"].array
    executor = ReferenceExecutor(counter(), cells)
    assert executor.run([[5]])[0].tolist() == [7]
    assert array == 2 and cells["count"].version == 1 and cells["other"].version == 0
    out = np.zeros(1, np.int64)
    assert executor.run({"index": [5]}, out=[out])[0] is out and out[0] == 8


def test_a_failed_call_leaves_state_alone() -> None:
    cells = {"count": Cell(np.array(1), dtypes.i64)}
    executor = ReferenceExecutor(counter(), cells)
    with pytest.raises(IndexRangeError):
        executor.run([[-1]])
    with pytest.raises(ShapeError, match="out holds arrays"):
        executor.run([[1]], out=[np.zeros(2, np.int64)])
    assert cells["count"].array == 1 and cells["count"].version == 0


def test_state_may_swap_and_outputs_are_the_callers() -> None:
    builder = Builder("swap")
    a, b = builder.state_input("a", tensor(2)), builder.state_input("b", tensor(2))
    graph = builder.build((a,), {"a": b, "b": a})
    cells = {name: Cell(np.full(2, value), dtypes.f32) for name, value in (("a", 1), ("b", 2))}
    (out,) = ReferenceExecutor(graph, cells).run([])
    assert cells["a"].array.tolist() == [2, 2] and cells["b"].array.tolist() == [1, 1] and out.tolist() == [1, 1]


def test_missing_state_is_told_before_running() -> None:
    with pytest.raises(StateError, match="needs the state count, which does not exist"):
        ReferenceExecutor(counter(), {})


# --- made-up arguments -------------------------------------------------------------------------------------


def test_samples_meet_assumptions_and_repeat() -> None:
    graph = trace(lambda x, y: x + y, tensor("2*B"), tensor("N"))
    first, second = samples.sample(graph, seed=3)[0], samples.sample(graph, seed=3)[0]
    assert all(np.array_equal(first[k], second[k]) for k in first)
    interpreter.run(graph, first)


def test_samples_say_where_no_sizes_fit() -> None:
    graph = trace(lambda x: x, tensor("B"))
    fact = assumption("B - 5000 == 0", "")
    with pytest.raises(TenonError, match="no small sizes of B satisfy what traced assumes"):
        samples.sample(graph.with_(assumptions=(fact,)))


# --- hash --------------------------------------------------------------------------------------------------


@given(programs())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_hash_forgets_names_and_lines_alone(program: RandomProgram) -> None:
    graph = program.graph
    assert len(bytes.fromhex(digest(graph))) == hashlib.sha256().digest_size
    rewriter = Rewriter(graph)
    renamed = rewriter.run(lambda n, inputs: rewriter.builder.add(n.op, inputs, n.attrs))
    assert digest(renamed) == digest(graph)
    assert digest(parse(*to_text_and_constants(graph))) == digest(graph)


def test_the_hash_counts_a_scalar_constant_once() -> None:
    def shared(x: Value) -> Value:
        two = constant(2.0, dtypes.f32)
        constant(7.0, dtypes.f32)
        return x * two + two

    assert digest(trace(shared, tensor(3))) == digest(trace(lambda x: x * 2.0 + 2.0, tensor(3)))


VARIANTS: list[Callable[[Value], Value]] = [
    lambda x: x * 2.0,
    lambda x: x * 3.0,
    lambda x: x + 2.0,
    lambda x: constant(2.0, dtypes.f32) * x,
    lambda x: apply("sum", x, axes=(0,)),
    lambda x: apply("sum", x, axes=(1,)),
    lambda x: apply("sum", x, axes=(0,), keepdims=True),
    lambda x: apply("pad", x, low=(0, 0), high=(0, 0), step=(1, 1), value=0),
    lambda x: apply("pad", x, low=(0, 0), high=(0, 0), step=(1, 1), value=0.0),
    lambda x: x * constant(np.zeros(3), dtypes.f32),
    lambda x: x * constant(np.zeros(3), dtypes.f64),
    lambda x: x * constant(np.array([0, 0, -0.0]), dtypes.f32),
]


def test_the_hash_tells_programs_apart() -> None:
    found = [digest(trace(f, tensor(4, 3))) for f in VARIANTS]
    found += [digest(trace(VARIANTS[0], t)) for t in (tensor(3, 4), tensor("B", 3), tensor(4, 3, dtype="f64"))]
    graph = trace(VARIANTS[0], tensor(4, 3))
    product = graph.outputs[0]
    found += [digest(g) for g in (
        graph.with_(outputs=(product, product)),
        graph.with_(layouts={product: (1, 0)}),
        graph.with_(name="other"),
        graph.with_(assumptions=(assumption("B >= 0", ""),)),
    )]  # fmt: skip
    assert len(set(found)) == len(found)

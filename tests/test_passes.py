"""From graph to program: which kernels a graph becomes, where their results go, and that the values are right."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from compiled import cells, check, executor, program
from graph_tools import trace

from engine import dims, dtypes
from engine.errors import IndexRangeError
from engine.graph import Builder, Graph, TensorType, Value, apply, constant
from engine.options import DEFAULT, Options
from engine.schedule import Bundle, ConvWeightGrad, KernelSpec, MaxPool2d, MaxPool2dGrad, Schedule
from passes.pipeline import compile_graph, graph_passes
from passes.reach import Precedence
from passes.schedule import schedule
from runtime.cpu.lower import lower
from runtime.cpu.target import target

F32 = dtypes.f32


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def final(graph: Graph, level: int = 2) -> Graph:
    """``graph`` after every graph pass."""
    for _, run in graph_passes(target(), Options(level)):
        graph = run(graph)
    return graph


def plan(graph: Graph, level: int = 2) -> Schedule:
    return schedule(final(graph, level))


def kernels(graph: Graph) -> list[str]:
    return [k.name for k in plan(graph).kernels]


def stateful(
    shapes: Mapping[str, tuple[int, ...]], step: Callable[..., tuple[list[Value], dict[str, Value]]]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph of ``step``, given the old value of each state, and values for that state."""
    builder = Builder("stateful")
    with builder:
        outputs, updates = step(*(builder.state_input(n, TensorType(s, F32)) for n, s in shapes.items()))
    return builder.build(outputs, updates), {n: array(*s) for n, s in shapes.items()}


def writers(found: Schedule, buffer: str) -> list[str]:
    """The names of the kernels that write ``buffer``."""
    parts = [p for k in found.kernels for p in (k.parts if isinstance(k, Bundle) else (k,))]
    return [p.name for p in parts if any(w.buffer == buffer for w in p.writes)]


# --- state -------------------------------------------------------------------------------------------------------


def test_new_state_is_written_into_its_own_buffer() -> None:
    graph, state = stateful({"w": (4, 5)}, lambda w: ([], {"w": w * 0.5 + 1}))
    found = plan(graph)
    (kernel,) = found.kernels
    assert isinstance(kernel, KernelSpec) and [w.buffer for w in kernel.writes] == ["state.w"]
    assert [b.name for b in found.buffers] == ["state.w"]
    check(graph, {}, state)


def test_a_reader_of_old_state_runs_before_its_writer() -> None:
    def step(w: Value) -> tuple[list[Value], dict[str, Value]]:
        new = w * 2
        return [apply("sum", apply("matmul", w, w) + apply("permute", new, axes=(1, 0)), axes=(0,))], {"w": new}

    check(*_with_no_inputs(stateful({"w": (6, 6)}, step)))


def _with_no_inputs(found: tuple[Graph, dict[str, np.ndarray]]) -> tuple[Graph, dict, dict[str, np.ndarray]]:
    return found[0], {}, found[1]


STEPS: dict[str, tuple[dict[str, tuple[int, ...]], Callable[..., tuple[list[Value], dict[str, Value]]]]] = {
    "states that swap": ({"a": (5,), "b": (5,)}, lambda a, b: ([], {"a": b, "b": a})),
    "states that rotate": ({"a": (5,), "b": (5,), "c": (5,)}, lambda a, b, c: ([a], {"a": b, "b": c, "c": a})),
    "states that swap and change": ({"a": (5,), "b": (5,)}, lambda a, b: ([], {"a": b + 1, "b": a * 2})),
    "old state as output": ({"a": (5,)}, lambda a: ([a], {"a": a + 1})),
    "a view of old state as output": ({"a": (3, 4)}, lambda a: ([apply("permute", a, axes=(1, 0))], {"a": a + 1})),
    "elements of old state that must move as output": (
        {"a": (3, 4)},
        lambda a: ([apply("reshape", apply("permute", a, axes=(1, 0)), shape=(12,))], {"a": a + 1})),
    "new state as output": ({"a": (5,)}, lambda a: ([new := a + 1, new], {"a": new})),
    "a view of new state as output": (
        {"a": (3, 4)}, lambda a: ([apply("permute", new := a + 1, axes=(1, 0))], {"a": new})),
    "one new value of two states": ({"a": (5,), "b": (5,)}, lambda a, b: ([], {"a": (new := a + b), "b": new})),
    "a state turned round": ({"a": (4, 4)}, lambda a: ([], {"a": apply("permute", a, axes=(1, 0))})),
    "a state turned round and changed": (
        {"a": (4, 4)}, lambda a: ([], {"a": apply("permute", a, axes=(1, 0)) + a * 2})),
    "a view of another state that changes": (
        {"a": (3, 4), "b": (4, 3)}, lambda a, b: ([], {"a": a + 1, "b": apply("permute", a, axes=(1, 0))})),
    "elements of another state that must move": (
        {"a": (3, 4), "b": (12,)},
        lambda a, b: ([], {"a": a + 1, "b": apply("reshape", apply("permute", a, axes=(1, 0)), shape=(12,))})),
    "another state as it was": ({"a": (5,), "b": (5,)}, lambda a, b: ([], {"a": a + 1, "b": a})),
    "another state as it will be": ({"a": (5,), "b": (5,)}, lambda a, b: ([b], {"b": (new := a + 1), "a": new * b})),
    "part of itself": (
        {"a": (6,)}, lambda a: ([], {"a": apply("concat", apply("slice", a, start=(3,), stop=(6,), step=(1,)),
                                                apply("slice", a, start=(0,), stop=(3,), step=(1,)), axis=0)})),
    "shifted": (
        {"a": (6,)}, lambda a: ([], {"a": apply("pad", apply("slice", a, start=(0,), stop=(5,), step=(1,)),
                                                low=(1,), high=(0,), step=(1,), value=9)})),
    "a product with itself": ({"a": (4, 4)}, lambda a: ([], {"a": apply("matmul", a, a)})),
    "the greatest of its neighbours": (
        {"a": (1, 3, 5, 5)}, lambda a: ([], {"a": apply("max_pool2d", a, kernel=(3, 3), stride=(1, 1),
                                                        padding=(1, 1))[0]})),
    "normalised by its sum": (
        {"a": (40, 3)}, lambda a: ([], {"a": a / apply("sum", a * a, axes=(0,), keepdims=True)})),
    "unchanged": ({"a": (5,)}, lambda a: ([], {"a": a})),
    "constant": ({"a": (2,)}, lambda a: ([], {"a": constant(np.array([1, 2]), F32)})),
    "the same number everywhere": ({"a": (2, 3)}, lambda a: ([], {"a": apply("broadcast_to", constant(3.0, F32),
                                                                             shape=(2, 3))})),
    "unused": ({"a": (5,), "b": (2,)}, lambda a, b: ([b + 1], {})),
}  # fmt: skip


@pytest.mark.parametrize("what", STEPS)
def test_state(what: str) -> None:
    graph, state = stateful(*STEPS[what])
    check(graph, {}, state)


def test_zeros_of_both_signs_are_two_constants() -> None:
    builder = Builder("signs")
    with builder:
        x = builder.input("x", TensorType((2,), F32))
        zero = apply("where", apply("gt", x, 0.0), 0.0, -0.0)
        inverse = apply("reciprocal", zero)
    check(builder.build([inverse]), {"x": np.array([1, -1], np.float32)})


def test_two_updates_in_a_row_use_the_new_state() -> None:
    graph, state = stateful({"w": (4, 5), "u": (5, 3)}, lambda w, u: ([apply("matmul", w, u)], {"w": w * 0.5}))
    store = cells(graph, state)
    runner = executor(graph, store)
    for factor in (1, 0.5, 0.25):
        np.testing.assert_allclose(runner.run({})[0], factor * state["w"] @ state["u"], rtol=1e-5)
    store["u"].write(2 * state["u"])
    np.testing.assert_allclose(runner.run({})[0], 0.25 * state["w"] @ state["u"], rtol=1e-5)


def test_what_depends_on_sizes_is_made_anew_for_other_sizes() -> None:
    """A kernel that reads state alone may run once for all calls; one that takes a dim may not."""
    b = dims.dim("B")
    builder = Builder("sized")
    with builder:
        x = builder.input("x", TensorType((b, 3), F32))
        w = builder.state_input("w", TensorType((3,), F32))
        scaled = w * apply("size", size=b, dtype=F32)
        rows = apply("exp", apply("broadcast_to", w, shape=(b, 3)))
        graph = builder.build([x + scaled, apply("matmul", apply("permute", rows, axes=(1, 0)), x), rows])
    check(graph, [{"x": array(n, 3)} for n in (4, 2, 4, 7)], {"w": array(3)})


# --- outputs -----------------------------------------------------------------------------------------------------


OUTPUTS: dict[str, Callable[[Value, Value], list[Value]]] = {
    "nothing": lambda x, y: [],
    "an input": lambda x, y: [x, x],
    "a view of an input": lambda x, y: [apply("permute", x, axes=(1, 0)), apply("broadcast_to", y, shape=(2, 3, 4))],
    "an input whose elements move": lambda x, y: [apply("reshape", apply("permute", x, axes=(1, 0)), shape=(6, 2))],
    "the same value twice": lambda x, y: [(z := x + y), z, apply("permute", z, axes=(1, 0))],
    "a value and what is made of it": lambda x, y: [(z := x + y), apply("exp", z), apply("sum", z, axes=(1,))],
    "constants": lambda x, y: [constant(2.5, F32), constant(np.arange(6).reshape(2, 3)), constant(True),
                               apply("broadcast_to", constant(1.5, F32), shape=(2, 2))],
    "indices": lambda x, y: [apply("iota", shape=(3, 2), axis=0), apply("iota", shape=(2, 3), axis=1, dtype=F32)],
    "unused inputs": lambda x, y: [y * 2],
    "dead code": lambda x, y: [y + 1] if apply("exp", x) is not None else [],
    "a reshape of what is computed": lambda x, y: [apply("reshape", apply("exp", x), shape=(2, 6))],
    "a moved reshape, twice, and used": lambda x, y: [
        (z := apply("reshape", apply("permute", x, axes=(1, 0)), shape=(6, 2))), z, apply("sum", z, axes=(0,))],
    "a scalar": lambda x, y: [apply("sum", x, axes=(0, 1)) * 2],
    "a slice backwards": lambda x, y: [apply("slice", x, start=(2, 0), stop=(-1, 4), step=(-1, 1))],
    "a slice of what is computed": lambda x, y: [apply("slice", x * 2, start=(0, 1), stop=(3, 4), step=(2, 1)) + 1],
    "a chain of moves": lambda x, y: [apply("concat", apply("pad", x, low=(0, 1), high=(1, 0), step=(1, 2)),
                                            constant(np.ones((2, 8)), F32), axis=0)],
}  # fmt: skip


@pytest.mark.parametrize("what", OUTPUTS)
def test_outputs(what: str) -> None:
    graph = trace(OUTPUTS[what], TensorType((3, 4), F32), TensorType((4,), F32))
    check(graph, {"x0": array(3, 4), "x1": array(4)})


def test_a_reshaped_result_is_written_where_it_belongs() -> None:
    reshaped = trace(OUTPUTS["a reshape of what is computed"], TensorType((3, 4), F32), TensorType((4,), F32))
    assert writers(plan(reshaped), "output.0") == ["exp"]

    def scaled(w: Value) -> tuple[list[Value], dict[str, Value]]:
        return [], {"w": apply("reshape", apply("reshape", w, shape=(3, 4)) * np.float32(2), shape=(12,))}

    graph, state = stateful({"w": (12,)}, scaled)
    assert writers(plan(graph, level=1), "state.w") == ["mul"]
    check(graph, {}, state)


def test_outputs_are_arrays_of_their_own() -> None:
    graph = trace(lambda x: [x, (y := x + 1), y], TensorType((3,), F32))
    x = array(3)
    found = executor(graph, {}).run([x])
    assert not any(np.shares_memory(a, b) for a in found for b in (x, *found) if a is not b)


# --- fusion ------------------------------------------------------------------------------------------------------


def test_a_chain_of_elementwise_ops_is_one_kernel() -> None:
    graph = trace(lambda x, y: apply("tanh", x * y + 1) * apply("exp", -x), *[TensorType((3, 4), F32)] * 2)
    assert len(plan(graph).kernels) == 1
    assert len(plan(graph, level=0).kernels) == 6
    check(graph, {"x0": array(3, 4), "x1": array(3, 4)})


def test_a_square_matrix_meets_its_transpose() -> None:
    """One read along both loops is not two reads along one loop."""
    graph = trace(lambda x: x + apply("permute", x, axes=(1, 0)), TensorType((5, 5), F32))
    (kernel,) = plan(graph).kernels
    assert [r.strides for r in kernel.reads] in ([(5, 1), (1, 5)], [(1, 5), (5, 1)])
    check(graph, {"x0": array(5, 5)})
    made = trace(lambda x: (y := apply("exp", x)) + apply("permute", y, axes=(1, 0)), TensorType((5, 5), F32))
    assert len(plan(made).kernels) == 2
    check(made, {"x0": array(5, 5)})


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_is_one_kernel(axis: int) -> None:
    graph = trace(lambda x: apply("softmax", x * 2, axis=axis), TensorType((4, 6, 5), F32))
    (kernel,) = plan(graph).kernels
    assert isinstance(kernel, KernelSpec) and len(kernel.reduced) == 1
    check(graph, {"x0": array(4, 6, 5)})


def test_bias_and_activation_are_the_epilogue_of_a_product() -> None:
    graph = trace(
        lambda x, w, b: apply("relu", apply("matmul", x, apply("permute", w, axes=(1, 0))) + b) * 2,
        TensorType((dims.dim("B"), 6), F32), TensorType((5, 6), F32), TensorType((5,), F32),
    )  # fmt: skip
    (kernel,) = plan(graph).kernels
    assert isinstance(kernel, KernelSpec) and kernel.core is not None and kernel.axes[1] == 5
    weights = {"x1": array(5, 6), "x2": array(5)}
    check(graph, [{"x0": array(n, 6), **weights} for n in (3, 40)])


def test_a_value_that_is_also_an_output_is_stored_by_the_epilogue() -> None:
    def layer(x: Value, w: Value) -> list[Value]:
        h = apply("matmul", x, w)
        return [h, apply("relu", h), apply("sum", apply("relu", h), axes=(0,))]

    graph = trace(layer, TensorType((7, 6), F32), TensorType((6, 5), F32))
    assert len(plan(graph).kernels) == 2
    check(graph, {"x0": array(7, 6), "x1": array(6, 5)})


def test_what_reads_a_result_in_memory_is_fused_with_its_own_readers() -> None:
    """Behind the product two more tensors would be written, for the sum to read again."""

    def sums(x: Value, w: Value, scale: Value, y: Value) -> list[Value]:
        product = apply("matmul", x, w)
        return [apply("sum", v, axes=(0,)) for v in (product, product * scale * y)]

    graph = trace(sums, *(TensorType(s, F32) for s in ((32, 16), (16, 24), (24,), (32, 24))))
    product, *_ = plan(graph).kernels
    assert isinstance(product, KernelSpec) and product.core is not None and len(product.writes) == 1
    check(graph, {"x0": array(32, 16), "x1": array(16, 24), "x2": array(24), "x3": array(32, 24)})


def test_the_gradient_of_a_norm_is_one_kernel_behind_the_product_that_it_comes_from() -> None:
    def gradients(x: Value, scale: Value, w: Value) -> list[Value]:
        mean, variance = apply("moments", x, axes=(0,))
        y = apply("standardise", x, mean, apply("rsqrt", variance + 1e-5) * scale)
        return list(apply("grad", apply("sum", apply("sin", apply("matmul", y, w)), axes=(0, 1)), x, scale))

    graph = trace(gradients, *(TensorType(s, F32) for s in ((32, 24), (1, 24), (24, 8))))
    *_, product, last = plan(graph).kernels
    assert isinstance(product, KernelSpec) and product.core is not None and len(product.writes) == 1
    assert isinstance(last, KernelSpec) and last.reduced == (0,) and len(last.writes) == 2
    assert sum(s.op == "reduce_sum" for s in last.body) == 2
    check(graph, {"x0": array(32, 24), "x1": array(1, 24), "x2": array(24, 8)})


def test_a_producer_in_the_way_is_not_fused_across() -> None:
    """x feeds both a sum and what uses the sum: there is no kernel that holds only the first and the last."""
    graph = trace(lambda x: (y := apply("exp", x)) / apply("matmul", y, y), TensorType((4, 4), F32))
    assert kernels(graph) == ["exp", "matmul_div_4x4x4"]
    check(graph, {"x0": array(4, 4)})


@pytest.mark.parametrize("channels", [1, 3])
def test_convolution_bias_activation_and_pool_are_one_kernel(channels: int) -> None:
    """A row-major image of several channels is first laid out channels-last; the flatten lays the result out again."""
    b = dims.dim("B")

    def features(x: Value, w: Value, bias: Value) -> Value:
        h = apply("relu", apply("conv2d", x, w, padding=(1, 1)) + apply("reshape", bias, shape=(1, 8, 1, 1)))
        return apply("reshape", apply("max_pool2d", h, kernel=(2, 2), stride=(2, 2))[0], shape=(b, 160))

    images = TensorType((b, channels, 8, 10), F32)
    graph = trace(features, images, TensorType((8, channels, 3, 3), F32), TensorType((8,), F32))
    *moves, kernel, flatten = plan(graph).kernels
    assert isinstance(kernel, KernelSpec) and isinstance(kernel.core, MaxPool2d) and kernel.core.source is not None
    assert [k.name for k in moves] == ([] if channels == 1 else ["copy"]) and flatten.name == "copy"
    weights = {"x1": array(8, channels, 3, 3), "x2": array(8)}
    check(graph, [{"x0": array(n, channels, 8, 10), **weights} for n in (1, 3)])


def test_long_reductions_are_cut_into_chunks() -> None:
    """A chunk is about 4096 elements; where the batch is symbolic, what lies inside it decides."""

    def sums(x: Value, y: Value) -> list[Value]:
        return [apply("sum", x * x, axes=(0, 2)) * 2, apply("max", x, axes=(0, 1, 2)), apply("sum", y, axes=(0,))]

    graph = trace(sums, TensorType((dims.dim("B"), 3, 96), F32), TensorType((20000, 2), F32))
    found = plan(graph).kernels
    assert [k.split for k in found if isinstance(k, KernelSpec)] == [42, None, 14, None, 4096, None]
    check(graph, [{"x0": array(n, 3, 96), "x1": array(20000, 2)} for n in (1, 14, 43, 500)])


# --- a whole training step -------------------------------------------------------------------------------------------


def training_step(image: int = 8, classes: int = 4) -> tuple[Graph, dict[str, np.ndarray]]:
    """One SGD step of a small convolutional network with momentum-free updates, and its state."""
    flat = 8 * (image // 4) ** 2
    shapes = {"conv1.weight": (6, 1, 3, 3), "conv1.bias": (6,), "conv2.weight": (8, 6, 3, 3), "conv2.bias": (8,),
              "fc.weight": (classes, flat), "fc.bias": (classes,)}  # fmt: skip
    builder = Builder("train_step")
    with builder:
        b = dims.dim("B")
        h = builder.input("x", TensorType((b, 1, image, image), F32))
        labels = builder.input("y", TensorType((b,), dtypes.i64))
        p = {n: builder.state_input(n, TensorType(s, F32)) for n, s in shapes.items()}
        for layer, channels in (("conv1", 6), ("conv2", 8)):
            h = apply("conv2d", h, p[f"{layer}.weight"], padding=(1, 1))
            h = apply("relu", h + apply("reshape", p[f"{layer}.bias"], shape=(1, channels, 1, 1)))
            h = apply("max_pool2d", h, kernel=(2, 2), stride=(2, 2))[0]
        h = apply("reshape", h, shape=(b, flat))
        logits = apply("matmul", h, apply("permute", p["fc.weight"], axes=(1, 0))) + p["fc.bias"]
        loss = apply("cross_entropy", logits, apply("check_index", labels, limit=classes), reduction="mean")
        gradients = apply("grad", loss, *p.values())
        updates = {n: v - g * 0.1 for (n, v), g in zip(p.items(), gradients, strict=True)}
    return builder.build([loss], updates), {n: 0.3 * array(*s) for n, s in shapes.items()}


def batch(n: int, image: int = 8, classes: int = 4) -> dict[str, np.ndarray]:
    random = np.random.default_rng(n)
    return {"x": random.normal(size=(n, 1, image, image)).astype(np.float32), "y": random.integers(0, classes, n)}


def test_images_are_channels_last_and_only_the_flatten_copies() -> None:
    """Once on the way in, and once on the way back for the gradient."""
    graph, _ = training_step()
    arranged = final(graph)
    by_op = {v.node.op.name: order for v, order in arranged.layouts.items()}
    assert by_op["conv2d"] == (0, 2, 3, 1)
    pooled = [n for n in arranged.nodes if n.op.name == "max_pool2d"]
    assert all(v in arranged.layouts for n in pooled for v in n.outputs)
    copied = [k.nodes for k in schedule(arranged).kernels if k.name == "copy"]
    reshapes = [n for n in arranged.nodes if n.op.name == "reshape"]
    flatten, back = (n for n in reshapes if {len(n.inputs[0].shape), len(n.output.shape)} == {2, 4})
    assert len(copied) == 2 and copied[0] == (flatten.inputs[0].node.name,) and copied[1] == (back.name,)


def test_joined_parts_are_written_where_they_belong() -> None:
    """By products and loops, through the views between; what lies elsewhere is copied, as what comes from outside."""

    def joined(x: Value, w: Value, y: Value) -> Value:
        product = apply("reshape", apply("matmul", x, w), shape=(4, 1, 5))
        turned = apply("permute", apply("exp", y), axes=(1, 0, 2))
        return apply("concat", product, y, apply("reshape", turned, shape=(4, 1, 5)), apply("neg", y), axis=1) + 1.0

    types = [TensorType(shape, F32) for shape in ((4, 5), (5, 5), (4, 1, 5))]
    graph = trace(joined, *types)
    made = plan(graph)
    assert [k.name for k in made.kernels].count("copy") == 1
    joined_in = {w.buffer for k in made.kernels if k.name in ("matmul", "exp", "neg") for w in k.writes}
    assert len(joined_in) == 1
    check(graph, {v.node.attrs["name"]: array(*v.shape) for v in graph.inputs}, levels=(2,))


def test_a_weight_gradient_alone_is_given_channels_last_images_too() -> None:
    def gradient(x: Value, dy: Value) -> Value:
        return apply("conv2d_weight_grad", x, dy, kernel_size=(3, 3), padding=(1, 1))

    arranged = final(trace(gradient, TensorType((2, 8, 6, 6), F32), TensorType((2, 4, 6, 6), F32)))
    (node,) = [n for n in arranged.nodes if n.op.name == "conv2d_weight_grad"]
    assert all(arranged.layouts[v] == (0, 2, 3, 1) for v in node.inputs)


def test_the_kernels_of_a_training_step() -> None:
    graph, _ = training_step()
    found = plan(graph).kernels
    assert found[0].name == "check_index"
    cores = [type(k.core) for k in found if isinstance(k, KernelSpec)]
    assert (cores.count(MaxPool2d), cores.count(MaxPool2dGrad), cores.count(ConvWeightGrad)) == (2, 2, 2)
    assert all(len(writers(plan(graph), f"state.{n}")) == 1 for n in graph.updates)


@pytest.mark.slow
def test_a_training_step_matches_the_reference_at_every_level() -> None:
    graph, state = training_step()
    check(graph, [batch(5), batch(1), batch(33)], state)


def test_independent_updates_are_bundled() -> None:
    shapes = {f"w{i}": (i + 1, 3) for i in range(5)}
    graph, state = stateful(shapes, lambda *ws: ([], {f"w{i}": w * 0.5 for i, w in enumerate(ws)}))
    (bundle,) = plan(graph).kernels
    assert isinstance(bundle, Bundle) and len(bundle.parts) == 5
    check(graph, {}, state, levels=[2])


def test_a_failed_step_leaves_state_as_it_was() -> None:
    graph, state = training_step()
    store = cells(graph, state)
    runner = executor(graph, store)
    wrong = batch(5)
    wrong["y"][3] = 4
    with pytest.raises(IndexRangeError, match="index 4 is out of range: expected 0 <= index < 4"):
        runner.run(wrong)
    for name, cell in store.items():
        np.testing.assert_array_equal(cell.array, state[name])
    runner.run(batch(5))
    assert all(np.any(cell.array != state[name]) for name, cell in store.items())


@pytest.mark.parametrize("level", [0, 2])
def test_a_check_of_new_state_fails_before_it_is_written(level: int) -> None:
    builder = Builder("counter")
    with builder:
        position = builder.state_input("position", TensorType((), dtypes.i64))
        total = builder.state_input("total", TensorType((), F32))
        new = position + 1
        graph = builder.build(
            [apply("check_index", new, limit=3)], {"position": new, "total": total + apply("cast", new, dtype=F32)}
        )
    store = cells(graph, {"position": np.array(0), "total": np.array(0.0)})
    runner = executor(graph, store, level)
    assert [int(runner.run({})[0]) for _ in range(2)] == [1, 2]
    with pytest.raises(IndexRangeError):
        runner.run({})
    assert (int(store["position"].array), float(store["total"].array)) == (2, 3.0)


# --- the program ---------------------------------------------------------------------------------------------------


def test_packing_of_weights_that_do_not_change_leaves_the_step() -> None:
    builder = Builder("predict")
    with builder:
        x = builder.input("x", TensorType((dims.dim("B"), 64), F32))
        w = builder.state_input("w", TensorType((48, 64), F32))
        product = apply("matmul", x, apply("permute", w, axes=(1, 0)))
        frozen, training = builder.build([product]), builder.build([product], {"w": w * 0.5})
    assert len(program(frozen).prepare) == 1 and len(program(frozen).main) == 1
    assert not program(training).prepare
    check(frozen, {"x": array(9, 64)}, {"w": array(48, 64)}, levels=[2])
    check(training, {"x": array(9, 64)}, {"w": array(48, 64)}, levels=[2])


def test_every_stage_can_be_seen() -> None:
    graph, _ = stateful({"w": (4,)}, lambda w: ([], {"w": w * 0.5}))
    seen: list[str] = []
    compile_graph(graph, target(), lower, DEFAULT, lambda name, stage: seen.append(name))
    assert seen[-3:] == ["fuse", "schedule", "program"]
    assert seen.index("autodiff") < seen.index("decompose") < seen.index("layout")


def test_lifetimes_cover_every_use_of_a_temporary() -> None:
    graph, _ = training_step()
    found = program(graph)
    temporary = {b.name for b in found.buffers if b.kind == "temp"}
    for step, call in enumerate(found.main):
        for name in temporary.intersection((*call.reads, *call.writes)):
            first, last = found.lifetimes[name]
            assert first <= step <= last
    assert found.lifetimes.keys() <= temporary


_TWO_STEPS = """
import hashlib, sys
sys.path[:0] = sys.argv[1:]
from compiled import cells, executor
from test_passes import batch, training_step
graph, state = training_step()
store = cells(graph, state)
runner = executor(graph, store)
losses = [runner.run(batch(n))[0] for n in (67, 67, 5)]
sha = hashlib.sha256(b"".join(a.tobytes() for a in (*losses, *(store[n].array for n in sorted(store)))))
print(sha.hexdigest())
"""


@pytest.mark.slow
def test_results_are_the_same_bits_for_every_number_of_threads() -> None:
    tests = Path(__file__).resolve().parent
    found = set()
    for threads in ("1", "2", "3"):
        environment = {**os.environ, "TENON_THREADS": threads}
        command = [sys.executable, "-c", _TWO_STEPS, str(tests), str(tests.parent)]
        found.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(found) == 1


def test_a_detour_is_any_path_but_the_edge():
    """Precedence against networkx, while clusters merge."""
    rng = np.random.default_rng(0)
    for size in (4, 9, 25):
        order, dag = Precedence(), nx.gnp_random_graph(size, 2.5 / size, seed=size, directed=True)
        dag.remove_edges_from([(a, b) for a, b in dag.edges if a >= b])
        for n in dag.nodes:
            order.add(n)
        for a, b in dag.edges:
            order.connect(a, b)
        while dag.edges:
            a, b = list(dag.edges)[rng.integers(len(dag.edges))]
            expected = any(nx.has_path(dag, n, b) for n in dag.successors(a) if n != b)
            assert order.detour(a, b) == expected
            if expected:
                dag.remove_edge(a, b)
                order = Precedence()
                for n in dag.nodes:
                    order.add(n)
                for c, d in dag.edges:
                    order.connect(c, d)
            else:
                nx.contracted_nodes(dag, a, b, self_loops=False, copy=False)
                order.contract(a, b)


@pytest.mark.parametrize(("rows", "cut"), [((2000,), True), ((8, 250), True), ((400,), False)], ids=str)
def test_sums_of_columns_leave_rows_with_who_wrote_them(rows: tuple[int, ...], cut: bool) -> None:
    """Chunks of rows are added up, then what has come of them; sums along rows are not cut before they are long."""
    shape, axes = (*rows, 24), tuple(range(len(rows)))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    columns = trace(lambda x: apply("sum", x * x, axes=axes), TensorType(shape, dtypes.f32))
    assert kernels(columns) == (["square_sum_partial", "square_sum"] if cut else ["square_sum"])
    check(columns, {"x0": x}, levels=[2])
    along = trace(lambda x: apply("sum", x, axes=(0,)), TensorType((2000,), dtypes.f32))
    assert kernels(along) == ["sum"]

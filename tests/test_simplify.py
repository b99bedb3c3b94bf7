"""Every rule, by the graph it leaves and by its values; what must not change; and how rules are written."""

from __future__ import annotations

import numpy as np
import pytest
from graph_tools import ops, tensor, trace

from engine import dims, dtypes
from engine.errors import UnsupportedError
from engine.graph import Builder, TensorType, apply, constant
from engine.interpreter import run
from engine.op import Op
from engine.schedule import Target
from engine.verify import verify
from passes.decompose import decompose
from passes.simplify import relax, remove_dead, simplify, simplify_with_report
from passes.simplify.casts import holds
from passes.simplify.patterns import Number, number_of

SPECIAL = np.array([0.0, -0.0, 1.0, -1.5, 3.25, np.inf, -np.inf, np.nan, 1e-45, 3e38, -7.0, 0.1], np.float32)
B = dims.dim("B")
POOL = {"kernel": (2, 2), "stride": (2, 2)}


def sample(type_: TensorType, seed: int) -> np.ndarray:
    """An array full of special values (floats) or of all kinds of bits (integers). Dims are 3."""
    shape = tuple(dims.evaluate(s, {"B": 3, "C": 3}) for s in type_.shape)
    rng = np.random.default_rng(seed)
    if type_.dtype.is_float:
        return rng.choice(SPECIAL, shape).astype(type_.dtype.numpy)
    if type_.dtype == dtypes.bool_:
        return rng.random(shape) < 0.5
    info = np.iinfo(type_.dtype.numpy)
    return rng.integers(info.min, info.max, shape, type_.dtype.numpy, endpoint=True)


def c(number, dtype=dtypes.f32):
    return constant(number, dtype)


def view(x, *shape):
    return apply("reshape", x, shape=shape)


def spread(x, *shape):
    return apply("broadcast_to", x, shape=shape)


def padded(x, low, high, value=0):
    """``x`` with so many columns before and after it."""
    return apply("pad", x, low=(0, low), high=(0, high), step=(1, 1), value=value)


def turn(x, *axes):
    return apply("permute", x, axes=axes)


def cast(x, *names):
    for name in names:
        x = apply("cast", x, dtype=dtypes.as_dtype(name))
    return x


F34 = (tensor(3, 4),)
I34 = (tensor(3, 4, dtype="i32"),)
U34 = (tensor(3, 4, dtype="u8"),)

# function, types of its arguments, ops that remain, a rule that must have been used (None: nothing may change)
CASES = {
    "add_zero": (lambda x: x + 0, F34, [], "x + 0"),
    "zero_add": (lambda x: 0 + x, I34, [], "x + 0"),
    "add_zeros": (lambda x: x + spread(c(0.0), 3, 4), F34, [], "broadcast into elementwise"),
    "sub_zero": (lambda x: x - 0, F34, [], "x - 0"),
    "zero_sub": (lambda x: 0 - x, F34, ["sub"], None),
    "mul_one": (lambda x: x * 1, F34, [], "x * 1"),
    "mul_one_promotes": (lambda x: x * c(1.0, dtypes.f64), F34, ["mul"], None),
    "div_one": (lambda x: x / 1, F34, [], "x / 1"),
    "div_one_of_integers": (lambda x: x / 1, I34, ["div"], None),
    "mul_zero_float": (lambda x: x * 0, F34, ["mul"], None),
    "mul_zero_integer": (lambda x: x * 0, I34, ["broadcast_to"], "x * 0 of integers"),
    "neg_neg": (lambda x: apply("neg", apply("neg", x)), F34, [], "--x"),
    "add_neg": (lambda x, y: x + -y, F34 * 2, ["sub"], "x + -y"),
    "neg_add": (lambda x, y: -x + y, F34 * 2, ["sub"], "x + -y"),
    "sub_neg": (lambda x, y: x - -y, U34 * 2, ["add"], "x - -y"),
    "add_neg_of_narrower": (lambda x, y: x + -y, I34 + U34, ["neg", "add"], None),
    "neg_of_scaled": (lambda x: -(x * 3), F34, ["mul"], "-(x * c)"),
    "scaled_neg": (lambda x: -x * 3, F34, ["mul"], "-x * c"),
    "scaled_up_twice": (lambda x: x * 4 * 8, F34, ["mul"], "x * c * d"),
    "scaled_by_minus_one": (lambda x: x * 0.1 * -1, F34, ["mul"], "x * c * d"),
    "scaled_inexactly": (lambda x: x * 3 * 0.1, F34, ["mul", "mul"], None),
    "scaled_down_twice": (lambda x: x * 0.5 * 0.25, F34, ["mul", "mul"], None),
    "scaled_up_to_infinity": (lambda x: x * 2.0**100 * 2.0**100, F34, ["mul", "mul"], None),
    "integers_scaled_twice": (lambda x: x * 100_000 * 100_000, I34, ["mul"], "x * c * d"),
    "divided_by_power_of_two": (lambda x: x / 8, F34, ["mul"], "x / 2**n"),
    "divided_by_three": (lambda x: x / 3, F34, ["div"], None),
    "divided_by_zero": (lambda x: x / 0, F34, ["div"], None),
    "times_itself": (lambda x: x * x, F34, ["square"], "x * x"),
    "bools_times_themselves": (lambda x: x * x, (tensor(5, dtype="bool"),), ["mul"], None),
    "power_one": (lambda x: apply("pow", x, 1), F34, [], "x ** 1"),
    "power_two": (lambda x: apply("pow", x, 2), F34, ["square"], "x ** 2"),
    "power_half": (lambda x: apply("pow", x, 0.5), F34, ["pow"], None),
    "where_same": (lambda x: apply("where", apply("gt", x, 0), x, x), F34, [], "where(c, x, x)"),
    "not_not": (lambda x: apply("not_", apply("not_", x)), (tensor(5, dtype="bool"),), [], "not not x"),
    "not_less": (lambda x, y: apply("not_", apply("lt", x, y)), F34 * 2, ["lt", "not_"], None),
    "relu_relu": (lambda x: apply("relu", apply("relu", x)), F34, ["relu"], "relu(relu(x))"),
    "sub_itself": (lambda x: x - x, F34, ["sub"], None),
    "cast_same": (lambda x: cast(x, "f32"), F34, [], "cast to the same dtype"),
    "cast_wider_and_back": (lambda x: cast(x, "f64", "f32"), F34, [], "cast of cast"),
    "cast_narrower_and_back": (lambda x: cast(x, "f16", "f32"), F34, ["cast", "cast"], None),
    "cast_through_wider": (lambda x: cast(x, "i64", "f32"), U34, ["cast"], "cast of cast"),
    "cast_through_inexact": (lambda x: cast(x, "f32", "f64"), I34, ["cast", "cast"], None),
    "cast_out_of_range": (lambda x: cast(x, "f32", "i8"), U34, ["cast", "cast"], None),
    "identity": (lambda x: apply("identity", x), F34, [], "identity"),
    "detach": (lambda x: apply("detach", x), F34, [], "detach"),
    "reshape_same": (lambda x: view(x, 3, 4), F34, [], "reshape to the same shape"),
    "reshape_reshape": (lambda x: view(view(x, 12), 2, 6), F34, ["reshape"], "reshape of reshape"),
    "reshape_back": (lambda x: view(view(x, 12), 3, 4), F34, [], "reshape of reshape"),
    "permute_same": (lambda x: turn(x, 0, 1), F34, [], "permute nothing"),
    "permute_permute": (
        lambda x: turn(turn(x, 1, 2, 0), 0, 2, 1),
        (tensor(2, 3, 4),), ["permute"], "permute of permute",
    ),
    "permute_back": (lambda x: turn(turn(x, 1, 2, 0), 2, 0, 1), (tensor(2, 3, 4),), [], "permute of permute"),
    "broadcast_same": (lambda x: spread(x, 3, 4), F34, [], "broadcast to the same shape"),
    "broadcast_twice": (
        lambda x: spread(spread(x, 3, 4), 2, 3, 4),
        (tensor(4),), ["broadcast_to"], "broadcast of broadcast",
    ),
    "slice_all": (lambda x: apply("slice", x, start=(0, 0), stop=(3, 4), step=(1, 1)), F34, [], "slice of everything"),
    "slice_reversed": (lambda x: apply("slice", x, start=(2, 0), stop=(-1, 4), step=(-1, 1)), F34, ["slice"], None),
    "pad_none": (lambda x: apply("pad", x, low=(0, 0), high=(0, 0), step=(1, 1)), F34, [], "pad nothing"),
    "pad_symbolic": (
        lambda x: apply("pad", x, low=(0,), high=(B,), step=(1,)), (tensor("B"),), ["pad"], None,
    ),
    "pads_that_meet": (
        lambda x, y, z: padded(x, 0, 4) + padded(y, 4, 0) + padded(z, 3, 3),
        (tensor(3, 3), tensor(3, 3), tensor(3, 1)), ["concat"], "pads in a sum",
    ),
    "pads_that_meet_halfway": (
        lambda x, y: padded(x, 3, 4) + padded(y, 0, 8),
        (tensor("B", 4), tensor("B", 3)), ["concat", "pad"], "sum of pads",
    ),
    "pads_between_others": (
        lambda x, y, z: (padded(x, 4, 0) + z) + padded(y, 0, 3),
        (tensor(2, 3), tensor(2, 4), tensor(2, 7)), ["concat", "add"], "pads in a sum",
    ),
    "pads_that_overlap": (
        lambda x, y: padded(x, 0, 4) + padded(y, 2, 2), (tensor(3, 4), tensor(3, 4)), ["pad", "pad", "add"], None,
    ),
    "pads_of_ones": (
        lambda x, y: padded(x, 0, 4, 1) + padded(y, 4, 0), F34 * 2, ["pad", "pad", "add"], None,
    ),
    "pads_along_two_axes": (
        lambda x, y: apply("pad", x, low=(3, 0), high=(0, 4), step=(1, 1))
        + apply("pad", y, low=(0, 4), high=(3, 0), step=(1, 1)),
        F34 * 2, ["pad", "pad", "add"], None,
    ),
    "concat_concat": (
        lambda x: apply("concat", x, apply("concat", x, x, axis=1), x, axis=1), F34, ["concat"], "concat of concat",
    ),
    "concat_concat_across": (
        lambda x, y: apply("concat", apply("concat", x, y, axis=0), apply("concat", y, x, axis=0), axis=1),
        F34 * 2, ["concat", "concat", "concat"], None,
    ),
    "concat_one": (lambda x: apply("concat", x, axis=1), F34, [], "concat of one"),
    "view_of_number": (lambda x: x + turn(spread(c(2.0), 4, 3), 1, 0), F34, ["add"], "view of one number"),
    "sum_of_size_one": (lambda x: apply("sum", x, axes=(1,)), (tensor(3, 1, 4),), ["reshape"], "reduction of size 1"),
    "sum_of_bools": (lambda x: apply("sum", x, axes=(0,)), (tensor(1, dtype="bool"),), ["sum"], None),
    "mean_of_size_one": (
        lambda x: apply("mean", x, axes=(0,), keepdims=True),
        (tensor(1, 4),), [], "reduction of size 1",
    ),
    "broadcast_operand": (
        lambda x, y: x + spread(y, 3, 4),
        (tensor(3, 4), tensor(4)), ["add"], "broadcast into elementwise",
    ),
    "broadcast_operands": (
        lambda x, y: spread(x, 3, 4) * spread(y, 3, 4), (tensor(4), tensor(4)),
        ["mul", "broadcast_to"], "broadcast into elementwise",
    ),
    "literal_of_one_number": (lambda x: x * c(np.full((3, 4), 2.5)), F34, ["mul"], "broadcast into elementwise"),
    "folding": (lambda x: x + apply("exp", c([1.0, 2.0, 3.0, 4.0])) * 2.0, F34, ["add"], "constant folding"),
    "folding_too_large": (
        lambda x: x + apply("exp", c(np.arange(1000.0))), (tensor(1000),), ["exp", "add"], None,
    ),
    "common": (
        lambda x, y: apply("exp", x + y) / apply("exp", y + x),
        F34 * 2, ["add", "exp", "div"], "common subexpression",
    ),
    "not_common": (lambda x: (x + 0.5) / (x - 0.5), F34, ["add", "sub", "div"], None),
    "transposed_product": (
        lambda x, y: turn(apply("matmul", x, y), 1, 0), (tensor(2, 3), tensor(3, 4)),
        ["permute", "permute", "matmul"], "transposed product",
    ),
    "pool_of_relu": (
        lambda x: apply("max_pool2d", apply("relu", x), **POOL)[0], (tensor(2, 3, 6, 4),),
        ["max_pool2d", "relu"], "max pool before a monotone function",
    ),
    "pool_of_cos": (
        lambda x: apply("max_pool2d", apply("cos", x), **POOL)[0], (tensor(2, 3, 6, 4),), ["cos", "max_pool2d"], None,
    ),
    "pool_of_relu_with_positions": (
        lambda x: apply("max_pool2d", apply("relu", x), **POOL), (tensor(2, 3, 6, 4),), ["relu", "max_pool2d"], None,
    ),
    "pool_dilated": (
        lambda x: apply("max_pool2d", apply("relu", x), dilation=(2, 2), **POOL)[0], (tensor(2, 3, 6, 4),),
        ["relu", "max_pool2d"], None,
    ),
    "symbolic": (lambda x: view(view(x, B * 4), B, 4) * 1, (tensor("B", 4),), [], "reshape of reshape"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule(name):
    function, types, remaining, rule = CASES[name]
    graph = trace(function, *types)
    simple, report = simplify_with_report(graph)
    assert ops(simple) == remaining
    if rule is None:
        assert ops(graph) == remaining
    else:
        assert report[rule] > 0
    assert [v.type for v in simple.outputs] == [v.type for v in graph.outputs]
    arrays = [sample(t, i) for i, t in enumerate(types)]
    for before, after in zip(run(graph, arrays)[0], run(verify(simple), arrays)[0], strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(after, before)


def test_a_value_with_other_users_is_not_recomputed():
    def pool_and_more(x):
        h = apply("relu", x)
        return apply("max_pool2d", h, **POOL)[0], h

    def product_and_more(x, y):
        h = apply("matmul", x, y)
        return turn(h, 1, 0), h

    assert ops(simplify(trace(pool_and_more, tensor(1, 1, 4, 4)))) == ["relu", "max_pool2d"]
    assert ops(simplify(trace(product_and_more, tensor(2, 3), tensor(3, 4)))) == ["matmul", "permute"]


def test_constants_are_common_by_content_to_the_bit():
    def function(x):
        return [x + n for n in (1.0, 1.0, 2.0)] + [x / 0.0, x / -0.0]

    found = simplify(trace(function, tensor(3)))
    assert ops(found) == ["add", "add", "div", "div"]
    assert found.outputs[0] is found.outputs[1]


def test_attributes_of_other_types_are_not_common():
    def function(x):
        return [apply("pad", x, low=(1,), high=(0,), step=(1,), value=v) for v in (0.0, -0.0, 0.0)]

    assert ops(simplify(trace(function, tensor(3)))) == ["pad", "pad"]


def test_random_ops_are_common_by_stream():
    def function(seed, step):
        return [apply("random_uniform", seed, step, stream=s, shape=(4,)) for s in (0, 1, 0)]

    found = simplify(trace(function, tensor(dtype="i64"), tensor(dtype="i64")))
    assert [n.attrs["stream"] for n in found.nodes] == [0, 1]
    assert found.outputs[0] is found.outputs[2]


def test_checks_stay_when_nobody_reads_them_and_merge_when_equal():
    def function(x):
        for limit in (10, 20, 10):
            apply("check_index", x, limit=limit)
        apply("exp", x)
        return x

    found = simplify(trace(function, tensor(3, dtype="i64")))
    assert [n.attrs.get("limit") for n in found.nodes] == [10, 20]


def test_relaxed_rules_round_otherwise_and_only_where_reciprocals_hold():
    def quotients(x, y):
        few = apply("div", x, y)
        return few, apply("div", few, c(3.0)), apply("div", x, c(1e-40)), apply("mul", apply("mul", x, c(0.3)), c(0.7))

    graph = trace(quotients, tensor(5, 7), tensor(5, 1))
    relaxed = relax(graph)
    assert ops(relaxed).count("div") == 1 and ops(relaxed).count("reciprocal") == 1
    assert ops(relaxed).count("mul") == 3
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.5, 2, (5, n)).astype(np.float32) for n in (7, 1)]
    for exact, near in zip(run(graph, arrays)[0], run(relaxed, arrays)[0], strict=True):
        np.testing.assert_allclose(near, exact, rtol=4 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("from_state", [True, False])
def test_numbers_of_the_state_scale_and_shift_once(from_state):
    builder = Builder()
    with builder:
        x = builder.input("x", tensor(5, 7))
        make = builder.state_input if from_state else builder.input
        m, r, w, b = (make(name, tensor(7)) for name in "mrwb")
        centred = apply("mul", apply("sub", x, m), apply("rsqrt", r))
        graph = builder.build([apply("add", apply("mul", centred, w), b)], {})
    found = simplify(graph)
    whole = [n.op.name for n in found.nodes if n.op.kind == "elementwise" and n.output.shape == (5, 7)]
    assert whole == (["mul", "add"] if from_state else ["sub", "mul", "mul", "add"])
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(5, 7)).astype(np.float32)}
    numbers = {name: rng.uniform(0.5, 2, 7).astype(np.float32) for name in "mrwb"}
    given = (inputs, numbers) if from_state else (inputs | numbers, {})
    np.testing.assert_allclose(run(found, *given)[0][0], run(graph, *given)[0][0], rtol=1e-5, atol=1e-5)


def test_dead_code_keeps_what_state_needs():
    builder = Builder()
    with builder:
        w = builder.state_input("w", tensor(3))
        apply("exp", w)
        graph = builder.build([], {"w": w * 2.0})
    assert ops(remove_dead(graph)) == ["mul"]
    assert ops(simplify(graph)) == ["mul"]


def test_values_that_grad_differentiates_by_keep_their_identity():
    """y = a * b with a equal to b: dy/da is b. Merged, it would be 2 a; looked through, nothing."""

    def merged(x):
        a, b = x + 1.0, x + 1.0
        return apply("grad", apply("sum", a * b, axes=(0,)), a)

    def looked_through(x):
        a = view(x, 2, 2)
        return apply("grad", apply("sum", view(a, 4), axes=(0,)), a)

    found = simplify(trace(merged, tensor(3)))
    assert ops(found) == ["add", "add", "mul", "sum", "grad"]
    assert ops(simplify(trace(looked_through, tensor(4)))) == ["reshape", "reshape", "sum", "grad"]


def test_detach_stays_until_gradients_are_expanded():
    def function(x):
        return apply("grad", apply("sum", x * apply("detach", x), axes=(0,)), x)

    assert "detach" in ops(simplify(trace(function, tensor(3))))


def test_simplify_returns_a_simple_graph_as_it_is():
    graph = simplify(trace(lambda x: apply("exp", x) + 2.0, tensor(3)))
    assert simplify(graph) is graph
    assert simplify_with_report(graph)[1] == {}


def test_kept_nodes_keep_their_names_and_source_lines():
    graph = trace(lambda x: apply("exp", x * 1) + 2.0, tensor(3))
    before = {n.name: n.location for n in graph.nodes}
    after = {n.name: n.location for n in simplify(graph).nodes}
    assert len(after) == 3
    assert after.items() <= before.items()


NUMPY_DTYPES = [d for d in dtypes.ALL if d.name != "bf16"]


@pytest.mark.parametrize("wide", NUMPY_DTYPES, ids=str)
@pytest.mark.parametrize("narrow", NUMPY_DTYPES, ids=str)
def test_a_dtype_holds_another_where_every_value_survives(wide, narrow):
    if narrow.is_float:
        limits = np.finfo(narrow.numpy)
        values = np.array([0.1, -limits.max, limits.max, limits.smallest_subnormal], narrow.numpy)
    elif narrow == dtypes.bool_:
        values = np.array([False, True])
    else:
        limits = np.iinfo(narrow.numpy)
        values = np.array([limits.min, limits.min + 1, limits.max - 1, limits.max], narrow.numpy)
    with np.errstate(all="ignore"):
        there = values.astype(wide.numpy)
    exact = float if narrow.is_float else lambda x: int(x) if np.isfinite(x) else None
    assert holds(wide, narrow) == all(exact(a) == exact(b) for a, b in zip(values, there, strict=True))


def test_a_number_is_known_through_broadcasts_and_to_the_bit():
    with Builder():
        assert number_of(spread(c(0.5), 3)) == 0.5
        assert np.isnan(number_of(c([np.nan, np.nan])))
        assert number_of(c([0.0, -0.0])) is None
        assert number_of(c(np.zeros((0,)))) is None
        assert number_of(apply("exp", c(0.0))) is None
        value = c(2.0)
        assert number_of(value, {value}) is None
    assert Number("n", lambda n: n > 1).test(2)


# --- decompose ---------------------------------------------------------------------------------------------------


def test_composites_decompose_unless_claimed():
    graph = trace(lambda x: apply("softmax", x, axis=1), tensor("B", 4))
    assert ops(decompose(graph, Target("cpu", frozenset({"softmax"})))) == ["softmax"]
    parts = decompose(graph, Target("cpu", frozenset()))
    assert ops(parts) == ["max", "sub", "exp", "sum", "reciprocal", "mul"]
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(run(parts, [x])[0][0], run(graph, [x])[0][0], rtol=1e-6)
    assert {n.location for n in parts.nodes} == {graph.nodes[0].location}


def test_an_op_that_nobody_runs_is_named():
    orphan = Op("orphan", "composite", ("x",), lambda x: x)
    builder = Builder()
    with builder:
        x = builder.input("x", tensor(3, dtype="f64"))
        graph = builder.build(builder.add(orphan, (x,), {}))
    with pytest.raises(UnsupportedError, match="backend tiny has no kernel for orphan of f64.*\n.*test_simplify.py:"):
        decompose(graph, Target("tiny", frozenset()))

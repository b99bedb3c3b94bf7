"""F.cond: JAX's meaning. One branch runs, results and gradients are that branch's, whatever the other would do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tenon as tn
from engine.errors import DTypeError, IndexRangeError, ShapeError, TraceError
from engine.program_json import from_json, to_json
from engine.text import parse, structurally_equal
from tenon import F, nn, optim

X, W = np.linspace(0.5, 2, 6, dtype=np.float32).reshape(2, 3), np.full((3, 4), 0.5, np.float32)
TARGETS = ("reference", pytest.param("cpu", marks=pytest.mark.slow))
both_targets = pytest.mark.parametrize("target", TARGETS)


def logarithms(x, w):
    return F.cond((x > 0).all(), lambda x: tn.log(x @ w).sum(), lambda x: (x * 2).sum() + w.sum(), x)


@both_targets
def test_value_and_gradients_are_those_of_the_branch_that_ran(target):
    exe = tn.compile(tn.value_and_grad(logarithms, (0, 1)), tn.spec("B", 3), tn.spec(3, 4), target=target)
    value, (dx, dw) = exe(X, W)
    assert np.allclose(value, np.log(X @ W).sum(), rtol=1e-6)
    assert np.allclose(dx, (1 / (X @ W)) @ W.T, rtol=1e-5) and np.allclose(dw, X.T @ (1 / (X @ W)), rtol=1e-5)
    value, (dx, dw) = exe(-X, W)  # where the logarithm is NaN, and so is its gradient
    assert np.allclose(value, -2 * X.sum() + W.sum(), rtol=1e-6)
    assert np.array_equal(dx, np.full_like(X, 2)) and np.array_equal(dw, np.ones_like(W))


@both_targets
def test_the_second_gradient(target):
    def curvature(x):
        def slope(x):
            return tn.grad(lambda x: F.cond(x.sum() > 0, lambda: (x**3).sum(), lambda: x.sqrt().sum()))(x).sum()

        return tn.grad(slope)(x)

    exe = tn.compile(curvature, tn.spec(3), target=target)
    x = np.array([1, 2, 3], np.float32)
    assert np.allclose(exe(x), 6 * x) and np.isnan(exe(-x)).all()


@both_targets
def test_conditions_inside_branches(target):
    def sign(x):
        def not_positive():
            return F.cond(x < 0, lambda: (-x * 3, tn.tensor(-1.0)), lambda: (x * 5, tn.tensor(0.0)))

        return F.cond(x > 0, lambda: (x * 2, tn.tensor(1.0)), not_positive)

    exe = tn.compile(tn.value_and_grad(lambda x: sign(x)[0]), tn.spec(), target=target)
    for x, expected in ((2.0, (4, 2)), (-2.0, (6, -3)), (0.0, (0, 5))):
        assert exe(np.float32(x)) == expected
    which = tn.compile(lambda x: sign(x)[1], tn.spec(), target=target)
    assert [float(which(np.float32(x))) for x in (3, -3, 0)] == [1, -1, 0]


def embedded(p, ids, table):
    return F.cond(p, lambda: F.embedding(ids, table).sum(), lambda: table.sum() * 0)


@both_targets
def test_an_index_is_checked_only_where_its_branch_runs(target):
    exe = tn.compile(embedded, tn.spec(dtype="bool"), tn.spec(2, dtype="i64"), tn.spec(3, 2), target=target)
    table, bad = np.ones((3, 2), np.float32), np.array([0, 7])
    assert exe(np.bool_(False), bad, table) == 0
    with pytest.raises(IndexRangeError, match="index 7 is out of range"):
        exe(np.bool_(True), bad, table)
    assert exe(np.bool_(True), np.array([0, 2]), table) == 4

    def before(p, ids, table):
        rows = F.embedding(ids, table)
        return F.cond(p, lambda: rows.sum(), lambda: table.sum() * 0)

    exe = tn.compile(before, tn.spec(dtype="bool"), tn.spec(2, dtype="i64"), tn.spec(3, 2), target=target)
    with pytest.raises(IndexRangeError, match="index 7 is out of range"):
        exe(np.bool_(False), bad, table)


def test_a_printed_program_skips_what_its_guards_say(tmp_path, python):
    exe = tn.compile(embedded, tn.spec(dtype="bool"), tn.spec(2, dtype="i64"), tn.spec(3, 2), level=1, target="cpu")
    fused = exe.stages["fuse"]
    assert ", when=" in str(fused) and structurally_equal(parse(str(fused)), fused)
    with_guard = [g for g in fused.groups if g.guard is not None]
    changed = fused.with_(groups=(*fused.groups[:-1], dataclasses.replace(fused.groups[-1], guard=fused.inputs[0])))
    assert with_guard and not structurally_equal(changed, fused)
    (tmp_path / "dump.py").write_text(str(fused))
    script = tmp_path / "use.py"
    script.write_text("import numpy as np\nfrom dump import embedded\n"
                      "assert embedded(np.array(False), np.array([0, 7]), np.ones((3, 2), 'f4')) == 0\n")  # fmt: skip
    python(script)
    program = exe.stages["program"]
    guarded = [call for call in program.main if call.guard is not None]
    assert guarded and from_json(to_json(program)).main == program.main


@pytest.mark.slow
def test_levels_and_threads_agree(monkeypatch):
    arguments = (np.random.default_rng(0).normal(size=(37, 3)).astype(np.float32), W)
    step = tn.value_and_grad(lambda x, w: logarithms(abs(x) + 1, w) + logarithms(x, w), (0, 1))
    found = []
    for level in (0, 1, 2, 3):
        for threads in ("1", "2"):
            monkeypatch.setenv("TENON_THREADS", threads)
            value, gradients = tn.compile(step, tn.spec("B", 3), tn.spec(3, 4), level=level)(*arguments)
            found.append((value, *gradients))
    for other in found[1:]:
        assert all(np.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(found[0], other, strict=True))
    for one, two in zip(found[::2], found[1::2], strict=True):
        assert all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


@pytest.mark.slow
def test_products_and_convolutions_of_a_branch_are_guarded():
    conv = nn.Conv2d(3, 8, 3, padding=1)

    def f(p, x, w):
        return F.cond(p, lambda: conv(x).mean((2, 3)) @ w, lambda: x.mean((2, 3)) @ w[:3])

    exe = tn.compile(tn.grad(lambda p, x, w: f(p, x, w).sum(), (1, 2)), tn.spec(dtype="bool"), tn.spec(2, 3, 5, 5),
                     tn.spec(8, 4))  # fmt: skip
    heavy = [c for c in exe.stages["program"].main if "matmul" in c.label or "conv" in c.label]
    assert heavy and all(c.guard is not None for c in heavy)
    dx, dw = exe(np.bool_(False), np.ones((2, 3, 5, 5), np.float32), np.ones((8, 4), np.float32))
    assert np.allclose(dx, 4 / 25) and np.allclose(dw[:3], 2) and not dw[3:].any()


# --- state -------------------------------------------------------------------------------------------------


@both_targets
def test_a_branch_may_assign_state_and_draw_numbers(target):
    norm, drop = nn.BatchNorm1d(3), nn.Dropout(0.5)

    @tn.function(specs=[tn.spec(dtype="bool"), tn.spec("B", 3)], target=target)
    def f(p, x):
        return F.cond(p, lambda: drop(norm(x)), lambda: x)

    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    before = norm.running_mean.numpy().copy()
    assert np.array_equal(f(np.bool_(False), x), x)
    assert np.array_equal(norm.running_mean.numpy(), before) and int(norm.num_batches_tracked.numpy()) == 0
    found = f(np.bool_(True), x)
    assert (found == 0).any() and int(norm.num_batches_tracked.numpy()) == 1
    assert np.allclose(norm.running_mean.numpy(), 0.1 * x.mean(0))


@both_targets
def test_an_update_that_is_left_out(target):
    """A step that is not taken where the loss is not finite, as mixed precision does it."""
    model = nn.Linear(2, 1)
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    @tn.function(specs=[tn.spec("B", 2), tn.spec("B", 1)], target=target)
    def step(x, y):
        loss = F.mse_loss(model(x), y)
        F.cond(tn.isfinite(loss), lambda: optimizer.minimize(loss), lambda: None)
        return loss

    x, y = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
    weight = model.weight.numpy().copy()
    assert np.isnan(step(x * np.float32("nan"), y))
    assert np.array_equal(model.weight.numpy(), weight) and not np.isnan(weight).any()
    first = step(x, y)
    assert step(x, y) < first and not np.array_equal(model.weight.numpy(), weight)


# --- outside of programs, and errors -----------------------------------------------------------------------


def test_outside_of_a_program_one_function_is_called():
    called = []
    found = F.cond(tn.tensor(False), called.append, lambda x: x + 1, tn.tensor([1.0]))
    assert found.tolist() == [2.0] and not called
    assert F.cond(True, lambda: 3, lambda: 4) == 3


def errors(pred=None, t=lambda x: x, f=lambda x: x, spec=None):
    tn.compile(lambda x: F.cond((x > 0).all() if pred is None else pred(x), t, f, x), spec or tn.spec("B", 3))


def test_what_cannot_be_joined_is_an_error():
    with pytest.raises(DTypeError, match="pred must be a bool, not f32"):
        errors(pred=lambda x: x.sum())
    with pytest.raises(ShapeError, match="pred must be one bool, not a tensor of shape"):
        errors(pred=lambda x: x > 0)
    with pytest.raises(TraceError, match=r"true_fn returns \(\*, \*\) and false_fn \*; both must return the same nest"):
        errors(t=lambda x: (x, x))
    with pytest.raises(DTypeError, match="result 0 is i64 from true_fn and f32 from false_fn"):
        errors(t=lambda x: x.long())
    with pytest.raises(ShapeError, match=r"result 0 has shape \(3, B\) from true_fn and \(3, 3\)|result 0 has shape"):
        errors(t=lambda x: x[:, :2], f=lambda x: x)
    with pytest.raises(ShapeError, match="result 0 has shape"):
        errors(t=lambda x: x.sum(), f=lambda x: x)
    with pytest.raises(TraceError, match="true_fn returned str 'a'; a Tensor was expected"):
        errors(t=lambda x: "a")


@both_targets
def test_what_a_branch_shares_with_the_condition_of_another(target):
    """Nothing waits for a condition that is computed from it."""

    def f(x, w):
        first = F.cond(x.sum() > 0, lambda: x * w.exp(), lambda: x - 1)
        return F.cond(first.sum() > 3, lambda: first * w.exp(), lambda: first * 2).sum()

    exe = tn.compile(tn.value_and_grad(f, (0, 1)), tn.spec(2), tn.spec(2), target=target)
    w = np.zeros(2, np.float32)
    for x, value, slope in (([3, 1], 4, 1), ([1, 1], 4, 2), ([-1, -1], -8, 2)):
        found, (dx, _) = exe(np.array(x, np.float32), w)
        assert found == value and np.array_equal(dx, [slope, slope])

"""tn.bisect finds a broken pass and a broken kernel that are planted, names the line, and lets programs that are right
be."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import tenon as tn
from engine.graph import apply
from passes import simplify
from passes.simplify.patterns import Rule, RuleTable, Var, op
from tenon import F, nn, optim

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype("f4")


def line_of(function, offset):
    return function.__code__.co_firstlineno + offset


def plant_rule(monkeypatch, name, wrong):
    """A rule that makes ``wrong`` of sigmoid(x)."""
    broken = Rule(name, op("sigmoid", Var("x")), wrong)
    for table in ("_BEFORE_AUTODIFF", "_COMPOSING", "_AFTER_AUTODIFF"):
        rules = simplify._PLAIN if table == "_AFTER_AUTODIFF" else simplify._RULES
        monkeypatch.setattr(simplify, table, RuleTable((*rules, broken)))


def plant_operator(monkeypatch, name, operator):
    from runtime import emit

    monkeypatch.setitem(emit._OPERATORS, name, operator)


# --- programs that are right -----------------------------------------------------------------------------------


def cnn_step():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(64, 3),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    specs = [tn.spec("B", 1, 8, 8), tn.spec("B", dtype="i64")]
    return tn.train_step(model, F.cross_entropy, optimizer, specs).executable


@pytest.mark.slow
def test_a_training_step_that_is_right(tmp_path):
    exe = cnn_step()
    before = {n: c.array.copy() for n, c in exe.cells.items()}
    for batch in (5, 2):
        found = tn.bisect(exe, normal(batch, 1, 8, 8), RNG.integers(0, 3, batch), folder=tmp_path)
        assert found is None
    assert list(tmp_path.iterdir()) == []
    for name, cell in exe.cells.items():
        np.testing.assert_array_equal(cell.array, before[name])


@pytest.mark.slow
def test_loops_and_recurrences_that_are_right():
    lstm, attention = nn.LSTM(3, 8, batch_first=True), nn.MultiheadAttention(8, 2, batch_first=True)

    def body(carry, x):
        carry = F.tanh(carry * 0.5 + x)
        return carry, carry * 2

    def f(x):
        y = lstm(x)[0]
        y, _ = attention(y, y, y, need_weights=False)
        last, every = F.scan(body, y[:, 0], y.permute(1, 0, 2))
        return last.sum() + every.mean()

    exe = tn.compile(tn.value_and_grad(f), tn.spec("B", 4, 3))
    assert tn.bisect(exe, normal(2, 4, 3), folder=None) is None


def test_the_reference_target_has_passes_alone():
    exe = tn.compile(lambda x: x * 2, tn.spec("B"), target="reference")
    assert tn.bisect(exe, normal(3)) is None


# --- a broken pass -----------------------------------------------------------------------------------------------


def gate(x, y):
    a = x * y
    b = F.sigmoid(a)  # the rule goes wrong here
    return (b + y).sum()


def test_a_broken_rule(monkeypatch, tmp_path, python):
    plant_rule(monkeypatch, "sigmoid is steep", lambda x: apply("sigmoid", x * 1.01))
    exe = tn.compile(gate, tn.spec("B", 4), tn.spec("B", 4))
    found = tn.bisect(exe, normal(3, 4), normal(3, 4), folder=tmp_path)
    assert (found.kind, found.name, found.rules, found.op) == ("pass", "simplify", ("sigmoid is steep",), "sigmoid")
    assert found.location.line == line_of(gate, 2) and "test_bisect.py" in found.location.file
    assert found.worst.count > 1 and 1e-5 < found.worst.error < 0.5
    text = str(found)
    assert "the pass simplify parts from the reference at" in text and "made by the rule 'sigmoid is steep'" in text
    shown = python(found.reproducer, status=1).stdout  # where the rule is not planted
    assert "the graph after simplify, as it was saved, parts from the reference at output 0" in shown
    assert "what simplify makes of it now agrees with the reference" in shown


def test_a_broken_rule_inside_a_loop(monkeypatch, tmp_path):
    def body(carry, x):
        y = F.sigmoid(carry + x)
        return y, y

    def f(x):
        return F.scan(body, x[0], x)[1]

    plant_rule(monkeypatch, "steep", lambda x: apply("sigmoid", x * 1.01))
    exe = tn.compile(f, tn.spec(5, "N"))
    found = tn.bisect(exe, normal(5, 3), folder=None)
    assert (found.kind, found.name, found.op, found.turns) == ("pass", "simplify", "sigmoid", (0,))
    assert found.location.line == line_of(body, 1)


def test_a_pass_that_swaps_results_is_found_too(monkeypatch):
    from passes import pipeline

    monkeypatch.setattr(pipeline, "legalise", lambda graph, target: graph.with_(outputs=graph.outputs[::-1]))
    exe = tn.compile(lambda x: (x + 1, x * 2), tn.spec("N"), target="cpu")
    found = tn.bisect(exe, normal(3), folder=None)
    assert (found.kind, found.name) == ("pass", "legalise")


# --- a broken kernel ---------------------------------------------------------------------------------------------


def difference_of(x, y):
    a = x @ y
    b = a - 1.5  # compiled as a sum
    c = b.sum(0)
    return c, F.relu(b * 2)


def test_a_broken_emitter(monkeypatch, tmp_path, python):
    plant_operator(monkeypatch, "sub", "+")
    exe = tn.compile(difference_of, tn.spec("B", 4), tn.spec(4, 6))
    found = tn.bisect(exe, normal(3, 4), normal(4, 6), folder=tmp_path)
    assert found.kind == "kernel" and "matmul" in found.name and found.location.line == line_of(difference_of, 2)
    assert len(found.worst.position) == 2 and found.worst.got == pytest.approx(found.worst.expected + 3, rel=1e-4)
    assert found.worst.count == 18 and "contract_f32_kernel" in found.note
    assert "wrong in Python (TENON_JIT=0) too: it is its source" in found.note
    shown = python(found.reproducer, status=1).stdout  # what was compiled is saved
    assert "parts from the reference" in shown
    assert list((found.reproducer.parent / "kernels").glob("contract_f32_kernel-*.py"))


def test_a_broken_kernel_in_a_loop(monkeypatch):
    def body(carry, x):
        y = carry - x
        return y, y * 2

    def f(x):
        return F.scan(body, x[0] + 1, x)[1]

    plant_operator(monkeypatch, "sub", "+")
    found = tn.bisect(tn.compile(f, tn.spec("T", 3)), normal(4, 3), folder=None)
    assert found.kind == "kernel" and found.turns == (0,) and found.location.line == line_of(body, 1)


def test_a_broken_update_names_the_optimizer_line(monkeypatch, tmp_path):
    weight = nn.Parameter(normal(3))
    optimizer = optim.SGD([weight], lr=0.1)

    @tn.function
    def step(x: tn.spec("B", 3)):
        loss = (x * weight).sum()
        optimizer.minimize(loss)
        return loss

    plant_operator(monkeypatch, "sub", "+")
    step(normal(2, 3))
    before = weight.numpy().copy()
    found = tn.bisect(step.executable, normal(2, 3), folder=None)
    assert found.kind == "kernel" and found.op.endswith("sub")
    assert found.location.function.endswith("step")
    np.testing.assert_array_equal(weight.numpy(), before)


def test_the_kernels_are_those_of_the_program_as_it_was_built(monkeypatch):
    with monkeypatch.context() as planted:
        plant_operator(planted, "sub", "+")
        exe = tn.compile(lambda x: (x - 1, x.exp()), tn.spec("N"))
    found = tn.bisect(exe, normal(3), folder=None)
    assert (found.kind, found.worst.count) == ("kernel", 3) and "sub" in found.name


def test_temporaries_that_share_memory_too_early(monkeypatch, tmp_path):
    from passes import assemble

    right = assemble.lifetimes
    monkeypatch.setattr(assemble, "lifetimes", lambda *given: {n: (a, a) for n, (a, _) in right(*given).items()})
    exe = tn.compile(lambda x: (a := x @ x) @ (b := a @ a) + F.softmax(b, 1) @ a, tn.spec(8, 8))
    found = tn.bisect(exe, normal(8, 8), folder=tmp_path)
    assert found.kind == "program" and "no two temporaries share memory" in found.note
    assert subprocess.run([sys.executable, found.reproducer], capture_output=True, timeout=60).returncode == 1

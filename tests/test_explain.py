"""`tn.explain`: what it says of programs that are known."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from passes.fuse import REFUSALS
from tenon import F, nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return F.softmax(self.fc(x.flatten(1)), -1)


@pytest.fixture(scope="module")
def explained():
    tn.seed(0)
    exe = tn.compile(Net().eval(), tn.spec("B", 3, 8, 8))
    return exe, tn.explain(exe, np.ones((4, 3, 8, 8), np.float32))


def test_what_was_fused(explained):
    exe, found = explained
    convolution = next(f for f in found.fused if "conv2d" in f.ops)
    assert {"conv2d", "add", "relu", "max_pool2d"} <= set(convolution.ops)
    assert any("test_explain.py" in line and "Net.forward" in line for line in convolution.lines)
    assert len(found.fused) == len(exe.stages["fuse"].groups) and found.steps == len(exe.program.main)


def test_the_rule_that_refused(explained):
    _, found = explained
    rules = {(a.first.split("_")[0], a.second.split("_")[0]): a.rule for a in found.kept_apart}
    assert rules["conv2d", "matmul"] == "view"  # flattening an image that lies channels-last
    assert next(rule for (first, _), rule in rules.items() if first == "matmul") == "reduction"
    assert all(REFUSALS[a.rule] == a.why for a in found.kept_apart)


def test_copies_layouts_and_code(explained):
    exe, found = explained
    packed = [c for c in found.copies if c.what == "conv.weight"]
    assert [c.when for c in packed] == ["when the state changes"]
    flat = next(c for c in found.copies if c.step.startswith("copy") and "reshape" in c.why)
    assert flat.bytes == 4 * 8 * 4 * 4 * 4 and flat.when == "every call"
    assert any(c.what == "x" and "another layout" in c.why for c in found.copies)
    assert [layout.name for layout in found.layouts] == ["channels-last"]
    assert "Net.conv" in found.layouts[0].modules
    assert {c.kernel for c in found.code} == {k.name for k in exe.program.kernels}
    assert all(c.why and (c.compiled or not c.seconds) for c in found.code)


def test_it_reads_well(explained):
    _, found = explained
    text = str(found)
    for title in ("Fused", "Kept apart", "Recomputed", "Copied", "Layouts", "Compiled", "What would make it faster"):
        assert f"\n\n{title}:\n  " in text
    assert found.profile is not None and found.advice


def test_code_is_compiled_once_for_a_cache(tmp_path):
    def tripled(x):
        return x * 3.25 - 17

    with tn.config(cache=tmp_path / "cache"):
        (first,) = tn.explain(tn.compile(tripled, tn.spec("B"))).code
        assert first.compiled and first.seconds > 0 and first.why == "absent: it was never compiled into this cache"
        again = tn.explain(tn.compile(tripled, tn.spec("B")))
    assert again.program_from_cache
    assert [(c.compiled, c.why) for c in again.code] == [(False, "another program of this process has the same")]


def test_what_is_computed_twice_is_told():
    from engine.graph import Builder, Group, TensorType, apply
    from tenon.inspection.explaining import _recomputed

    with Builder() as builder:
        x = builder.input("x", TensorType((4,), tn.f32))
        first, second = apply("exp", x), apply("exp", x)
        ends = apply("neg", first), apply("abs", second)
    graph = builder.build(ends)
    one, two = Group("exp_neg", (first.node, ends[0].node)), Group("exp_abs", (second.node, ends[1].node))
    (found,) = _recomputed(graph.with_(groups=(one, two)))
    assert (found.op, found.kernels) == ("exp", ("exp_neg", "exp_abs"))


def test_levels_that_fuse_nothing():
    exe = tn.compile(lambda x: F.relu(x + 1), tn.spec("B"), level=0)
    found = tn.explain(exe)
    assert [a.rule for a in found.kept_apart] == ["level"]
    assert any("level 2" in a.text for a in found.advice) and "nothing: every op is a kernel of its own" in str(found)


def test_what_cannot_be_explained():
    with pytest.raises(tn.TenonError, match="takes a compiled program, not int 3"):
        tn.explain(3)
    with pytest.raises(tn.UnsupportedError):
        tn.explain(tn.compile(lambda x: x + 1, tn.spec(2), target="reference"))


def test_a_users_kernel_that_one_thread_runs():
    def doubled(x):
        return x * 2

    def whole(x, out):
        for i in range(x.size):
            out[i] = x[i] * 2

    def ranged(x, out, lo, hi):
        for i in range(lo, hi):
            out[i] = x[i] * 2

    for kernel in (whole, ranged):
        op = tn.custom_op("explained_double", doubled, kernel=kernel)
        advice = tn.explain(tn.compile(op, tn.spec("N"))).advice
        assert any("lo and hi for the kernel of explained_double" in a.text for a in advice) == (kernel is whole)

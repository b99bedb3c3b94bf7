"""Profiles: what they add up to, what they are told of, and that they leave no trace."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tenon as tn
from runtime.timeline import Timeline
from tenon import F, nn, optim
from tenon.inspection.profiling import running

BATCH = 5


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(12, 16)
        self.blocks = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.hidden(x))))


@pytest.fixture(scope="module")
def trained():
    """A training step, its inputs, its profile, and whether state was the same afterwards."""
    tn.seed(0)
    model = Net()
    optimizer = optim.Adam(model.parameters())
    step = tn.train_step(model, F.cross_entropy, optimizer, [tn.spec("B", 12), tn.spec("B", dtype="i64")]).executable
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(BATCH, 12)).astype(np.float32), rng.integers(0, 3, BATCH)
    step(*inputs)
    before = {name: cell.array.copy() for name, cell in step.cells.items()}
    profile = step.profile(*inputs, repeats=4)
    same = all(np.array_equal(before[name], cell.array) for name, cell in step.cells.items())
    return step, inputs, profile, same


def test_a_profile_adds_up(trained):
    step, _, profile, same = trained
    assert same
    assert [s.name for s in profile.steps] == [c.label for c in step.program.main]
    kernels = sum(s.seconds for s in profile.steps)
    assert kernels + profile.barriers + profile.overhead == pytest.approx(profile.seconds)
    assert all(s.seconds > 0 and s.runs == 1 for s in profile.steps)
    assert profile.calls == 4 and profile.sizes == {"B": BATCH}
    for rows in (profile.by_kernel, profile.by_op, profile.by_module, profile.by_line):
        assert sum(r.seconds for r in rows) == pytest.approx(kernels)
        assert sum(r.flops for r in rows) == pytest.approx(sum(s.flops for s in profile.steps))
        assert [r.seconds for r in rows] == sorted((r.seconds for r in rows), reverse=True)


def test_state_goes_on_from_where_it_was(trained):
    step, inputs, _, _ = trained
    kept = {name: cell.array.copy() for name, cell in step.cells.items()}
    first = step(*inputs)
    for name, cell in step.cells.items():
        cell.array[...] = kept[name]
        cell.version += 1
    step.profile(*inputs, repeats=1)
    assert step(*inputs) == first


def test_operations_are_counted_from_the_graph(trained):
    _, _, profile, _ = trained
    products = sum(r.flops for r in profile.by_op if r.name == "matmul")
    forward = 2 * BATCH * (12 * 16 + 16 * 16 + 16 * 3)
    assert products == 3 * forward - 2 * BATCH * 12 * 16  # no gradient flows into the input


def test_rows_are_told_apart(trained):
    _, _, profile, _ = trained
    modules = {r.name for r in profile.by_module}
    assert {"Net.hidden", "Net.blocks.0", "Net.head"} <= modules
    assert "matmul" in {r.name for r in profile.by_op}
    assert any("test_profile.py" in r.name and "Net.forward" in r.name for r in profile.by_line)
    assert all(r.limit in ("arithmetic", "memory", "overhead") for r in profile.by_kernel)


def test_a_profile_prints_its_tables(trained):
    _, _, profile, _ = trained
    text = str(profile)
    for word in ("step at B=5", "ceilings measured here", "GFLOP/s", "barriers", "call overhead", "total"):
        assert word in text
    for title in ("kernel ", "op ", "module ", "source line "):
        assert f"\n{title}" in text
    short = profile.by_op.text(2)
    assert f"{len(profile.by_op) - 2} more" in short


def test_a_trace_has_a_track_for_each_thread(trained, tmp_path):
    step, _, profile, _ = trained
    content = json.loads(profile.save_trace(tmp_path / "trace.json").read_text())
    events = content["traceEvents"]
    named = {e["tid"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    slices = [e for e in events if e["ph"] == "X"]
    kernels = [e for e in slices if e["cat"] == "kernel"]
    assert named == set(range(profile.machine.threads)) and {e["tid"] for e in slices} <= named
    assert {e["name"] for e in kernels} == {c.label for c in step.program.main}
    (call,) = (e for e in slices if e["cat"] == "call")
    for thread in named:
        own = [e for e in kernels if e["tid"] == thread]
        assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-6 for a, b in zip(own, own[1:], strict=False))
    assert all(e["ts"] >= 0 and e["dur"] >= 0 and e["ts"] + e["dur"] <= call["dur"] + 1e-6 for e in kernels)
    assert any("Net.forward" in e["args"].get("from", "") for e in kernels)


def test_a_loop_is_profiled_turn_by_turn():
    def total(xs):
        return F.scan(lambda h, x: (F.tanh(h @ x), h), tn.ones(4, 4), xs)[0]

    exe = tn.compile(total, tn.spec("T", 4, 4))
    profile = exe.profile(np.ones((7, 4, 4), np.float32), repeats=2)
    assert max(s.runs for s in profile.steps) == 7
    products = sum(s.flops for s in profile.steps if any(n.op.name == "matmul" for n in s.nodes))
    assert products >= 7 * 2 * 4**3


def test_time_in_which_several_steps_run_is_shared():
    line = Timeline(
        step=np.array([0, 2, 1, 2]), thread=np.array([0, 0, 1, 1]), start=np.array([0.0, 5.0, 1.0, 4.0]),
        end=np.array([2.0, 6.0, 3.0, 6.0]), left=7.0,
    )  # fmt: skip
    assert running(line, 3).tolist() == [1.5, 1.5, 2.0]


def test_what_cannot_be_profiled_says_so():
    exe = tn.compile(lambda x: x + 1, tn.spec(2))
    with pytest.raises(tn.TenonError, match="repeats is 0"):
        exe.profile(np.ones(2, np.float32), repeats=0)
    interpreted = tn.compile(lambda x: x + 1, tn.spec(2), target="reference")
    with tn.config(jit=False):
        unjitted = tn.compile(lambda x: x + 1, tn.spec(2))
    for slow in (interpreted, unjitted):
        with pytest.raises(tn.UnsupportedError, match="runs in Python"):
            slow.profile(np.ones(2, np.float32))
    assert [c.why for c in tn.explain(unjitted).code] == ["it runs in Python"]


@pytest.mark.slow
def test_a_program_that_is_not_profiled_does_not_look_at_the_clock():
    from runtime.cpu.compile import inspect_kernel
    from runtime.cpu.driver import driver_kernel, timed_driver_kernel

    plain, timed = (inspect_kernel(kernel())[0] for kernel in (driver_kernel, timed_driver_kernel))
    clocks = ("readcyclecounter", "cntvct_el0")
    assert any(clock in timed for clock in clocks) and not any(clock in plain for clock in clocks)

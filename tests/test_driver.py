"""Barriers, threads and memory placement: what lets steps run side by side, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_kernels import chain

from engine.errors import TenonError
from engine.memory import place
from runtime import cache
from runtime.cpu import threads
from runtime.cpu.barriers import Step, meetings
from runtime.cpu.driver import BARRIER, CHECK
from runtime.cpu.loading import build

ROOT = Path(__file__).parent.parent


def step(reads=(), writes=(), single=False, **more):
    """A step over bytes given as (memory, start, end) or as one letter for memory of its own."""

    def ranges(names):
        return tuple(n if isinstance(n, tuple) else (ord(n), 0, 8) for n in names)

    return Step(ranges(reads), ranges(writes), single, **more)


def flags(*steps, threads=2):
    return [f for f, _ in meetings(steps, threads)]


def test_a_barrier_stands_only_before_a_step_that_depends_on_one_since_the_last():
    assert flags(step("x", "a"), step("x", "b"), step("ab", "c"), step("x", "d")) == [0, 0, BARRIER, 0]


@pytest.mark.parametrize(
    ("first", "second", "meets"),
    [
        (step("x", "a"), step("a", "b"), True),  # read after write
        (step("a", "b"), step("x", "a"), True),  # write after read
        (step("x", "a"), step("y", "a"), True),  # write after write
        (step("x", "a"), step("x", "b"), False),  # both read
        (step((), [(0, 0, 64)]), step([(0, 64, 128)], ()), False),  # neighbours in one arena
        (step((), [(0, 0, 65)]), step([(0, 64, 128)], ()), True),  # one byte in common
        (step((), [(0, 0, 64)]), step([(0, 32, 32)], ()), False),  # an empty buffer
    ],
)
def test_bytes_decide(first, second, meets):
    assert flags(first, second) == [0, BARRIER if meets else 0]


def test_small_steps_take_turns_and_dependent_ones_stay_on_their_thread():
    steps = [step("x", "a", single=True), step("x", "b", single=True), step("a", "c", single=True)]
    assert meetings(steps, 2) == [(0, 0), (0, 1), (0, 0)]
    assert flags(*steps, step("bc", "d", single=True)) == [0, 0, 0, BARRIER]


def test_no_step_fails_while_a_thread_may_still_look_for_an_earlier_failure():
    failing = step("i", (), may_fail=True)
    steps = [failing, step("xi", "y", guarded=True), step("j", (), may_fail=True), step("yj", "z", guarded=True)]
    assert flags(*steps) == [0, BARRIER | CHECK, BARRIER, BARRIER | CHECK]
    assert flags(failing, failing, step("x", "y", guarded=True), step("y", "z")) == [0, 0, BARRIER | CHECK, BARRIER]


def test_state_is_written_only_after_every_thread_has_seen_the_error_word():
    steps = [step("i", (), may_fail=True), step("x", "y"), step("x", "s", guarded=True), step("y", "t", guarded=True)]
    assert flags(*steps) == [0, 0, BARRIER | CHECK, 0]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.integers(0, 500)), max_size=30))
def test_buffers_that_live_together_never_overlap(cases):
    lifetimes = {str(i): (first, first + length) for i, (first, length, _) in enumerate(cases)}
    sizes = {str(i): size for i, (_, _, size) in enumerate(cases)}
    offsets, total = place(lifetimes, sizes)
    for a in offsets:
        assert offsets[a] % 64 == 0 and offsets[a] + sizes[a] <= total
        for b in offsets:
            together = lifetimes[a][0] <= lifetimes[b][1] and lifetimes[b][0] <= lifetimes[a][1]
            if a != b and together and sizes[a] and sizes[b]:
                assert offsets[a] + sizes[a] <= offsets[b] or offsets[b] + sizes[b] <= offsets[a]


def test_memory_is_reused_and_gaps_are_filled():
    offsets, total = place({"a": (0, 1), "b": (1, 2), "c": (2, 3)}, {"a": 128, "b": 64, "c": 100})
    assert total == 192 and offsets["a"] == offsets["c"] == 0
    assert place({}, {}) == ({}, 0)


def test_threads_are_a_whole_number(monkeypatch):
    monkeypatch.setenv("TENON_THREADS", "3")
    assert threads.thread_count() == 3
    monkeypatch.setenv("TENON_THREADS", "many")
    with pytest.raises(TenonError, match="TENON_THREADS is 'many'; expected a whole number"):
        threads.thread_count()
    monkeypatch.setenv("TENON_THREADING", "tbb")
    with pytest.raises(TenonError, match="TENON_THREADING is 'tbb'; expected 'openmp' or 'python'"):
        threads.openmp()
    monkeypatch.delenv("TENON_THREADS")
    assert threads.thread_count() >= 1


@pytest.mark.parametrize(
    ("line", "file", "text", "expected"),
    [
        ("0::/a/b", "a/cpu.max", "150000 100000", 2),
        ("0::/a/b", "a/b/cpu.max", "max 100000", 0),
        ("3:cpu,cpuacct:/a", "cpu/a/cpu.cfs_quota_us", "400000", 4),
        ("3:memory:/a", "a/cpu.max", "100000 100000", 0),
    ],
)
def test_a_control_group_limits_the_threads(tmp_path, line, file, text, expected):
    path = tmp_path / "fs" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.with_name("cpu.cfs_period_us").write_text("100000")
    (tmp_path / "groups").write_text(line + "\n")
    assert threads._quota(tmp_path / "fs", tmp_path / "groups") == expected


@pytest.mark.parametrize("kind", ["openmp", "python"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_steps_are_walked_natively_by_any_number_of_threads(monkeypatch, kind, count):
    monkeypatch.setenv("TENON_THREADING", kind)
    monkeypatch.setenv("TENON_THREADS", str(count))
    executor, _ = build(chain(30), {}, cache.default())
    x = np.arange(28, dtype=np.float32).reshape(7, 4)
    for _ in range(20):
        (y,) = executor.run([x])
        assert np.array_equal(y, x * 31)
    found = executor.counters
    assert (found.calls, found.steps, found.bindings, found.allocated) == (20, 600, 1, 20)
    parallel = count > 1 and (kind == "python" or threads.openmp() is not None)
    assert found.barriers == (20 * 29 if parallel else 0)


def test_one_task_opens_no_region(monkeypatch):
    monkeypatch.setenv("TENON_THREADS", "2")
    executor, _ = build(chain(3), {}, cache.default())
    executor.run([np.ones((1, 4), np.float32)])
    assert executor.counters.barriers == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.parametrize("kind", ["openmp", "python"])
def test_a_forked_child_runs_serially(kind):
    code = """
import os, numpy as np
from tiny_kernels import chain
from runtime import cache
from runtime.cpu.loading import build
executor, _ = build(chain(5), {}, cache.default())
x = np.ones((8, 4), np.float32)
executor.run([x])
before = executor.counters.barriers
child = os.fork()
if child == 0:
    (y,) = executor.run([x])
    os._exit(0 if (y == 6).all() and executor.counters.barriers == before > 0 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
executor.run([x])
"""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    more = {"PYTHONPATH": path, "TENON_THREADS": "2", "TENON_THREADING": kind}
    subprocess.run([sys.executable, "-c", code], env=os.environ | more, check=True, timeout=60)

"""What a call costs, counted: no Python between kernels, and no memory but that of the returned arrays."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

import tenon as tn
from runtime.cpu.driver import Driver
from tenon import F, nn, optim

ROWS = 256


def training_step(level: int = 2) -> Callable[..., Any]:
    """A dense network's training step on rows of 32 features."""
    model = nn.Sequential(nn.Linear(32, 48), nn.Tanh(), nn.Linear(48, 10))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    specs = [tn.spec("B", 32), tn.spec("B", dtype="i64")]
    return tn.train_step(model, F.cross_entropy, optimizer, specs, level=level)


def batch(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 32)).astype(np.float32), rng.integers(0, 10, rows)


def warmed(step: Callable[..., Any], *arrays: np.ndarray) -> Callable[[], Any]:
    def call() -> Any:
        return step(*arrays)

    call()
    call()
    return call


def driver_events(call: Callable[[], Any]) -> list[list[str]]:
    """For each time that ``call`` enters the native driver, the Python functions that run until it is left."""
    entered: list[list[str]] = []
    inside = False

    def record(frame: FrameType, event: str, argument: object) -> None:
        nonlocal inside
        if frame.f_code is Driver.run.__code__ and event in ("call", "return"):
            inside = event == "call"
            entered.extend([[]] * inside)
        elif inside and event in ("call", "c_call"):
            entered[-1] = [*entered[-1], getattr(argument, "__name__", frame.f_code.co_name)]

    sys.setprofile(record)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most memory that ``call`` has allocated at one time, through Python's and NumPy's allocators."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rows", [1, ROWS])
@pytest.mark.parametrize("level", [0, 2])
def test_no_python_runs_between_kernels(level, rows):
    """A call enters native code once, and it comes back when every kernel has run."""
    step = training_step(level)
    call = warmed(step, *batch(rows))
    before = step.executable.counters["steps"]
    (events,) = driver_events(call)
    assert step.executable.counters["steps"] - before == len(step.executable.program.main) > 10
    assert not events


def test_the_driver_runs_every_kernel_of_the_program_once_a_call():
    step = training_step()
    call = warmed(step, *batch())
    before = step.executable.counters
    for _ in range(10):
        call()
    after = step.executable.counters
    assert after["calls"] - before["calls"] == 10
    assert after["steps"] - before["steps"] == 10 * len(step.executable.program.main)
    assert after["barriers"] - before["barriers"] <= 10 * (len(step.executable.program.main) + 1)
    assert after["bindings"] == before["bindings"] and after["arena_bytes"] == before["arena_bytes"]
    assert step.executable.compile_count == 1


def test_a_step_allocates_its_results_alone():
    step = training_step()
    call = warmed(step, *batch())
    before = step.executable.counters["allocated"]
    call()
    assert step.executable.counters["allocated"] == before + 1
    assert step.executable.memory(B=ROWS).arena > 100_000 > 4096 > peak_bytes(call)


def test_large_results_are_allocated_once():
    exe = tn.compile(lambda x: ((x.exp() + x.tanh()).softmax(1), x @ x.T), tn.spec("B", 64))
    x = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
    call = warmed(exe, x)
    results = 4 * (500 * 64 + 500 * 500)
    assert results <= peak_bytes(call) <= results + 4096
    out = call()
    assert peak_bytes(lambda: exe(x, out=out)) < 4096


def test_calls_leave_nothing_behind():
    step = training_step()
    call = warmed(step, *batch())
    before = sys.getallocatedblocks()
    for _ in range(200):
        call()
    assert sys.getallocatedblocks() - before < 20


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: a[::-1]])
def test_an_input_is_copied_only_where_it_must_be(layout):
    exe = tn.compile(lambda x: 2 * x, tn.spec("B", 32))
    x, _ = batch()
    call = warmed(exe, layout(x))
    before = exe.counters["allocated"]
    call()
    assert exe.counters["allocated"] == before + 2
    exe(x)
    assert exe.counters["allocated"] == before + 3

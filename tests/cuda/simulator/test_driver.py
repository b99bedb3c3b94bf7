"""The device over a driver that does its work as late as it may (fake_driver.py), and the executor over the device."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace

import numpy as np
import pytest
from fake_driver import FakeDriver, code_of

import tenon as tn
from engine.dtypes import f32
from engine.errors import DeviceError, DeviceMemoryError, IndexRangeError, UnsupportedError
from engine.program import Kernel, Window
from engine.state import Cell
from runtime.cuda.ceilings import copy_bandwidth, peak_flops
from runtime.cuda.devices import check
from runtime.cuda.driver import DriverDevice, called, found
from runtime.cuda.executor import Executor
from runtime.cuda.guards import has_joined_guards, joined_guards
from runtime.cuda.tensor_map import TensorMap, from_simulator
from tenon import optim

ORDERS = [(True, True), (True, False), (False, True), (False, False)]


def executor(exe, driver: FakeDriver) -> Executor:
    """What runs the program of ``exe`` on a device over ``driver``."""
    device = DriverDevice(driver, 0)
    kernels = [*exe.program.kernels, *([joined_guards()] if has_joined_guards(exe.program) else [])]
    with device.lock:
        functions = {k.key: device.load(k, code_of(k)) for k in kernels}
    joined = functions[kernels[-1].key] if has_joined_guards(exe.program) else None
    return Executor(exe.program, exe.cells, device, functions, joined)


def trained(target: str):
    """A small model, and its training step on batches of any size, which returns the loss and the prediction."""
    tn.seed(0)
    model = tn.nn.Linear(6, 3)
    adam = optim.Adam(model.parameters(), lr=0.05)

    def step(x, y):
        prediction = model(x)
        loss = ((prediction - y) ** 2).mean()
        adam.minimize(loss)
        return loss, prediction

    return model, tn.compile(step, tn.spec("B", 6), tn.spec("B", 3), target=target)


def batches(sizes):
    rng = np.random.default_rng(1)
    return [
        (rng.standard_normal((n, 6)).astype(np.float32), rng.standard_normal((n, 3)).astype(np.float32)) for n in sizes
    ]


@pytest.mark.parametrize("window", [None, Window((-1, -2), (0, 3), (2, 1))])
def test_tensor_maps_are_encoded_as_they_are_meant(window: Window | None):
    box = (64, 32) if window else (1, 2, 8, 32)
    array = TensorMap((2, 5, 6, 40), (2400, 480, 80), 2, box, 64, window)
    encoded = DriverDevice(FakeDriver(), 0).tensor_map(1 << 20, array)
    np.testing.assert_array_equal(encoded, array.for_simulator(1 << 20))
    assert from_simulator(encoded) == (1 << 20, array)


@pytest.mark.parametrize("late", ORDERS)
def test_training_by_the_driver_is_training_on_the_cpu(late):
    data = batches([4, 4, 2, 70, 4])
    model, expected = trained("cpu")
    wanted = [expected(*batch) for batch in data]
    other, exe = trained("cuda")
    driver = FakeDriver(late)
    run = executor(exe, driver)
    for i, (batch, want) in enumerate(zip(data, wanted, strict=True)):
        upcoming = data[i + 1] if i + 1 < len(data) else None
        got = run.run(batch, None, lambda upcoming=upcoming: upcoming)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, 1e-5, 1e-6)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), 1e-5, 1e-6)
    assert driver.problems == []
    assert run.counters.early == 3  # the very first, and one that takes more memory, have to wait


def test_a_step_is_one_launch_of_a_graph():
    _, exe = trained("cuda")
    driver = FakeDriver()
    run = executor(exe, driver)
    (batch,) = batches([4])
    run.run(batch)
    driver.calls.clear()
    run.run(batch)
    assert driver.calls.count("cuGraphLaunch") == 1 and "cuLaunchKernel" not in driver.calls
    assert len(driver.calls) == 7, driver.calls
    assert run.counters.graphs == run.counters.bindings == 1


@pytest.mark.parametrize("late", ORDERS)
def test_state_that_does_not_lie_row_major_goes_to_the_gpu_and_comes_back(late):
    value = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    weight = tn.nn.Parameter(Cell(value, f32, (2, 3, 1, 0)))

    def double():
        before = weight + 0
        weight.assign(weight * 2)
        return before

    driver = FakeDriver(late)
    run = executor(tn.compile(double, target="cuda"), driver)
    for factor in (1, 2):
        np.testing.assert_array_equal(run.run([])[0], factor * value)
    np.testing.assert_array_equal(weight.numpy(), 4 * value)
    weight.data = value
    np.testing.assert_array_equal(run.run([])[0], value)
    assert driver.problems == []


def test_what_is_not_held_is_freed_and_not_before_its_work_is_done():
    _, exe = trained("cuda")
    driver = FakeDriver()
    run = executor(exe, driver)
    for batch in batches([2, 16, 4, 2]):  # the second needs more memory than the first
        run.run(batch)
    held = len(driver.allocated)
    device = run.device
    del run
    gc.collect()
    with device.lock:
        device.allocate(1)
        gc.collect()
        device.free_bytes()
    states = len(exe.cells)
    assert held > states and len(driver.allocated) == states and driver.graphs == 0
    assert driver.problems == []


def test_threads_of_the_user_run_one_program():
    _, exe = trained("cuda")
    run = executor(exe, FakeDriver())
    (batch,) = batches([2])
    errors = []

    def work():
        try:
            for _ in range(3):
                run.run(batch)
        except Exception as error:  # pragma: no cover
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and run.counters.calls == 9


def test_a_bad_label_leaves_state_as_it_was():
    tn.seed(0)
    model = tn.nn.Linear(4, 3)
    sgd = optim.SGD(model.parameters(), lr=0.1)

    def step(x, y):
        loss = tn.nn.functional.cross_entropy(model(x), y)
        sgd.minimize(loss)
        return loss

    exe = tn.compile(step, tn.spec("B", 4), tn.spec("B", dtype="i64"), target="cuda")
    run = executor(exe, FakeDriver())
    before = model.weight.numpy().copy()
    x = np.ones((2, 4), np.float32)
    with pytest.raises(IndexRangeError, match="7") as raised:
        run.run((x, np.array([1, 7])))
    assert raised.value.location.function.endswith("step")
    np.testing.assert_array_equal(model.weight.numpy(), before)
    run.run((x, np.array([1, 2])))
    assert not np.array_equal(model.weight.numpy(), before)


def test_a_profile_is_of_the_steps_of_a_graph():
    _, exe = trained("cuda")
    driver = FakeDriver()
    run = executor(exe, driver)
    (batch,) = batches([3])
    with run.logged(None, batch) as log:
        driver.calls.clear()
        run.run(batch)
        timeline = log.take()
        run.run(batch)
        assert driver.calls.count("cuGraphLaunch") == 2 and driver.calls.count("cuStreamBeginCapture") == 1
    assert timeline.step.tolist() == list(range(len(exe.program.main)))
    assert (timeline.start[1:] >= timeline.end[:-1]).all() and timeline.left > 0
    assert log.sizes == {"B": 3}
    assert len(run.seconds(batch, 3)) == 3 and driver.problems == []


def test_a_gpus_ceilings_follow_from_copies_and_its_clock():
    device = DriverDevice(FakeDriver(memory=1 << 20), 0)
    assert copy_bandwidth(device) > 0
    assert peak_flops(device) == 2 * 64 * 4 * 1e9


# --- what the device itself refuses ------------------------------------------------------------------------


def kernel(shared: int) -> Kernel:
    return Kernel("k", f"{shared:064}", "def k(guard, error):\n    pass\n", threads=32, shared=shared)


def test_shared_memory_beyond_48_kb_is_asked_for():
    driver = FakeDriver()
    device = DriverDevice(driver, 0)
    device.load(kernel(48 << 10), code_of(kernel(48 << 10)))
    assert driver.attributes == []
    device.load(kernel(100 << 10), code_of(kernel(100 << 10)))
    ((attribute, value),) = driver.attributes
    assert attribute.name.endswith("MAX_DYNAMIC_SHARED_SIZE_BYTES") and value == 100 << 10
    with pytest.raises(UnsupportedError, match="takes 204,800 bytes of shared memory"):
        device.load(kernel(200 << 10), b"")


def test_blocks_that_meet_are_launched_together():
    driver = FakeDriver()
    device = DriverDevice(driver, 0)
    together = replace(kernel(0), key="1" * 64, cooperative=True)
    for k in (kernel(0), together):
        device.compute.launch(device.load(k, code_of(k)), 2, np.zeros(2, np.int64))
    device.compute.synchronize()
    assert [c for c in driver.calls if c.startswith("cuLaunch")] == ["cuLaunchKernel", "cuLaunchCooperativeKernel"]


def test_too_little_memory_is_said_in_bytes_before_anything_runs():
    _, exe = trained("cuda")
    run = executor(exe, FakeDriver(memory=20_000))
    small, large = batches([2, 1000])
    run.run(small)
    before = {name: cell.version for name, cell in exe.cells.items()}
    with pytest.raises(DeviceMemoryError, match=r"step needs \d+,\d+ bytes on cuda:0 .* of 20,000 are free"):
        run.run(large)
    assert {name: cell.version for name, cell in exe.cells.items()} == before
    run.run(small)
    with pytest.raises(DeviceMemoryError, match="for its state and constants"):
        executor(exe, FakeDriver(memory=100))


def test_missing_drivers_and_gpus_are_told_apart():
    assert found(FakeDriver(count=0)) == []
    with pytest.raises(DeviceError, match="it knows no GPU"):
        check(0, [])
    with pytest.raises(DeviceError, match=r"supports CUDA 12.4; 13.0 is needed"):
        found(FakeDriver(version=12040))
    old = found(FakeDriver(count=2, capability=(7, 5)))
    assert [str(p) for p in old] == [f"cuda:{i}: Fake GPU (compute capability 7.5), 256 MiB" for i in range(2)]
    with pytest.raises(UnsupportedError, match=r"cuda:1: Fake GPU .*7\.5.*: kernels need compute capability 8\.0"):
        check(1, old)
    with pytest.raises(DeviceError, match="there is no such GPU; there are cuda:0, cuda:1"):
        check(2, old)


def test_a_failure_is_told_in_the_drivers_words():
    driver = FakeDriver()
    with pytest.raises(DeviceError, match="cuMemGetInfo failed: CUDA_ERROR_INVALID_CONTEXT"):
        called(driver, "cuMemGetInfo")

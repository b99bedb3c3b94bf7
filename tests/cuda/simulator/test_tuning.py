"""Autotuning for GPUs: what is offered, that every candidate computes it, and the tuner over the fake driver."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from cuda_harness import compare, reference, simulate
from fake_driver import FakeDriver, code_of
from test_contraction import case, product

import tenon as tn
from engine import dtypes
from runtime.choices import answered
from runtime.cuda import devices, loading, tiles
from runtime.cuda.driver import DriverDevice
from runtime.cuda.lower import lower
from runtime.cuda.tiles import HALF
from tenon import tuning


def questions(spec, architecture="sm_80"):
    return answered({}, partial(lower, spec, (), architecture))[1]


def test_products_offer_their_tiles_and_pieces():
    asked = questions(product(256, 256, 512, dtype=dtypes.bf16))
    assert list(asked) == ["pieces of k", "tile"]
    assert set(asked["tile"]) == {str(choice.tile) for choice in HALF}
    assert questions(product(4096, 4096, 4096, dtype=dtypes.bf16), "sm_90a") == {"by": ("wgmma", "mma.sync")}


def test_what_a_tile_is_called_tells_it_from_all_others():
    for table in (tiles.HALF, tiles.SINGLE):
        assert len({str(choice.tile) for choice in table}) == len(table)


def test_another_tile_and_other_pieces_compute_the_same():
    """The smallest tile, which the simulator runs soonest, and two pieces where one was expected."""
    spec = product(24, 40, 160, dtype=dtypes.bf16)
    asked = questions(spec)
    answers = {"tile": len(asked["tile"]) - 1, "pieces of k": len(asked["pieces of k"]) - 1}
    assert asked["pieces of k"][-1] != asked["pieces of k"][0]
    given = case(spec, 24, 40, 160)
    found = {name: a.copy() for name, a in given.arrays.items()}
    simulate(answered(answers, partial(lower, spec, ()))[0], found, given.values, 1)
    compare(given, found, reference(given))


@pytest.fixture
def driver(monkeypatch):
    """GPU 0 is one over the fake driver; nothing is compiled."""
    found = FakeDriver()
    device = DriverDevice(found, 0)
    for module in (devices, loading):
        monkeypatch.setattr(module, "open_device", lambda index: device)
    monkeypatch.setattr(
        loading, "compile_kernels", lambda kernels, processor, seconds: {k.key: code_of(k) for k in kernels}
    )
    return found


def test_candidates_run_on_the_gpu_between_events(monkeypatch, driver, tmp_path):
    monkeypatch.setattr(tiles, "HALF", HALF[-1:] + HALF[3:4])
    timed = []

    def last(runs):
        timed.append([run() for run in runs])
        return tuple(timed[-1]), len(runs) - 1

    monkeypatch.setattr(tuning, "fastest", last)
    monkeypatch.setattr(tuning, "TARGET", 1e-9)
    specs = tn.spec("M", 64, dtype="bf16"), tn.spec(64, 32, dtype="bf16")
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtypes.bf16.numpy) for shape in ((24, 64), (64, 32)))
    with tn.config(cache=tmp_path / "cache"):
        exe = tn.compile(lambda x, y: x @ y, *specs, target="cuda", autotune=True)
        got = np.asarray(exe(a, b), np.float32)
        again = tn.compile(lambda x, y: x @ y, *specs, target="cuda", autotune=True)
        again(a, b)
    np.testing.assert_allclose(got, a.astype(np.float32) @ b.astype(np.float32), rtol=0.02, atol=0.02)
    found = exe.tuning.tuned[0].findings
    assert [f.question for f in found] == ["pieces of k", "tile"] and len(timed) == 2
    assert all(seconds > 0 for times in timed for seconds in times)
    assert again.tuning.measured == 0 and again.program.main == exe.program.main
    assert driver.problems == []


def test_the_simulator_refuses():
    with pytest.raises(tn.UnsupportedError, match="target='cuda' has nothing to measure: the simulator's times"):
        tn.compile(lambda x: x @ x, tn.spec(4, 4), target="cuda", autotune=True)
    with tn.config(autotune=True):
        exe = tn.compile(lambda x: x + 1, tn.spec(4), target="cuda")
    assert exe(np.ones(4, np.float32)).sum() == 8 and exe.tuning is None

"""Faults planted into kernels that are right: each is found, by an error of the simulator or by what the kernel writes.

The kernels are those that the backend generates; a fault is a change of their text. A kernel that is wrong in one of
these ways may give the right result on a GPU for as long as nobody looks at it twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from cuda_attention import attention
from cuda_harness import Case, compare, dtype_of, reference, simulate
from indexed_cases import merged_sorts
from kernel_harness import finish, over
from loop_cases import elementwise, reductions, turned

from engine import dtypes, op
from engine.errors import BoundsError
from engine.program import Lowered
from engine.schedule import Access, Contraction, Custom, KernelSpec
from runtime.cuda import sort
from runtime.cuda.lower import lower
from runtime.cuda.simulator.machine import DivergenceError
from runtime.cuda.simulator.shared import RaceError

ORDERS = (0, 1, 2)


def product() -> Case:
    """a (40 x 200) times b (200 x 56) of bf16: tiles with ragged edges, more of k than there are stages."""
    m, n, k = 40, 56, 200
    a, b, y = Access("a", dtypes.bf16, (k, 1)), Access("b", dtypes.bf16, (1, k)), Access("y", dtypes.bf16, (n, 1))
    spec = KernelSpec("product", (m, n), (), (y,), finish(dtypes.bf16), Contraction(a, b, k))
    rng = np.random.default_rng(0)
    sizes = {"a": m * k, "b": k * n, "y": m * n}
    arrays = {name: rng.standard_normal(size).astype(dtypes.bf16.numpy) for name, size in sizes.items()}
    return Case("product", spec, arrays)


def changed(lowered: Lowered, source: str, number: int = 0) -> Lowered:
    """The same with another text of one of its kernels."""
    kernels = [replace(k, source=source) if i == number else k for i, k in enumerate(lowered.kernels)]
    return replace(lowered, kernels=tuple(kernels))


def found(case: Case, lowered: Lowered, orders: Sequence[int] = ORDERS) -> set[type[Exception]]:
    """How the kernel fails under each order of threads; AssertionError where it writes what it should not."""
    expected, errors = reference(case), set()
    for order in orders:
        arrays = {name: a.copy() for name, a in case.arrays.items()}
        try:
            simulate(lowered, arrays, case.values, order)
            compare(case, arrays, expected)
        except (BoundsError, DivergenceError, AssertionError) as error:
            errors.add(type(error))
    return errors


CASE = product()
LOWERED = lower(CASE.spec)
SOURCE = LOWERED.kernels[0].source


def test_the_kernel_itself_is_right():
    assert found(CASE, LOWERED) == set()


def places(pattern: str) -> list[int]:
    """Where the kernel has ``pattern``."""
    return [m.start() for m in re.finditer(pattern, SOURCE)]


def families() -> list[Case]:
    """Kernels that pass through shared memory, each in a way of its own."""
    forward = attention(1, 1, 20, 140, 16, 16, dtype="bf16")
    backward = attention(1, 1, 20, 70, 16, 16, dtype="bf16", backward=True)
    return [
        CASE,
        replace(forward, name="attention", tolerance=2e-2),
        replace(backward, name="attention, backward", tolerance=2e-2),
        *(c for c in reductions() if c.name in ("rows of a block", "columns")),
        turned()[0],
    ]


BARRIER = re.compile(r"cuda\.sync(threads|warp)\(\)")


@pytest.mark.slow
@pytest.mark.parametrize("case", families(), ids=lambda c: c.name)
def test_a_missing_barrier(case: Case):
    lowered = lower(case.spec)
    tried = 0
    for number, kernel in enumerate(lowered.kernels):
        for at in BARRIER.finditer(kernel.source):
            source = kernel.source[: at.start()] + "pass" + kernel.source[at.end() :]
            line = kernel.source[: at.start()].count("\n") + 1
            assert found(case, changed(lowered, source, number), (1,)) == {RaceError}, f"{kernel.name}: line {line}"
            tried += 1
    assert tried


def test_a_wait_that_is_too_early():
    assert "cp_async_wait(1)" in SOURCE
    for wrong in ("cp_async_wait(2)", "pass"):
        assert found(CASE, changed(LOWERED, SOURCE.replace("cp_async_wait(1)", wrong, 1))) == {RaceError}


def test_a_wait_behind_the_barrier():
    swapped = re.sub(r"( *cp_async_wait\(1\)\n)( *cuda\.syncthreads\(\)\n)", r"\2\1", SOURCE)
    assert swapped != SOURCE
    assert found(CASE, changed(LOWERED, swapped)) == {RaceError}


def test_a_commit_that_is_left_out():
    assert found(CASE, changed(LOWERED, SOURCE.replace("cp_async_commit()", "pass"))) == {RaceError}


@pytest.mark.parametrize("name", ["used", "filled"])
def test_a_wrong_stage(name: str):
    (step,) = re.findall(rf"{name} \+= (\d+)", SOURCE)
    late = SOURCE.replace(f"    {name} = shared\n    ", f"    {name} = shared + {step}\n    ", 1)
    stuck = SOURCE.replace(f"{name} += {step}", "pass")
    assert SOURCE not in (late, stuck)
    for wrong in (late, stuck):
        assert found(CASE, changed(LOWERED, wrong)) & {RaceError, AssertionError}


@pytest.mark.parametrize("at", places(r" < [mn](?=:| else)"))
def test_an_overrun_at_the_edge(at: int):
    """Rows and columns past the end of the matrices, read or written."""
    wrong = SOURCE[: at + 4] + " + 1" + SOURCE[at + 4 :]
    assert found(CASE, changed(LOWERED, wrong)) & {BoundsError, AssertionError}


def test_a_barrier_that_some_threads_pass_by():
    wrong = SOURCE.replace("        cuda.syncthreads()", "        if warp == 0:\n            cuda.syncthreads()", 1)
    errors = found(CASE, changed(LOWERED, wrong))
    assert errors and errors <= {DivergenceError, RaceError}


def test_blocks_that_overlap():
    """Two blocks update the same elements: the second starts from what the first has made of them."""
    case = next(c for c in elementwise() if c.name == "in place")
    lowered = lower(case.spec)
    wrong = lowered.kernels[0].source.replace("cuda.blockIdx.x * 128", "cuda.blockIdx.x * 64")
    assert wrong != lowered.kernels[0].source
    assert found(case, changed(lowered, wrong)) == {RaceError}


def test_blocks_that_reduce_the_same_rows_in_place():
    case = next(c for c in reductions() if c.name == "rows of a block in place")
    lowered = lower(case.spec)
    wrong = lowered.kernels[0].source.replace("block = cuda.blockIdx.x", "block = cuda.blockIdx.x // 2")
    assert wrong != lowered.kernels[0].source
    assert found(case, changed(lowered, wrong), (0,)) == {RaceError}


def test_pieces_of_a_merge_that_overlap(monkeypatch):
    monkeypatch.setattr(sort, "_RUN", 64)
    case = merged_sorts()[0]
    lowered = lower(case.spec)
    source = lowered.kernels[1].source
    wrong = source.replace("stop = min(begin + 64, length)", "stop = min(begin + 65, length)")
    assert wrong != source
    assert found(case, changed(lowered, wrong, 1), (0,)) & {RaceError, BoundsError}


def ctc(name: str) -> Case:
    """An example of 4 steps and 41 states, for two warps."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 1, 3)).astype(np.float32)
    known = [x, rng.integers(1, 3, (1, 20)), np.array([4]), np.array([2])]
    read = known if name == "ctc_loss" else [np.ones(1, np.float32), *known]
    written = [(1,), (1, 4, 41)] if name == "ctc_loss" else [(1, 4, 3), (1, 4, 41), (1, 4, 41)]
    arrays = [*read, *(np.zeros(shape, np.float32) for shape in written)]
    accesses = [over(f"b{i}", a.shape, dtype_of(a)) for i, a in enumerate(arrays)]
    core = Custom(op.get(name).kernel, tuple(a.shape for a in arrays), (("blank", 0),))
    spec = KernelSpec(name, (1,), tuple(accesses[: len(read)]), tuple(accesses[len(read) :]), (), core)
    return Case(name, spec, {f"b{i}": a for i, a in enumerate(arrays)}, tolerance=1e-5)


@pytest.mark.parametrize("name", ["ctc_loss", "ctc_loss_grad"])
def test_a_team_that_does_not_meet(name: str):
    """Threads go on to the next step of a CTC loss before the others have written their states."""
    case = ctc(name)
    lowered = lower(case.spec)
    assert found(case, lowered) == set()
    wrong = lowered.kernels[0].source.replace("meet = _tenon.meet", "meet = _tenon.compiled(meet)")
    assert found(case, changed(lowered, wrong)) == {RaceError}

"""Executors: binding to sizes, state, checks, and every kind of array that a caller may bring."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from tiny_kernels import ADD, SUM_THROUGH_SCRATCH, B, accumulate, add, chain

from engine import dims
from engine.buffers import Buffer
from engine.dims import Assumption
from engine.dtypes import f32, f64
from engine.errors import DTypeError, IndexRangeError, ShapeError, SourceLocation, StateError, TenonError, VerifyError
from engine.program import Block, Call, Pointer, Port, Program
from engine.state import Cell, place_together
from runtime import cache
from runtime.cpu.driver import Driver
from runtime.cpu.extents import Memory
from runtime.cpu.loading import build
from runtime.results import ALIGNED_BYTES

F = np.float32


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setenv("TENON_THREADS", "2")
    return lambda program, **cells: build(program, cells, cache.default())[0]


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=F).reshape(shape)


# --- sizes -------------------------------------------------------------------------------------------------


def test_one_program_serves_every_size_and_binds_each_once(make):
    executor = make(chain(3))
    for batch in (1, 7, 0, 64, 7, 1000, 1):
        x = numbers(batch, 4)
        (y,) = executor.run([x])
        assert y.shape == (batch, 4) and y.dtype == F and np.array_equal(y, 4 * x)
        assert y.nbytes < ALIGNED_BYTES or y.ctypes.data % 64 == 0
    found = executor.counters
    assert (found.calls, found.bindings) == (7, 5)
    assert found.arena_bytes == 2 * 1000 * 4 * 4


def test_memory_is_known_before_anything_runs(make):
    executor = make(chain(4))
    memory = executor.memory({"B": 64})
    assert memory["temp"] == 2 * 64 * 16 and memory["input"] == memory["output"] == 64 * 16
    assert executor.counters.bindings == 0
    with pytest.raises(ShapeError, match="no size is given for the dim B"):
        executor.memory({})


def test_only_so_many_bindings_are_kept(make):
    executor = make(chain(1))
    for batch in range(1, 40):
        executor.run([numbers(batch, 4)])
    assert len(executor._bindings) == 32
    executor.run([numbers(39, 4)])
    assert executor.counters.bindings == 39
    assert np.array_equal(executor.run([numbers(1, 4)])[0], 2 * numbers(1, 4))


def test_shapes_that_do_not_fit_are_told(make):
    executor = make(accumulate(), total=Cell(np.zeros(4), f32))
    with pytest.raises(ShapeError, match=r"input 'x' has shape \(5,\); expected \(4,\): axis 0 is 5 instead of 4"):
        executor.run([numbers(5), [1]])
    with pytest.raises(ShapeError, match=r"input 'i' has shape \(1, 1\); expected \(B,\): rank 2 instead of 1"):
        executor.run([numbers(4), [[1]]])
    with pytest.raises(DTypeError, match="input 'x' has dtype float64; expected f32"):
        executor.run([numbers(4).astype(np.float64), [1]])
    with pytest.raises(TenonError, match="expected 2 inputs"):
        executor.run([numbers(4)])


def test_assumptions_are_checked_with_their_reason_and_line(make):
    where = SourceLocation("model.py", 12, "forward")
    even = Assumption(B % 2, "== 0", "the batch is cut in halves", where)  # type: ignore[arg-type]
    executor = make(replace(chain(1), assumptions=(even,)))
    executor.run([numbers(2, 4)])
    with pytest.raises(ShapeError, match=r"the batch is cut in halves \(here B=3\)\n  at model.py:12 in forward"):
        executor.run([numbers(3, 4)])


def test_nested_blocks_and_symbolic_arguments(make):
    """A kernel that reads its real arguments through a pointer."""
    from tiny_kernels import kernel

    through = kernel(
        "through",
        "inner = slot(args, 1)\n"
        "store_f32(slot(inner, 1), t, load_f32(slot(inner, 0), t, 0) + slot(args, 0) + slot(slot(inner, 2), 0), 1)",
    )
    args = (2 * B, Block((Pointer("x"), Pointer("y"), Block((B // 2,)))))
    program = Program(
        "p",
        (Port("x", (B + 1,), f32, "x"),),
        (Port("y", (B + 1,), f32, "y"),),
        (),
        (),
        (Buffer("x", "input", f32, B + 1), Buffer("y", "output", f32, B + 1)),
        (Call(through.key, "through", args, B + 1, ("x",), ("y",)),),
        kernels=(through,),
    )
    executor = make(program)
    for batch in (4, 9):
        x = numbers(batch + 1)
        assert np.array_equal(executor.run([x])[0], x + 2 * batch + batch // 2)


def test_every_thread_has_scratch_of_its_own(make):
    rows = 64
    args = (Pointer("x"), Pointer("y"), 8)
    program = Program(
        "sums",
        (Port("x", (B, 8), f32, "x"),),
        (Port("y", (B,), f32, "y"),),
        (),
        (),
        (Buffer("x", "input", f32, 8 * B), Buffer("y", "output", f32, B)),
        (Call(SUM_THROUGH_SCRATCH.key, "sum", args, B, ("x",), ("y",), scratch=32),),
        kernels=(SUM_THROUGH_SCRATCH,),
    )
    executor = make(program)
    for _ in range(50):
        assert np.array_equal(executor.run([numbers(rows, 8)])[0], numbers(rows, 8).sum(1))
    assert executor.memory({"B": 1})["scratch"] == 2 * (64 + 64)


# --- inputs and outputs ------------------------------------------------------------------------------------


def unaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def read_only(x):
    x.setflags(write=False)
    return x


@pytest.mark.parametrize(
    "bring",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, 0)[::2],
        lambda x: x[::-1].copy()[::-1],
        unaligned,
        read_only,
        lambda x: x.astype(">f4"),
        lambda x: x.tolist(),
        lambda x: np.ma.masked_array(x),
    ],
)
def test_any_array_will_do(make, bring):
    x = numbers(6, 4)
    (y,) = make(chain(2)).run({"x": bring(x.copy())})
    assert np.array_equal(y, 3 * x)


def test_outputs_are_fresh_unless_given(make):
    executor = make(chain(2))
    x = numbers(6, 4)
    (first,) = executor.run([x])
    before = executor.counters.allocated
    (second,) = executor.run([x + 1])
    assert not np.shares_memory(first, second) and np.array_equal(first, 3 * x)
    assert executor.counters.allocated == before + 1
    out = np.empty((6, 4), F)
    assert executor.run([x], out=[out])[0] is out and np.array_equal(out, 3 * x)
    assert executor.counters.allocated == before + 1
    strided = np.empty((4, 6), F).T
    assert executor.run([x], out=[strided])[0] is strided and np.array_equal(strided, 3 * x)
    same = x.copy()
    executor.run([same], out=[same])
    assert np.array_equal(same, 3 * x)
    shifted = np.zeros(28, F)
    shifted[4:] = x.ravel()
    executor.run([shifted[4:].reshape(6, 4)], out=[shifted[:24].reshape(6, 4)])
    assert np.array_equal(shifted[:24].reshape(6, 4), 3 * x)


def test_an_out_that_does_not_fit_is_told(make):
    executor = make(chain(2))
    with pytest.raises(ShapeError, match=r"out for 'y' has shape \(5, 4\); expected \(6, 4\)"):
        executor.run([numbers(6, 4)], out=[numbers(5, 4)])
    with pytest.raises(DTypeError, match="out for 'y' has dtype float64; expected f32"):
        executor.run([numbers(6, 4)], out=[np.zeros((6, 4))])
    with pytest.raises(ShapeError, match="out holds 0 arrays; expected 1"):
        executor.run([numbers(6, 4)], out=[])
    with pytest.raises(TenonError, match="out for 'y' is read-only"):
        executor.run([numbers(6, 4)], out=[read_only(numbers(6, 4))])


def test_outputs_that_no_kernel_writes_are_copied(make):
    """An input, state, a constant, a temp and the same value twice, returned as they are."""
    shape = (4,)
    kinds = {"x": "input", "y": "output", "s": "state", "c": "const", "t": "temp"}
    program = Program(
        "identity",
        (Port("x", shape, f32, "x"),),
        tuple(Port(f"o{i}", shape, f32, b) for i, b in enumerate("xsctyy")),
        (Port("s", shape, f32, "s"),),
        (),
        tuple(Buffer(n, k, f32, 4) for n, k in kinds.items()),
        (add("x", "c", "t", 1), add("t", "s", "y", 1)),
        kernels=(ADD,),
        constants={"c": np.full(4, 10, F).tobytes()},
    )
    cell = Cell(np.full(4, 100), f32)
    executor = make(program, s=cell)
    x = numbers(4)
    given, state, constant, temp, first, second = executor.run([x])
    assert not np.shares_memory(given, x) and not np.shares_memory(state, cell.array)
    assert not np.shares_memory(first, second)
    assert np.array_equal(given, x) and np.array_equal(state, [100] * 4) and np.array_equal(constant, [10] * 4)
    assert np.array_equal(temp, x + 10) and np.array_equal(first, x + 110) and np.array_equal(second, first)


def test_a_program_may_have_no_kernels_and_no_inputs(make):
    ports = (Port("x", (B, 2), f32, "x"),)
    copy = make(Program("copy", ports, (replace(ports[0], name="y"),), (), (), (Buffer("x", "input", f32, 2 * B),), ()))
    x = numbers(3, 2)
    assert np.array_equal(copy.run([x])[0], x)
    assert make(Program("nothing", (), (), (), (), (), ())).run({}) == ()


def test_a_temp_that_is_returned_lives_to_the_end(make):
    program = chain(6)
    early = Port("early", (B, 4), f32, "t0")
    executor = make(replace(program, outputs=(early, *program.outputs)))
    x = numbers(5, 4)
    first, last = executor.run([x])
    assert np.array_equal(first, 2 * x) and np.array_equal(last, 7 * x)


def test_a_step_without_its_kernel_or_buffer_is_a_defect(make):
    program = chain(1)
    with pytest.raises(VerifyError, match=r"'y = x \+ x' runs the kernel nowhere, which the program does not have"):
        make(replace(program, main=(replace(program.main[0], kernel="nowhere"),))).run([numbers(1, 4)])
    with pytest.raises(VerifyError, match="points at the buffer 'nothing'"):
        make(replace(program, main=(replace(program.main[0], args=(Pointer("nothing"),)),))).run([numbers(1, 4)])


# --- state -------------------------------------------------------------------------------------------------


def test_state_is_updated_in_place_and_its_version_counts(make):
    total = Cell(np.zeros(4), f32)
    at = total.array.ctypes.data
    executor = make(accumulate(), total=total)
    for step in range(1, 4):
        (y,) = executor.run([numbers(4), [1, 2]])
        assert np.array_equal(total.array, step * numbers(4)) and np.array_equal(y, 2 * numbers(4))
        assert total.version == step and total.array.ctypes.data == at


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_failed_check_raises_and_leaves_state_alone(make, monkeypatch, threads):
    monkeypatch.setenv("TENON_THREADS", threads)
    total = Cell(np.zeros(4), f32)
    executor = make(accumulate(), total=total)
    for labels in ([3, 12], [11], list(range(10)) * 9 + [77]):
        with pytest.raises(IndexRangeError, match=f"the label {max(labels)} is not below 10") as raised:
            executor.run([numbers(4), labels])
        assert raised.value.location == SourceLocation("digits.py", 7, "step")
        assert (total.array == 0).all() and total.version == 0
    executor.run([numbers(4), []])
    assert np.array_equal(total.array, numbers(4))


def test_an_interrupted_call_counts_as_a_change_of_state(make, monkeypatch):
    """Python raises a Ctrl-C when the native code has returned, so what is packed from the state is stale."""
    total = Cell(np.zeros(4), f32)
    executor = make(accumulate(), total=total)
    executor.run([numbers(4), [1]])
    run = Driver.run

    def interrupted(driver, *table):
        run(driver, *table)
        raise KeyboardInterrupt

    monkeypatch.setattr(Driver, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        executor.run([numbers(4), [1]])
    assert np.array_equal(total.array, 2 * numbers(4)) and total.version == 2


def test_an_input_that_is_the_state_itself_is_read_before_it_changes(make):
    total = Cell(numbers(4), f32)
    executor = make(accumulate(), total=total)
    (y,) = executor.run([total.array, [1]])
    assert np.array_equal(total.array, 2 * numbers(4)) and np.array_equal(y, 2 * numbers(4))
    out = total.array
    executor.run([numbers(4), [1]], out=[out])
    assert np.array_equal(out, 2 * numbers(4))


def test_memory_is_what_its_arrays_take_and_not_the_gaps_between_them():
    block = np.zeros(100, np.uint8)
    start = block.ctypes.data
    memory = Memory([block[60:80], block[10:20], block[20:30], block[50:50], block[70:90]])
    assert (memory.first - start, memory.end - start) == (10, 90)
    written = {*range(10, 30), *range(60, 90)}
    for first in range(100):
        for end in range(first + 1, 101):
            assert memory.holds(start + first, start + end) == (not written.isdisjoint(range(first, end)))
    nowhere = Memory([])
    assert nowhere.first == nowhere.end and not nowhere.holds(start, start + 100)


def test_an_input_between_two_updated_states_takes_the_short_way(make):
    low, between, high = (Cell.empty((4,), f32) for _ in range(3))
    place_together([low, between, high])
    between.write(numbers(4))
    program = Program(
        "two",
        (Port("x", (4,), f32, "x"),),
        (Port("y", (4,), f32, "y"),),
        (Port("low", (4,), f32, "low"), Port("high", (4,), f32, "high")),
        ("low", "high"),
        tuple(Buffer(n, k, f32, 4) for n, k in {"x": "input", "y": "output", "low": "state", "high": "state"}.items()),
        (add("x", "x", "y", 1), add("low", "x", "low", 1), add("high", "x", "high", 1)),
        kernels=(ADD,),
    )
    executor = make(program, low=low, high=high)
    for _ in range(3):
        executor.run((between.array,))
    assert executor.counters.allocated == 3 and executor._latest.shortcut((between.array,)) is not None
    assert executor._latest.shortcut((high.array,)) is None
    executor.run((high.array,))
    assert np.array_equal(low.array, 6 * numbers(4)) and np.array_equal(high.array, 6 * numbers(4))


def test_state_that_does_not_fit_is_told(make):
    with pytest.raises(StateError, match="needs the state 'total', which is not there"):
        make(accumulate())
    with pytest.raises(StateError, match="has dtype f64; the program expects f32"):
        make(accumulate(), total=Cell(np.zeros(4), f64))
    with pytest.raises(ShapeError, match=r"state 'total' has shape \(5,\); expected \(4,\)"):
        make(accumulate(), total=Cell(np.zeros(5), f32))


def prepared(update: str) -> Program:
    """y = x + (w + w) for the state w: f32[4], packed as p = w + w beforehand. ``update`` says what main does:
    ``none``, ``state`` (w += x) or ``both`` (and p with it)."""
    main = [add("x", "p", "y", 1)]
    if update != "none":
        main.append(add("w", "x", "w", 1))
    if update == "both":
        main.append(add("w", "w", "p", 1))
    kinds = {"x": "input", "y": "output", "w": "state", "p": "packed"}
    return Program(
        "prepared",
        (Port("x", (4,), f32, "x"),),
        (Port("y", (4,), f32, "y"),),
        (Port("w", (4,), f32, "w"),),
        () if update == "none" else ("w",),
        tuple(Buffer(n, k, f32, 4) for n, k in kinds.items()),
        tuple(main),
        prepare=(add("w", "w", "p", 1),),
        kernels=(ADD,),
    )


@pytest.mark.parametrize(("update", "main", "prepares"), [("none", 1, 1), ("state", 2, 4), ("both", 3, 1)])
def test_packed_state_is_prepared_only_when_it_is_stale(make, update, main, prepares):
    w = Cell(np.ones(4), f32)
    executor = make(prepared(update), w=w)
    x = numbers(4)
    expected = np.ones(4, F)
    for _ in range(4):
        (y,) = executor.run([x])
        assert np.array_equal(y, x + 2 * expected)
        expected = expected + (x if update != "none" else 0)
    assert executor.counters.steps == 4 * main + prepares
    w.write(np.full(4, 5))
    assert np.array_equal(executor.run([x])[0], x + 10)
    assert executor.counters.steps == 5 * main + prepares + 1


def test_programs_share_state_and_dims_come_from_it_too(make):
    size = dims.dim("C")
    program = Program(
        "double",
        (),
        (Port("y", (size,), f32, "y"),),
        (Port("w", (size,), f32, "w"),),
        (),
        (Buffer("w", "state", f32, size), Buffer("y", "output", f32, size)),
        (replace(add("w", "w", "y", 1), args=(Pointer("w"), Pointer("w"), Pointer("y"), size)),),
        kernels=(ADD,),
    )
    w = Cell(numbers(6), f32)
    first, second = make(program, w=w), make(program, w=w)
    w.write(numbers(6) + 1)
    for executor in (first, second):
        assert np.array_equal(executor.run([])[0], 2 * numbers(6) + 2)


def test_several_threads_may_call_one_executor(make):
    executor = make(chain(10))
    wrong = []

    def work(seed):
        x = numbers(3 + seed, 4) + seed
        for _ in range(50):
            if not np.array_equal(executor.run([x])[0], 11 * x):
                wrong.append(seed)

    callers = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong and executor.counters.calls == 150


# --- the short way into a call -----------------------------------------------------------------------------


def test_calls_alike_take_the_short_way_and_others_do_not(make):
    executor = make(chain(3))
    x, y = numbers(5, 4), numbers(900, 4)  # the second moves the arena
    taken = []
    for given in (x, x, x, y, x, y, y, x + 1, x + 2, read_only(x.copy()), np.asfortranarray(x), unaligned(x)):
        latest = executor._latest
        taken.append(bool(latest and latest.shortcut and latest.shortcut((given,))))
        assert np.array_equal(executor.run((given,))[0], 4 * given)
    assert taken == [False, False, True, False, False, False, True, False, True, False, False, False]
    for wrong in ((x.astype(np.float64),), (x, x), (x[0],)):
        with pytest.raises(TenonError):
            executor.run(wrong)

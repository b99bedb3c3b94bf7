"""The native driver's code: it walks a table of steps, alone or as one of several threads.

This file is compiled as a kernel of its own (see driver.py, which names the slots and never imports it). Addresses
and counts are int64.
"""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from runtime.cpu.driver import (  # isort: skip
    ARGUMENTS, BARRIER, BEGIN, CHECK, COUNT_BARRIERS, COUNT_STEPS, COUNTER, DELTA, END, ENDED, ENTERED, ERROR,
    FIELDS, FLAGS, FUNCTION, GOMP_PARALLEL, GUARD, LEFT, LOG, LOG_HEAD, LOG_STRIDE, LOOPED, MEETING,
    OMP_NUM_THREADS, OMP_THREAD_NUM, OWNER, PATCH_COUNT, PATCH_FIELDS, PATCHES, PRIVATE, PRIVATE_STRIDE,
    PRIVATE_WORDS, RECORD_WORDS, RECORDS, RELOCATION_COUNT, RELOCATIONS, ROW, SCRATCH, SCRATCH_STRIDE, SELF, SHARED,
    STARTED, STEP_COUNT, STEPS, TASKS, THREADS, TIMES, TURNS, WORD,
)  # fmt: skip
from runtime.cpu.meeting import meet

TIMED = False
"""Whether it also writes down when each thread ran which step. Another driver is compiled for that, see driver.py: this
one has not even the question in its code."""

_WORD, _INT, _VOID, _BYTES = ir.IntType(64), ir.IntType(32), ir.VoidType(), ir.IntType(8).as_pointer()
_KERNEL = ir.FunctionType(_VOID, [_WORD] * 4)
_ASK = ir.FunctionType(_INT, [])
_REGION = ir.FunctionType(_VOID, [_BYTES])
_PARALLEL = ir.FunctionType(_VOID, [_REGION.as_pointer(), _BYTES, _INT, _INT])

_COUNTERS = {"aarch64": "mrs $0, cntvct_el0", "arm64": "mrs $0, cntvct_el0"}


def _slot(builder, address, index):
    return builder.gep(builder.inttoptr(address, _WORD.as_pointer()), [index])


@intrinsic
def load(typingctx, address, index):
    """Slot ``index`` of the block at ``address``."""

    def emit(context, builder, signature, args):
        return builder.load(_slot(builder, *args))

    return types.int64(types.int64, types.int64), emit


@intrinsic
def store(typingctx, address, index, value):
    """Write a slot that only this thread uses."""

    def emit(context, builder, signature, args):
        builder.store(args[2], _slot(builder, *args[:2]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def load_byte(typingctx, address):
    """The byte at ``address``."""

    def emit(context, builder, signature, args):
        return builder.zext(builder.load(builder.inttoptr(args[0], _BYTES)), _WORD)

    return types.int64(types.int64), emit


@intrinsic
def load_shared(typingctx, address, index):
    """A slot that other threads write (acquire)."""

    def emit(context, builder, signature, args):
        return builder.load_atomic(_slot(builder, *args), "acquire", 8)

    return types.int64(types.int64, types.int64), emit


@intrinsic
def fetch_add(typingctx, address, index, value):
    """Add to a slot atomically; returns what was there before."""

    def emit(context, builder, signature, args):
        return builder.atomic_rmw("add", _slot(builder, *args[:2]), args[2], "acq_rel")

    return types.int64(types.int64, types.int64, types.int64), emit


@intrinsic
def call_kernel(typingctx, function, args, lo, hi, scratch):
    """Call the kernel at address ``function``."""

    def emit(context, builder, signature, values):
        builder.call(builder.inttoptr(values[0], _KERNEL.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), emit


@intrinsic
def now(typingctx):
    """The processor's own count of time: of one speed, and the same on all its cores."""

    def emit(context, builder, signature, values):
        read = next((text for start, text in _COUNTERS.items() if builder.module.triple.startswith(start)), None)
        if read:
            return builder.asm(ir.FunctionType(_WORD, []), read, "=r", [], True)
        counter = builder.module.declare_intrinsic("llvm.readcyclecounter", fnty=ir.FunctionType(_WORD, []))
        return builder.call(counter, [])

    return types.int64(), emit


@intrinsic
def open_region(typingctx, control, threads, gomp_parallel):
    """Run the driver in an OpenMP region of ``threads`` threads: each enters again at SELF with its own number."""

    def emit(context, builder, signature, values):
        region = ir.Function(builder.module, _REGION, builder.module.get_unique_name("tenon_region"))
        region.linkage = "internal"
        body = ir.IRBuilder(region.append_basic_block())
        block = body.ptrtoint(region.args[0], _WORD)

        def callee(slot, kind):
            return body.inttoptr(body.load(_slot(body, block, _WORD(slot))), kind.as_pointer())

        number = body.sext(body.call(callee(OMP_THREAD_NUM, _ASK), []), _WORD)
        count = body.sext(body.call(callee(OMP_NUM_THREADS, _ASK), []), _WORD)
        body.call(callee(SELF, _KERNEL), [block, number, count, _WORD(0)])
        body.ret_void()
        start = builder.inttoptr(values[2], _PARALLEL.as_pointer())
        data = builder.inttoptr(values[0], _BYTES)
        builder.call(start, [region, data, builder.trunc(values[1], _INT), _INT(0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@njit
def copy_blocks(control, private):
    """Give a thread its own copy of the argument blocks that are used in loops, at ``private``."""
    shared = load(control, SHARED)
    for i in range(load(control, PRIVATE_WORDS)):
        store(private, i, load(shared, i))
    inner = load(control, RELOCATIONS)
    for i in range(load(control, RELOCATION_COUNT)):
        word = load(inner, i)
        store(private, word, load(private, word) + private - shared)


@njit
def next_turn(loop, private):
    """Move a loop's windows on, in a thread's own blocks; back to the start, and false, after its last turn."""
    counter = load(loop, COUNTER)
    turn = load(private, counter)
    last = turn + 1 >= load(loop, TIMES)
    store(private, counter, 0 if last else turn + 1)
    patch = load(loop, PATCHES)
    for _ in range(load(loop, PATCH_COUNT)):
        delta = load(patch, DELTA)
        if load(patch, TURNS) != 0:
            if turn & 1:
                delta = -delta
            elif last:
                delta = 0
        elif last:
            delta = -delta * turn
        word = load(patch, WORD)
        store(private, word, load(private, word) + delta)
        patch += 8 * PATCH_FIELDS
    return not last


def driver(control, thread, threads, _unused):
    """Run thread ``thread``'s share (of ``threads``) of every step of the table in ``control``; where ``threads`` is
    0, as many threads as the control block asks for do, in one OpenMP region."""
    if threads == 0:
        open_region(control, load(control, THREADS), load(control, GOMP_PARALLEL))
        return
    step = load(control, STEPS)
    end = step + load(control, STEP_COUNT) * 8 * FIELDS
    scratch = load(control, SCRATCH) + thread * load(control, SCRATCH_STRIDE)
    meeting = load(control, MEETING)
    private = load(control, PRIVATE) + thread * load(control, PRIVATE_STRIDE)
    moved = private - load(control, SHARED)
    if load(control, PRIVATE_WORDS) > 0:
        copy_blocks(control, private)
    barriers = 0
    done = 0
    if TIMED:
        log = load(control, LOG) + thread * load(control, LOG_STRIDE)
        record = log + 8 * LOG_HEAD
        store(log, ENTERED, now())
    while step < end:
        flags = load(step, FLAGS)
        if flags & BARRIER:
            if threads > 1:
                meet(meeting, 1, threads)
                barriers += 1
            if flags & CHECK and load_shared(load(control, ERROR), 0) != 0:
                break
        tasks = load(step, TASKS)
        guard = load(step, GUARD)
        arguments = load(step, ARGUMENTS)
        if flags & END:
            step += 8 * FIELDS * (-tasks if next_turn(arguments, private) else 1)
            continue
        if flags & LOOPED:
            arguments += moved
            if guard != 0:
                guard += moved
        runs = guard == 0 or load_byte(load(guard, 0)) != 0
        if flags & BEGIN:
            step += 8 * FIELDS * (1 if runs else tasks)
            continue
        if tasks == 1:
            # Small steps take turns, so that independent ones run side by side.
            lo = 0
            hi = 1 if load(step, OWNER) % threads == thread else 0
        else:
            lo = tasks * thread // threads
            hi = tasks * (thread + 1) // threads
        if lo < hi and runs:
            if TIMED:
                store(record, ROW, (step - load(control, STEPS)) // (8 * FIELDS))
                store(record, STARTED, now())
            call_kernel(load(step, FUNCTION), arguments, lo, hi, scratch)
            if TIMED:
                store(record, ENDED, now())
                record += 8 * RECORD_WORDS
        step += 8 * FIELDS
        done += 1
    if TIMED:
        store(log, RECORDS, (record - log - 8 * LOG_HEAD) // (8 * RECORD_WORDS))
        store(log, LEFT, now())
    if thread == 0:
        fetch_add(control, COUNT_STEPS, done)
        fetch_add(control, COUNT_BARRIERS, barriers)

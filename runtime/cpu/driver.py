"""The native driver: its control block and step table, its code, and how it is entered.

One call from Python walks a whole program. A control block (int64 slots, named below) says where the table of steps
is, how many threads take part and how they meet; :mod:`runtime.cpu.driver_kernel` is the code.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from engine import dtypes
from engine.program import Kernel
from engine.state import aligned_empty
from runtime.cpu import threads

# Slots of the control block.
SELF = 0  # address of the driver
THREADS = 1
STEPS = 2  # address of the step table
STEP_COUNT = 3
SCRATCH = 4  # address of thread 0's scratch
SCRATCH_STRIDE = 5  # bytes from one thread's scratch to the next
ERROR = 6  # address of the error word
GOMP_PARALLEL = 7  # addresses of libgomp's functions
OMP_THREAD_NUM = 8
OMP_NUM_THREADS = 9
MEETING = 11  # address of the spin barrier
COUNT_STEPS = 12  # steps and barriers so far
COUNT_BARRIERS = 13
SHARED = 14  # address of the argument blocks that are used in loops
PRIVATE = 15  # address of thread 0's own copy of them
PRIVATE_STRIDE = 16  # bytes from one thread's copy to the next
PRIVATE_WORDS = 17  # their number
RELOCATIONS = 18  # address of a list of the words that point into the blocks themselves
RELOCATION_COUNT = 19
LOG = 20  # address of thread 0's log, which the timed driver writes
LOG_STRIDE = 21  # bytes from one thread's log to the next
CONTROL_SLOTS = 24

# A log: a head, then a record for each run of a kernel. Times are the processor's own count.
RECORDS = 0  # their number
ENTERED = 1  # when this thread came
LEFT = 2  # when it went
LOG_HEAD = 3
ROW = 0  # of the table
STARTED = 1
ENDED = 2
RECORD_WORDS = 3

# Fields of a step.
FUNCTION = 0
ARGUMENTS = 1  # address of its argument block
TASKS = 2
FLAGS = 3
OWNER = 4  # which thread (modulo their number) runs a step of one task
GUARD = 5  # address of a word that holds the address of a byte: the step is passed over while that is 0; or 0
FIELDS = 6

# Flags of a step.
BARRIER = 1  # all threads meet before it
CHECK = 2  # having met, they leave if the error word is set
LOOPED = 4  # it is part of a loop: its arguments and its guard are the thread's own copies
BEGIN = 8  # no kernel: a loop begins; TASKS is how many rows on it ends, where its guard is zero
END = 16  # no kernel: a loop ends; TASKS is how many rows back it goes on; ARGUMENTS is the address of its block

# Loops. Each thread walks through a loop by itself, and moves the windows in its own copy of the argument blocks.
# Slots of a loop's block:
TIMES = 0
COUNTER = 1  # where in the private words the number of the current turn is kept
PATCHES = 2  # address of a list of patches
PATCH_COUNT = 3
LOOP_SLOTS = 4

# Fields of a patch: a word that moves by a number of bytes from turn to turn, or there and back.
WORD = 0
DELTA = 1
TURNS = 2
PATCH_FIELDS = 3

# The threads meet at a barrier of the driver's own, whoever started them: libgomp's took three times as long, and
# milliseconds where the machine is busy, as it spins for long before it yields.
# Its slots: how many have arrived; on its own cache line, how often all have met; and, on a third, the address of a
# function that gives up the processor, or 0.
ARRIVED = 0
GENERATION = 8
GIVE_WAY = 16
MEETING_SLOTS = 24
SPINS_BEFORE_YIELD = 2000

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


@cache
def driver_kernel() -> Kernel:
    """The driver as a kernel, compiled and cached like any other."""
    return _kernel(Path(__file__).with_name("driver_kernel.py").read_text(encoding="utf-8"))


@cache
def timed_driver_kernel() -> Kernel:
    """The driver that also writes a log of when each thread ran which step."""
    source = driver_kernel().source
    assert source.count("\nTIMED = False\n") == 1
    return _kernel(source.replace("\nTIMED = False\n", "\nTIMED = True\n"))


def _kernel(source: str) -> Kernel:
    return Kernel("driver", hashlib.sha256(source.encode()).hexdigest(), source)


class Steps(Protocol):
    """A table of ``count`` steps at ``address``. ``parallel``: more than one thread has something to do in it.
    ``loops`` are the control slots from SHARED on, where it has loops."""

    address: int
    count: int
    parallel: bool
    loops: tuple[int, ...]


class Driver:
    """The driver at ``address``, entered by up to ``count`` threads.

    ``scratch_bytes`` is what each thread gets of private memory. A Driver belongs to one executor and is entered
    by one caller at a time.
    """

    def __init__(self, address: int, count: int, scratch_bytes: int):
        self.address = address
        self.count = count
        stride = -(-scratch_bytes // 64) * 64 + 64  # one line apart, so that no two threads share one
        self._scratch = aligned_empty((count * stride,), dtypes.u8)
        self._meeting = new_meeting()
        self.error = aligned_empty((2,), dtypes.i64)
        self.error[:] = 0
        self._entry = ENTRY(address)
        self._runtime = threads.openmp() if count > 1 else None
        self._slots = aligned_empty((CONTROL_SLOTS,), dtypes.i64)
        control = self._slots
        control[:] = 0
        control[SELF], control[THREADS] = address, count
        control[SCRATCH] = self._scratch.ctypes.data
        control[SCRATCH_STRIDE] = stride
        control[ERROR] = self.error.ctypes.data
        control[MEETING] = self._meeting.ctypes.data
        if self._runtime is not None:
            control[GOMP_PARALLEL] = self._runtime.parallel
            control[OMP_THREAD_NUM] = self._runtime.thread_num
            control[OMP_NUM_THREADS] = self._runtime.num_threads
        self._control = memoryview(control)  # type: ignore[arg-type]
        self._error = memoryview(self.error)  # type: ignore[arg-type]
        self._control_address = control.ctypes.data
        # Made once: ctypes takes longer to convert four numbers than small programs run.
        self._alone = _arguments(self._control_address, 0, 1, 0)
        self._together = _arguments(self._control_address, 0, 0, 0)
        self._table: Steps | None = None  # what the control block says at present

    @property
    def scratch_bytes(self) -> int:
        return self._scratch.nbytes

    @property
    def error_address(self) -> int:
        return self.error.ctypes.data

    @property
    def steps(self) -> int:
        """Steps walked so far, counted by the native code."""
        return self._control[COUNT_STEPS]

    @property
    def barriers(self) -> int:
        """Meetings of all threads so far, counted by the native code."""
        return self._control[COUNT_BARRIERS]

    def run(self, table: Steps) -> int:
        """Walk the steps of ``table``; returns the error code, 0 for none."""
        if table is not self._table:
            self._turn_to(table)
        if not table.parallel or self.count == 1 or threads.is_forked:
            if table.count:
                self._entry(*self._alone)
        elif self._runtime is not None:
            self._entry(*self._together)
        else:
            threads.run_in_python_threads(self._entry, self._control_address, self.count)
        return self._error[0]

    def _turn_to(self, table: Steps) -> None:
        control = self._control
        control[STEPS], control[STEP_COUNT], control[PRIVATE_WORDS] = table.address, table.count, 0
        for i, value in enumerate(table.loops):
            control[SHARED + i] = value
        self._table = table

    def log_into(self, address: int = 0, log: int = 0, stride: int = 0) -> None:
        """Run by the timed driver at ``address`` from now on, whose threads' logs are at ``log``, ``stride`` bytes
        apart; without arguments by the plain one again."""
        control = self._control
        control[LOG], control[LOG_STRIDE] = log, stride
        control[SELF] = address or self.address
        self._entry = ENTRY(address or self.address)

    def take_error(self) -> tuple[int, int]:
        """The error word's code and value; it is cleared."""
        code, value = int(self.error[0]), int(self.error[1])
        self.error[:] = 0
        return code, value


def _arguments(*values: int) -> tuple[ctypes.c_int64, ...]:
    return tuple(map(ctypes.c_int64, values))


def new_meeting() -> np.ndarray:
    """A spin barrier that nobody has come to: i64[MEETING_SLOTS]."""
    meeting = aligned_empty((MEETING_SLOTS,), dtypes.i64)
    meeting[:] = 0
    meeting[GIVE_WAY] = threads.yield_address()
    return meeting


def new_table(steps: int) -> np.ndarray:
    """An empty table of ``steps`` steps: i64[steps, FIELDS]."""
    return aligned_empty((steps, FIELDS), dtypes.i64)

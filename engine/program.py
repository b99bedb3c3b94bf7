"""The program: what a backend makes of a schedule. A flat table of calls over buffers, as plain data.

It is written to the compile cache as JSON (sizes as their Python text) and bound to memory by the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import field

from engine import dims, dtypes
from engine.buffers import Buffer
from engine.dims import Size
from engine.records import dataclass


@dataclass(frozen=True)
class Pointer:
    """The address of byte ``offset`` of a buffer."""

    buffer: str
    offset: Size = 0


@dataclass(frozen=True)
class Block:
    """The address of a nested argument block."""

    args: tuple[Arg, ...]


@dataclass(frozen=True)
class Window:
    """How the copy engine goes over images for a convolution: its outputs in order meet, with their first tap, the
    pixels from row and column ``first`` on, ``step`` apart, up to ``last`` behind those of the image's last pixel (as a
    rule before it: negative). Another tap's are as much further on as the kernel says."""

    first: tuple[Size, Size]
    last: tuple[Size, Size]
    step: tuple[int, int]

    @property
    def sizes(self) -> tuple[Size, ...]:
        return *self.first, *self.last

    def at(self, number: Callable[[Size], int]) -> Window:
        """The same with numbers for its sizes."""
        first, last = ((number(h), number(w)) for h, w in (self.first, self.last))
        return Window(first, last, self.step)


@dataclass(frozen=True)
class BoxMap:
    """The address of a tensor map, as a GPU's copy engine wants it: of the array at ``at``, of two to five axes of the
    sizes ``shape`` and elements of ``itemsize`` bytes, neighbours along the last axis, ``strides`` bytes apart along
    the others (multiples of 16), from which boxes of the sizes ``box`` are copied, whose rows have up to 128 bytes and
    are swizzled as if they had 128. With a ``window`` the array has images, rows, columns and channels, and the box is
    so many pixels, an output's each, by so many channels. It is made where a program is bound to memory; that of an
    empty array is not used."""

    at: Pointer
    shape: tuple[Size, ...]
    strides: tuple[Size, ...]
    itemsize: int
    box: tuple[int, ...]
    window: Window | None = None

    @property
    def sizes(self) -> tuple[Size, ...]:
        return self.at.offset, *self.shape, *self.strides, *(self.window.sizes if self.window else ())


Arg = Pointer | Block | BoxMap | Size
"""One 64-bit slot of an argument block: an address, or an integer."""

ERROR = "$error"
"""The buffer name under which a kernel reaches the error word: i64[2], a code (0: none) and the value found."""


MEETING = "$meeting"
"""The buffer name under which a kernel reaches memory of the call's own, in which its threads meet while it runs."""


@dataclass(frozen=True)
class Call:
    """One step: run ``kernel`` (a Kernel's key) for tasks ``0..tasks`` on ``args``. On a GPU a task is a thread block.

    ``reads`` and ``writes`` name the buffers it touches, from which barriers and lifetimes follow.
    ``scratch`` is the private memory, in bytes, that each thread must hand to the kernel. ``indexed`` says that it goes
    where indices in memory send it: it must not run once a check has failed. Where ``guard`` points at a byte, the step
    is passed over while that is zero.
    """

    kernel: str
    label: str
    args: tuple[Arg, ...]
    tasks: Size
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    scratch: int = 0
    nodes: tuple[str, ...] = ()
    indexed: bool = False
    guard: Pointer | None = None

    @property
    def touched(self) -> tuple[str, ...]:
        """The buffers that must hold something when the step is reached: what it reads, and its guard."""
        return self.reads if self.guard is None else (*self.reads, self.guard.buffer)


@dataclass(frozen=True)
class Kernel:
    """Generated code: Python ``source`` that defines one function ``name``.

    On the CPU it takes ``(args, lo, hi, scratch)``: the address of an argument block, a range of tasks, memory of the
    thread's own. On a GPU it takes ``(guard, error, *args)``, all of them i64, and is run by ``tasks`` blocks of
    ``threads`` threads with ``shared`` bytes of dynamic shared memory each.

    ``name`` says what the kernel does; ``key`` is the hash of what it is compiled from. ``libm`` lets the code call C's
    math library, as users' kernels do. Where a kernel is ``cooperative``, all its blocks run at the same time.
    """

    name: str
    key: str
    source: str
    libm: bool = False
    threads: int = 0
    shared: int = 0
    cooperative: bool = False


@dataclass(frozen=True)
class Lowered:
    """What a backend makes of one KernelSpec: its calls in order, the code they run, the buffers they need."""

    calls: tuple[Call, ...]
    kernels: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...] = ()


def joined(parts: Iterable[Lowered]) -> Lowered:
    """All the calls of ``parts``, in order."""
    parts = tuple(parts)
    return Lowered(
        tuple(call for part in parts for call in part.calls),
        tuple({k.key: k for part in parts for k in part.kernels}.values()),
        tuple(buffer for part in parts for buffer in part.buffers),
    )


@dataclass(frozen=True)
class Port:
    """An input, output or state of a program: a name, a shape and a dtype, and the buffer that carries it. ``order`` is
    that of a :class:`engine.state.Cell`: how the axes of state lie in memory."""

    name: str
    shape: dims.Shape
    dtype: dtypes.DType
    buffer: str
    order: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Check:
    """A run-time check; its position in ``Program.checks`` plus one is its error code. ``message`` has ``{value}``
    for what was found; ``location`` is the user's line as text, ``node`` the graph node that asks for it."""

    message: str
    location: str
    node: str = ""


@dataclass(frozen=True)
class Loop:
    """The calls ``first .. end-1`` of ``main``, ``times`` times; ``windows`` move on from one time to the next. Where
    ``guard`` points at a byte, the loop is passed over while that is zero. Loops lie apart or one inside the other."""

    first: int
    end: int
    times: Size
    windows: tuple[str, ...]
    guard: Pointer | None = None


@dataclass(frozen=True)
class Program:
    """A compiled model: everything but memory and machine code.

    ``prepare`` runs whenever state that it reads has changed outside this program, ``main`` every call, with ``loops``,
    the outer ones first. ``lifetimes``
    gives each temp buffer its first and last step in ``main``; ``updates`` names the state that the program writes;
    ``constants`` holds the bytes (C order, native) of each const buffer.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    state: tuple[Port, ...]
    updates: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    main: tuple[Call, ...]
    prepare: tuple[Call, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    assumptions: tuple[dims.Assumption, ...] = ()
    checks: tuple[Check, ...] = ()
    lifetimes: dict[str, tuple[int, int]] = field(default_factory=dict)
    statistics: dict[str, int] = field(default_factory=dict)
    constants: dict[str, bytes] = field(default_factory=dict)
    loops: tuple[Loop, ...] = ()

    @property
    def calls(self) -> Iterator[Call]:
        yield from self.prepare
        yield from self.main

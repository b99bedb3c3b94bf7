"""The thread that runs now, as the words of a kernel see it: who it is, and where it meets others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime.sources import PREFIX

if TYPE_CHECKING:
    from runtime.cuda.simulator.machine import Block

LANES = 32
"""Threads of a warp."""


class Together(NamedTuple):
    """All lanes of ``warps`` warps side by side execute ``function(lanes, given, *constants)``, which makes a result
    for each lane."""

    function: Callable[..., Sequence[Any] | None]
    constants: tuple[Any, ...]
    line: int
    warps: int = 1


class Barrier(NamedTuple):
    """``among`` threads of the block wait for one another (0: all of them)."""

    number: int
    among: int
    line: int


class Until(NamedTuple):
    """The thread goes on when ``ready()`` holds."""

    ready: Callable[[], bool]
    what: str
    line: int


Wait = Together | Barrier | Until


class Thread:
    """One thread of a block."""

    __slots__ = ("block", "copies", "given", "lane", "number", "pause", "wait", "warp")

    def __init__(self, block: Block, number: int):
        self.block = block
        self.number = number
        self.warp, self.lane = divmod(number, LANES)
        self.wait: Wait | None = None
        self.given: Any = None
        self.copies: list[list[Callable[[], None]]] = [[]]
        self.pause: Callable[[], object] = lambda: None


class _Now:
    thread: Thread


_now = _Now()


def current() -> Thread:
    """The thread that runs."""
    return _now.thread


def run_as(thread: Thread) -> None:
    """From here on ``thread`` is the one that runs."""
    _now.thread = thread


def together(function: Callable[..., Sequence[Any] | None], given: Any, *constants: Any, warps: int = 1) -> Any:
    """Wait for the other lanes of the warp (or of ``warps``), execute ``function(lanes, all that they have given,
    *constants)`` once, and return this lane's part of the result."""
    thread = _now.thread
    thread.given = given
    thread.wait = Together(function, constants, kernel_line(), warps)
    thread.pause()
    return thread.given


def barrier(number: int = 0, among: int = 0) -> None:
    """Wait for the block's other threads, or be one of ``among`` at the barrier ``number``."""
    thread = _now.thread
    thread.wait = Barrier(number, among, kernel_line())
    thread.pause()


def until(ready: Callable[[], bool], what: str) -> None:
    """Wait for ``ready()``, which other threads or copies bring about."""
    if not ready():
        thread = _now.thread
        thread.wait = Until(ready, what, kernel_line())
        thread.pause()


def kernel_line() -> int:
    """The line of the kernel's text that is being executed."""
    if _now.thread.wait is not None:  # by all lanes of its warp
        return _now.thread.wait.line
    frame = sys._getframe(1)
    while frame.f_code.co_filename[: len(PREFIX)] != PREFIX and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_lineno

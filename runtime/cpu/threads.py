"""How many threads may run, and what lets them run together: libgomp, or Python's own threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from engine import settings
from engine.records import dataclass


def thread_count() -> int:
    """``TENON_THREADS``, or what the scheduler's affinity and the control group's quota allow."""
    asked = settings.get("threads")
    if asked is not None:
        return asked
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows know no affinity
        allowed = os.cpu_count() or 1
    quota = _quota()
    return max(1, min(allowed, quota) if quota else allowed)


def _quota(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> int:
    """Whole processors that the control group grants (rounded up), or 0 where there is no limit."""
    limits = []
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            here = root / path.lstrip("/")
            for folder in (here, *here.parents):
                with contextlib.suppress(OSError, ValueError):
                    quota, period = (folder / "cpu.max").read_text().split()
                    limits.append(-(-int(quota) // int(period)))
                if folder == root:
                    break
        elif "cpu" in controllers.split(","):
            for folder in (root / "cpu" / path.lstrip("/"), root / "cpu"):
                with contextlib.suppress(OSError, ValueError):
                    quota_us = int((folder / "cpu.cfs_quota_us").read_text())
                    if quota_us > 0:
                        limits.append(-(-quota_us // int((folder / "cpu.cfs_period_us").read_text())))
    return min(limits, default=0)


@dataclass(frozen=True)
class OpenMP:
    """Addresses of libgomp's functions."""

    parallel: int
    thread_num: int
    num_threads: int


@cache
def _libgomp() -> OpenMP | None:
    for name in ("libgomp.so.1", "libgomp.1.dylib"):
        try:
            library = ctypes.CDLL(name)
            found = [
                _address(getattr(library, f)) for f in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
            ]
        except (OSError, AttributeError):
            continue
        return OpenMP(*found)
    return None


def openmp() -> OpenMP | None:
    """libgomp, or None where it is missing or ``TENON_THREADING=python`` asks for Python threads."""
    return _libgomp() if settings.get("threading") == "openmp" else None


def _address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


@cache
def yield_address() -> int:
    """The address of a C function ``int f(void)`` that gives up the processor, or 0."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        if sys.platform == "win32":
            return _address(ctypes.WinDLL("kernel32").SwitchToThread)
        return _address(ctypes.CDLL(None).sched_yield)
    return 0


is_forked = False
"""Whether this process is a forked child of one that had loaded this module."""


def _in_child() -> None:
    # libgomp's team and the Python pool live on in the parent only: the child runs on its one thread.
    global is_forked
    is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class _PythonThreads:
    """Threads that wait to enter native code together. One caller at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake: list[threading.Semaphore] = []
        self._done = threading.Semaphore(0)
        self._work: Callable[[int], None] = lambda number: None

    def run(self, work: Callable[[int], None], count: int) -> None:
        """Call ``work(number)`` for every number below ``count`` at the same time; 0 runs on the caller."""
        with self._lock:
            while len(self._wake) < count - 1:
                wake = threading.Semaphore(0)
                self._wake.append(wake)
                name = f"tenon-{len(self._wake)}"
                threading.Thread(target=self._serve, args=(len(self._wake), wake), name=name, daemon=True).start()
            self._work = work
            for wake in self._wake[: count - 1]:
                wake.release()
            try:
                work(0)
            finally:  # after a Ctrl-C too: the next call must not meet threads that are still in this one
                for _ in range(count - 1):
                    self._done.acquire()

    def _serve(self, number: int, wake: threading.Semaphore) -> None:
        while True:
            wake.acquire()
            self._work(number)
            self._done.release()


_python_threads = _PythonThreads()


def run_in_python_threads(entry: Callable[[int, int, int, int], None], control: int, count: int) -> None:
    """Enter the native driver with ``count`` Python threads; each is inside native code, without the GIL."""
    _python_threads.run(lambda number: entry(control, number, count, 0), count)

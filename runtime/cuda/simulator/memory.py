"""Reads and writes of the thread that runs now, in global and in shared memory; numbers come as kernels have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.errors import BoundsError
from runtime.cuda.simulator.thread import current, kernel_line, until


def global_bytes(address: int, nbytes: int, what: str, multiple: int = 0) -> np.ndarray:
    """The bytes themselves at ``address``, a multiple of their number or of ``multiple``. Raises BoundsError, and
    RaceError where other threads touch them at the same time."""
    found = atomic_bytes(address, nbytes, what, multiple)
    touched(address, nbytes, what == "writes")
    return found


def touched(address: int, nbytes: int, written: bool) -> None:
    """The running thread reads or writes these bytes. Raises RaceError where others do at the same time."""
    thread = current()
    races = thread.block.races
    (races.write if written else races.read)(thread, int(address), nbytes)


def atomic_bytes(address: int, nbytes: int, what: str, multiple: int = 0) -> np.ndarray:
    """The same for an operation that no other thread's comes between."""
    region, start = current().block.memory.place(int(address), nbytes, what)
    if start % (multiple or nbytes):
        raise BoundsError(f"{what} {nbytes} bytes at byte {start} of {region.name}, misaligned: line {kernel_line()}")
    if what == "writes" and not region.array.flags.writeable:
        raise BoundsError(f"writes into {region.name}, which is only read: line {kernel_line()}")
    return region.bytes[start : start + nbytes]


def load_global(address: int, dtype: np.dtype, count: int = 1) -> Any:
    """``count`` numbers side by side, as a tuple if they are several."""
    return _numbers(global_bytes(address, dtype.itemsize * count, "reads"), dtype)


def load_atomic(address: int, dtype: np.dtype) -> Any:
    """A number that others may write at any time."""
    return _numbers(atomic_bytes(address, dtype.itemsize, "reads"), dtype)


def store_global(address: int, dtype: np.dtype, *values: Any) -> None:
    global_bytes(address, dtype.itemsize * len(values), "writes")[:] = _raw(values, dtype)


def swap_global(address: int, dtype: np.dtype, value: int, expected: int | None = None) -> int:
    """Write ``value`` if what is there is ``expected`` (None: in any case); what was there."""
    place = atomic_bytes(address, dtype.itemsize, "writes")
    found: int = _numbers(place, dtype)
    if expected is None or found == int(expected) % (1 << (8 * dtype.itemsize)):
        place[:] = _raw((value,), dtype)
        thread = current()
        thread.block.races.tell(thread, int(address), int(value))
    return found


def await_global(address: int, dtype: np.dtype, count: int) -> None:
    """Wait until at least ``count`` is there, which other blocks add up: what they did before is seen from here on."""
    until(lambda: load_atomic(address, dtype) >= count, "other blocks")
    thread = current()
    thread.block.races.hear(thread, int(address), count)


def fence_global() -> None:
    """What the running thread has done and heard of, others may learn of by atomic operations that follow."""
    thread = current()
    thread.block.clocks.publish(thread.number)


def load_shared(address: int, dtype: np.dtype, count: int = 1) -> Any:
    thread = current()
    return _numbers(thread.block.shared.load(thread, address, dtype.itemsize * count), dtype)


def store_shared(address: int, dtype: np.dtype, *values: Any) -> None:
    thread = current()
    thread.block.shared.store(thread, address, _raw(values, dtype))


def _numbers(data: np.ndarray, dtype: np.dtype) -> Any:
    found = data.view(dtype)
    items = list(found) if dtype.kind == "f" else found.tolist()
    return items[0] if len(items) == 1 else tuple(items)


def _raw(values: Sequence[Any], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return np.array(values, dtype).view(np.uint8)
    bits = 8 * dtype.itemsize
    return np.array([int(v) % (1 << bits) for v in values], f"u{dtype.itemsize}").view(np.uint8)

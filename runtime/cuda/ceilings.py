"""What a GPU can do at most: copies in its memory, measured, and float32 multiply-adds, by its clock."""

from __future__ import annotations

import numpy as np

from runtime.cuda.device import Device
from runtime.cuda.timing import seconds

_BYTES = 1 << 28
_REPEATS = 10
_LANES = 128
"""Multiply-adds of float32 that a multiprocessor of compute capability 8.6 or 9.0 begins in a cycle; 8.0 has half."""


def copy_bandwidth(device: Device) -> float:
    """Bytes a second of a copy in the GPU's memory, reads and writes both counted: the median of ten."""
    with device.lock:
        device.activate()
        nbytes = min(_BYTES, device.free_bytes() // 4)
        source, to = device.allocate(nbytes), device.allocate(nbytes)
        stream = device.compute
        graph = stream.capture(lambda: stream.copy(to.address, source.address, nbytes))
        return 2 * nbytes / float(np.median(seconds(device, graph, _REPEATS)))


def peak_flops(device: Device) -> float:
    """Operations a second of float32 multiply-adds on all multiprocessors, of which each is two; tensor cores do many
    times as many."""
    properties = device.properties
    lanes = _LANES // 2 if properties.capability == (8, 0) else _LANES
    return 2.0 * lanes * properties.multiprocessors * properties.clock

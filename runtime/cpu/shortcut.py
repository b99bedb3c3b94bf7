"""The short way into a call: Python generated for one binding, which does what every call has to do and no more.

Small programs run for less time than loops over ports, checks and slots take. So from the second call of the same
shapes on, these are unrolled: one test for each input, one allocation for each output, one store for each address.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.state import address
from runtime.cpu.binding import Binding
from runtime.cpu.extents import Memory
from runtime.results import ALIGNED_BYTES, ResultMemory

Shortcut = Callable[[Any], tuple[np.ndarray, ...] | None]
"""Takes the inputs of a call, gives the arrays for its outputs, or None for inputs that are not quite as expected.
Addresses of both are in the argument blocks then."""


def shortcut(
    binding: Binding,
    shapes: Sequence[tuple[int, ...]],
    dtypes: Sequence[np.dtype],
    written: Memory,
    memory: ResultMemory,
) -> Shortcut:
    """The short way for tuples of arrays of these ``shapes`` and ``dtypes`` that are contiguous, aligned and writable,
    and do not lie where the program writes state, in ``written``. Every output must be a buffer of its own."""
    names: dict[str, Any] = {
        "ndarray": np.ndarray, "address": address, "empty": np.empty, "large": memory.empty, "words": binding.words,
        "is_written": written.holds,
    }  # fmt: skip
    inputs = [f"x{i}" for i in range(len(shapes))]
    lines = [
        f"if type(inputs) is not tuple or len(inputs) != {len(inputs)}:",
        "    return None",
        f"{', '.join(inputs)}{',' * (len(inputs) == 1)} = inputs" if inputs else "",
    ]
    stores = []
    for x, shape, dtype, slots in zip(inputs, shapes, dtypes, binding.input_slots, strict=True):
        names[f"{x}_dtype"] = dtype
        lines += [
            f"if type({x}) is not ndarray or {x}.dtype is not {x}_dtype or {x}.shape != {shape}:",
            "    return None",
            f"if not {x}.flags.carray:",
            "    return None",
            f"{x}_at = address({x})",
        ]
        if written.first < written.end:
            end = f"{x}_at + {math.prod(shape) * dtype.itemsize}"
            lines += [
                f"if {x}_at < {written.end} and {written.first} < {end} and is_written({x}_at, {end}):",
                "    return None",
            ]
        stores += [f"words[{slot}] = {x}_at + {offset}" for slot, offset in slots]
    outputs = [f"y{i}" for i in range(len(binding.outputs))]
    for y, (shape, kind, nbytes), slots in zip(outputs, binding.outputs, binding.output_slots, strict=True):
        names[f"{y}_dtype"] = kind.numpy if nbytes < ALIGNED_BYTES else kind
        made = f"empty({shape}, {y}_dtype)" if nbytes < ALIGNED_BYTES else f"large({shape}, {y}_dtype, {nbytes})"
        stores += [f"{y} = {made}", f"{y}_at = address({y})"]
        stores += [f"words[{slot}] = {y}_at + {offset}" for slot, offset in slots]
    lines += [*stores, f"return {', '.join(outputs)}{',' if len(outputs) == 1 else ''}" if outputs else "return ()"]
    source = "def enter(inputs):\n" + "".join(f"    {line}\n" for line in lines if line)
    exec(source, names)
    return names["enter"]

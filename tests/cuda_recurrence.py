"""Specs of recurrences with what they run on, for the tests of their GPU kernels."""

from __future__ import annotations

import numpy as np
from cuda_harness import Case
from kernel_harness import elements

from engine import op, schedule
from engine.cells import CELLS
from engine.dtypes import as_dtype, i64
from engine.ops import recurrent
from engine.schedule import Access, KernelSpec


def recurrence(cell: str, steps: int = 3, batch: int = 5, hidden: int = 6, width: int | None = None, *,
               dtype: str = "f32", backward: bool = False, reverse: bool = False, given: str = "",
               without: tuple[str, ...] = ()) -> Case:  # fmt: skip
    """A case, ``given`` what the op is given beside x and the weight; the outputs ``without`` are read by nobody."""
    kind, of = as_dtype(dtype), CELLS[cell]
    width = width or hidden
    rng = np.random.default_rng(3)
    rows = of.gates * hidden
    shapes: dict[str, tuple[int, ...]] = {
        "x": (steps, batch, rows), "weight": (rows, width), "h": (batch, width), "c": (batch, hidden), "bias": (rows,),
        "projection": (width, hidden), "lengths": (batch,), "hs": (steps, batch, width), "cs": (steps, batch, hidden),
        "saved": (steps, batch, len(of.saved) * hidden), "g_hs": (steps, batch, width), "g_h": (batch, width),
        "g_c": (batch, hidden), "h_last": (batch, width), "c_last": (batch, hidden), "dx": (steps, batch, rows),
        "dz": (steps, batch, rows), "dhs": (steps, batch, width), "dh": (batch, width), "dc": (batch, hidden),
    }  # fmt: skip
    known = {n: rng.standard_normal(s).astype(kind.numpy) for n, s in shapes.items()}
    known["weight"] = (known["weight"].astype(np.float32) / np.sqrt(width)).astype(kind.numpy)
    known["lengths"] = 1 + np.arange(batch) % steps
    record = op.get(cell + "_grad" * backward)
    if backward:  # at states and gates of their usual size
        known |= {n: np.tanh(known[n].astype(np.float32)).astype(kind.numpy) for n in ("hs", "cs", "saved", "h", "c")}
    names = (*(n for n in record.inputs if not n.startswith("*")), *given.split())
    made = tuple(n for n in recurrent.output_names(record, given) if n not in without)
    core = schedule.Recurrence(of, backward, reverse, names, made, steps, batch, hidden, width)

    def access(name: str) -> Access:
        return Access(name, i64 if name == "lengths" else kind, elements(shapes[name]))

    spec = KernelSpec(cell, (batch,), tuple(map(access, names)), tuple(map(access, made)), (), core)
    empty = {n: np.full(shapes[n], np.nan, kind.numpy) for n in made}
    return Case(spec.name, spec, {n: known[n] for n in names} | empty)

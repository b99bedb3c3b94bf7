"""Recurrent layers and cells: cases in which Tenon and PyTorch do the same, lengths being packed sequences there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from parity import Case, ModuleCase, normal
from tenon import nn

INPUT, HIDDEN, STEPS, BATCH = 3, 4, 5, 3
LENGTHS = np.array([3, 5, 1])


def pair(hx: tuple[Any, ...]) -> Any:
    """What a module takes as its initial state, and gives as its last."""
    return None if not hx else hx if len(hx) == 2 else hx[0]


def plainly(module: Any, x: Any, *hx: Any) -> Any:
    return module(x, pair(hx))


def by_length(module: Any, x: Any, lengths: Any, *hx: Any) -> Any:
    """The padded output and the final states of examples of several lengths."""
    if isinstance(module, nn.Module):
        return module(x, pair(hx), lengths=lengths)
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    first = module.batch_first
    packed = pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
    out, last = module(packed, pair(hx))
    return pad_packed_sequence(out, batch_first=first, total_length=STEPS)[0], last


def layer(kind: str, what: str = "", compiled: bool = False, **options: Any) -> ModuleCase:
    """A layer with ``options``; ``what`` says whether states and lengths are given, and whether there is a batch."""
    first = options.get("batch_first", False) and what != "unbatched"
    batch = () if what == "unbatched" else (BATCH,)
    x = normal(*((*batch, STEPS) if first else (STEPS, *batch)), INPUT)
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    sizes = (options.get("proj_size") or HIDDEN, HIDDEN)[: 1 + (kind == "LSTM")]
    states = tuple(normal(count, *batch, size) for size in sizes) if what != "no state" else ()
    lengths = (LENGTHS,) if what == "lengths" else ()
    text = "".join(f"/{k}={v}" for k, v in options.items()) + (f"/{what}" if what else "")
    make: Callable[[Any], Any] = lambda m: getattr(m, kind)(INPUT, HIDDEN, **options)  # noqa: E731
    return ModuleCase(
        f"{kind}{text}", lambda: make(nn), lambda t: make(t.nn), (x, *lengths, *states),
        train=False, call=by_length if lengths else plainly, compiled=compiled, batched=(0,),
    )  # fmt: skip


def layers(kind: str, **options: Any) -> list[ModuleCase]:
    grid = itertools.product((1, 2), (False, True), (False, True))
    deep: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
    return [
        layer(kind, "no state", compiled=True, **options),
        *(layer(kind, num_layers=n, bidirectional=b, batch_first=f, **options) for n, b, f in grid),
        layer(kind, bias=False, **options),
        layer(kind, "unbatched", **deep, batch_first=True, **options),
        layer(kind, "lengths", compiled=True, **deep, **options),
        layer(kind, "lengths", batch_first=True, bidirectional=True, **options),
        layer(kind, "lengths", num_layers=3, dropout=0.5, **options),
    ]


def cell(kind: str, batch: tuple[int, ...] = (BATCH,), state: bool = True, **options: Any) -> ModuleCase:
    states = tuple(normal(*batch, HIDDEN) for _ in range(1 + (kind == "LSTMCell"))) if state else ()
    text = "".join(f"/{k}={v}" for k, v in options.items()) + "/state" * state + "/unbatched" * (not batch)
    make: Callable[[Any], Any] = lambda m: getattr(m, kind)(INPUT, HIDDEN, **options)  # noqa: E731
    return ModuleCase(
        f"{kind}{text}", lambda: make(nn), lambda t: make(t.nn), (normal(*batch, INPUT), *states), call=plainly,
        compiled=state and bool(batch) and not options, batched=tuple(range(1 + len(states))),
    )  # fmt: skip


def cells(kind: str, **options: Any) -> list[ModuleCase]:
    return [
        cell(kind, **options),
        cell(kind, state=False, **options),
        cell(kind, batch=(), **options),
        cell(kind, bias=False, **options),
    ]


CASES: list[Case | ModuleCase] = [
    *layers("RNN"), *layers("RNN", nonlinearity="relu"), *layers("LSTM"), *layers("LSTM", proj_size=2), *layers("GRU"),
    *cells("RNNCell"), *cells("RNNCell", nonlinearity="relu"), *cells("LSTMCell"), *cells("GRUCell"),
]  # fmt: skip

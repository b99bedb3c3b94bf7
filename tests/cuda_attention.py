"""Specs of attention with what they run on, for the tests of its GPU kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from cuda_harness import Case
from kernel_harness import elements

from engine import op, schedule
from engine.dtypes import DType, as_dtype, bool_, i64
from engine.graph import TensorType
from engine.schedule import Access, KernelSpec


def attention(batch: int = 1, heads: int = 2, queries: int = 40, keys: int = 70, features: int = 16, width: int = 16, *,
              dtype: str = "bf16", backward: bool = False, causal: bool = False, ratio: int = 1, given: str = "",
              dropout: float = 0.0, scale: float = 0.3, by_position: bool = False, products: str = "highest",
              empty: float = 0.0, **arrays: np.ndarray) -> Case:  # fmt: skip
    """A case; ``arrays`` are taken instead of random ones. With ``by_position`` the heads of an array lie inside its
    positions, as layers leave them."""
    few, kind = heads // ratio, as_dtype(dtype)
    rng = np.random.default_rng(7)
    rows = (batch, heads, queries)
    shapes: dict[str, tuple[int, ...]] = {
        "q": (*rows, features), "k": (batch, few, keys, features), "v": (batch, few, keys, width), "g": (*rows, width),
        "lse": rows, "delta": rows, "mask": (*rows, keys), "offset": (batch,), "seed": (), "step": (),
        "out": (*rows, width),
    }  # fmt: skip
    shapes |= {f"d{n}": shapes[n] for n in "qkv"}
    dtypes: dict[str, DType] = {"lse": kind.computed, "delta": kind.computed, "offset": i64, "seed": i64, "step": i64}
    known = {"seed": np.array(5), "step": np.array(2), "offset": np.arange(batch)} | arrays
    for name in (*"qkvg", "mask"):
        if name not in known:
            made = rng.standard_normal(shapes[name])
            known[name] = made < 1 if name == "mask" else made.astype(kind.numpy)
    if known["mask"].dtype != bool:
        known["mask"] = known["mask"].astype(kind.numpy)
    dtypes["mask"] = bool_ if known["mask"].dtype == bool else kind
    more = tuple(given.split())
    attrs: dict[str, Any] = {"causal": causal, "scale": scale, "dropout": dropout, "stream": 3, "empty": empty}
    if backward:  # the gradient at what the forward pass gives
        inputs = [np.broadcast_to(known[n], shapes[n]) for n in ("q", "k", "v", *more)]
        record = op.get("attention")
        full = record.complete(attrs | {"given": given})
        types = record.infer(tuple(TensorType(a.shape, as_dtype(a.dtype)) for a in inputs), full)
        out, lse = record.evaluate(inputs, types, full)
        known |= {"lse": lse, "delta": (out.astype(np.float64) * known["g"].astype(np.float64)).sum(-1)}
    reads = ("q", "k", "v", *(("g", "lse", "delta") if backward else ()), *more)
    writes = ("dq", "dk", "dv") if backward else ("out", "lse")
    memory: dict[str, np.ndarray] = {}

    def access(name: str) -> Access:
        own, shape = dtypes.get(name, kind), shapes[name]
        array = known.get(name)
        if array is None:
            array = np.full(shape, np.nan, own.numpy)
        array = np.asarray(array, own.numpy)
        broadcast = [n == 1 and m > 1 for n, m in zip(array.shape, shape, strict=True)]
        strides = tuple(0 if b else s for b, s in zip(broadcast, elements(array.shape), strict=True))
        if by_position and array.ndim == 4 and array.shape == shape and name != "mask":
            array = np.ascontiguousarray(array.swapaxes(1, 2))
            b, i, h, e = elements(array.shape)
            strides = (b, h, i, e)
        memory[name] = np.ascontiguousarray(array)
        return Access(name, own, strides)

    core = schedule.Attention(
        backward=backward, reads=reads, writes=writes, batch=batch, heads=heads, ratio=ratio, queries=queries,
        keys=keys, features=features, width=width, **attrs,
    )  # fmt: skip
    spec = KernelSpec(
        "attention_backward" if backward else "attention", rows, tuple(map(access, reads)),
        tuple(map(access, writes)), (), core, products=products,
    )  # fmt: skip
    return Case(spec.name, spec, memory)

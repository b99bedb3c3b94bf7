"""What the cores of kernels compute, on NumPy, as engine/schedule.py defines them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from engine import op
from engine.dtypes import as_dtype
from engine.graph import TensorType
from engine.schedule import (
    Access,
    Along,
    Attention,
    Contraction,
    Conv2d,
    ConvChain,
    ConvWeightGrad,
    Core,
    Custom,
    KernelSpec,
    MaxPool2d,
    MaxPool2dGather,
    MaxPool2dGrad,
    Recurrence,
    RunningExtremum,
    Scan,
    Scatter,
    Sort,
    Stmt,
)
from engine.scheduled import Memory, Points, without_reduction

Outputs = Callable[[int], np.ndarray]


def values(spec: KernelSpec, core: Core, memory: Memory, axes: Sequence[int]) -> Outputs:
    """The outputs of a core that a body reads, by number, over the kernel's axes."""
    match core:
        case Contraction():
            found = [_contraction(core, memory, axes)]
        case Conv2d():
            found = [_conv2d(core, memory, axes)]
        case ConvChain():
            found = [_conv_chain(spec, core, memory, axes)]
        case ConvWeightGrad():
            found = [_weight_grad(core, memory, axes)]
        case MaxPool2d():
            found = list(_max_pool(spec, core, memory, axes))
        case MaxPool2dGrad():
            found = [_max_pool_grad(spec, core, memory, axes)]
        case MaxPool2dGather():
            found = [_max_pool_gather(spec, core, memory, axes)]
        case _:
            raise AssertionError(core)
    return found.__getitem__


def _read(memory: Memory, access: Access, axes: Sequence[int]) -> np.ndarray:
    """The elements at all points of ``axes``, in the dtype that kernels compute with."""
    return np.broadcast_to(memory.view(access, axes), axes).astype(access.dtype.computed.numpy)


def _contraction(core: Contraction, memory: Memory, axes: Sequence[int]) -> np.ndarray:
    *batch, m, n = axes
    k = memory.size(core.k)
    return _read(memory, core.a, (*batch, m, k)) @ _read(memory, core.b, (*batch, k, n))


# --- windows -----------------------------------------------------------------------------------------------


def _taps(core: Any, size: tuple[int, int], out: tuple[int, int]) -> Iterator[tuple[int, int, Any, Any, np.ndarray]]:
    """For each tap of a window its two numbers, the rows and columns that it meets at every output, clipped, and a mask
    (out, out, 1) of those that are inside."""
    spread = getattr(core, "x_dilation", (1, 1))
    for taps in itertools.product(*map(range, core.kernel)):
        places, inside = [], []
        for axis, tap in enumerate(taps):
            at = np.arange(out[axis]) * core.stride[axis] - core.padding[axis] + tap * core.dilation[axis]
            place = at // spread[axis]
            inside.append((at % spread[axis] == 0) & (place >= 0) & (place < size[axis]))
            places.append(np.clip(place, 0, max(size[axis] - 1, 0)))
        yield *taps, places[0], places[1], (inside[0][:, None] & inside[1])[..., None]


def _pair(memory: Memory, sizes: Sequence[Any]) -> tuple[int, int]:
    return memory.size(sizes[0]), memory.size(sizes[1])


def _patch(x: np.ndarray, rows: Any, columns: Any, inside: np.ndarray) -> np.ndarray:
    if 0 in x.shape:
        return np.zeros((x.shape[0], len(rows), len(columns), x.shape[3]), x.dtype)
    return np.where(inside, x[:, rows[:, None], columns], np.zeros((), x.dtype))


def _conv2d(core: Conv2d, memory: Memory, axes: Sequence[int]) -> np.ndarray:
    size = _pair(memory, core.in_size)
    return _convolved(core, _read(memory, core.x, (axes[0], *size, core.in_channels)), memory)


def _conv_chain(spec: KernelSpec, core: ConvChain, memory: Memory, axes: Sequence[int]) -> np.ndarray:
    below = (axes[0], *_pair(memory, core.source.out_size), core.source.out_channels)
    x = _inner(spec, core.inner, memory, below, [_conv2d(core.source, memory, below)].__getitem__)
    return _convolved(core.last, x, memory)


def _convolved(core: Conv2d, x: np.ndarray, memory: Memory) -> np.ndarray:
    """The convolution of ``x``, over (n, h, w, c)."""
    n, size, out = len(x), _pair(memory, core.in_size), _pair(memory, core.out_size)
    each = (core.group_outputs, core.group_inputs, *core.kernel)
    found = np.zeros((n, *out, core.out_channels), x.dtype)
    for group in range(core.groups):
        first = group * memory.size(core.w_group)
        w = np.broadcast_to(memory.view(core.w, each, first), each).astype(x.dtype)
        if core.flip:
            w = w[:, :, ::-1, ::-1]
        inputs = slice(group * core.group_inputs, (group + 1) * core.group_inputs)
        outputs = slice(group * core.group_outputs, (group + 1) * core.group_outputs)
        for i, j, rows, columns, inside in _taps(core, size, out):
            found[..., outputs] += _patch(x[..., inputs], rows, columns, inside) @ w[:, :, i, j].T
    return found


def _weight_grad(core: ConvWeightGrad, memory: Memory, axes: Sequence[int]) -> np.ndarray:
    n, size, out = memory.size(core.batch), _pair(memory, core.in_size), _pair(memory, core.out_size)
    x = _read(memory, core.x, (n, *size, core.in_channels))
    dy = _read(memory, core.dy, (n, *out, core.out_channels))
    found = np.zeros(axes, x.dtype)
    for i, j, rows, columns, inside in _taps(core, size, out):
        patch = _patch(x, rows, columns, inside)
        for group in range(core.groups):
            inputs = patch[..., group * core.group_inputs : (group + 1) * core.group_inputs]
            outputs = dy[..., group * core.group_outputs : (group + 1) * core.group_outputs]
            found[group, i, j] = np.tensordot(inputs, outputs, ((0, 1, 2), (0, 1, 2)))
    return found


def _inner(
    spec: KernelSpec, body: Sequence[Stmt], memory: Memory, axes: Sequence[int], core: Outputs | None = None
) -> np.ndarray:
    """What a core reads point by point, at all points of its own axes."""
    return np.broadcast_to(Points(without_reduction(spec), memory, axes, core).run(body), axes)


def _max_pool(spec: KernelSpec, core: MaxPool2d, memory: Memory, axes: Sequence[int]) -> Iterator[np.ndarray]:
    n, *out, channels = axes
    size = _pair(memory, core.in_size)
    below = (n, *size, channels)
    source = None
    if core.source is not None:
        source = [_conv2d(core.source, memory, below)].__getitem__
    x = _inner(spec, core.inner, memory, below, source)
    lowest = -np.inf if x.dtype.kind not in "iu" else np.iinfo(x.dtype).min
    best = np.full(axes, lowest, x.dtype)
    position, found = np.zeros(axes, np.uint8), np.zeros(axes, bool)
    for i, j, rows, columns, inside in _taps(core, size, (out[0], out[1])):
        here = x[:, rows[:, None], columns] if x.size else best
        better = inside & (~found | (here > best) | ((here != here) & (best == best)))
        number = np.uint8(i * core.kernel[1] + j)
        best, position, found = np.where(better, here, best), np.where(better, number, position), found | better
    yield best
    yield position


def _max_pool_grad(spec: KernelSpec, core: MaxPool2dGrad, memory: Memory, axes: Sequence[int]) -> np.ndarray:
    n, height, width, channels = axes
    out = _pair(memory, core.out_size)
    above = (n, *out, channels)
    dy, position = _inner(spec, core.inner, memory, above), _read(memory, core.position, above)
    found = np.zeros(axes, dy.dtype)
    for i, j, rows, columns, inside in _taps(core, (height, width), out):
        if found.size:
            mine = (position == i * core.kernel[1] + j) & inside
            at: Any = (slice(None), rows[:, None], columns)
            np.add.at(found, at, np.where(mine, dy, np.zeros((), dy.dtype)))
    return found


def _max_pool_gather(spec: KernelSpec, core: MaxPool2dGather, memory: Memory, axes: Sequence[int]) -> np.ndarray:
    n, *out, channels = axes
    size = _pair(memory, core.in_size)
    x = _inner(spec, core.inner, memory, (n, *size, channels))
    position = _read(memory, core.position, axes)
    found = np.zeros(axes, x.dtype)
    for i, j, rows, columns, inside in _taps(core, size, (out[0], out[1])):
        if x.size:
            mine = (position == i * core.kernel[1] + j) & inside
            found = np.where(mine, x[:, rows[:, None], columns], found)
    return found


# --- cores that write for themselves -----------------------------------------------------------------------


def along(spec: KernelSpec, core: Along, memory: Memory, axes: Sequence[int]) -> None:
    """Run a kernel whose core writes its results itself."""
    match core:
        case Scatter():
            _scatter(spec, core, memory, axes)
            return
        case Scan():
            given = [np.broadcast_to(memory.view(r, axes), axes) for r in spec.reads]
            _write(spec, memory, _reference("linear_scan", given, axis=core.axis, reverse=core.reverse))
        case RunningExtremum():
            given = [np.broadcast_to(memory.view(r, axes), axes) for r in spec.reads]
            _write(spec, memory, _reference("cummax" if core.greatest else "cummin", given, axis=core.axis))
        case Sort():
            given = [np.broadcast_to(memory.view(r, axes), axes) for r in spec.reads]
            _write(spec, memory, _reference("sort", given, axis=core.axis, descending=core.descending))
        case Recurrence():
            _recurrence(spec, core, memory)
        case Attention():
            _attention(spec, core, memory)
        case Custom():
            _custom(spec, core, memory)


def _write(spec: KernelSpec, memory: Memory, arrays: Sequence[np.ndarray]) -> None:
    for access, array in zip(spec.writes, arrays, strict=False):
        target = memory.view(access, array.shape)
        if target.size:
            target[...] = array.astype(target.dtype)


def _reference(name: str, arrays: Sequence[np.ndarray], **attrs: Any) -> tuple[np.ndarray, ...]:
    record = op.get(name)
    full = record.complete(attrs)
    types = record.infer(tuple(TensorType(a.shape, as_dtype(a.dtype)) for a in arrays), full)
    return record.evaluate(arrays, types, full)


def _scatter(spec: KernelSpec, core: Scatter, memory: Memory, axes: Sequence[int]) -> None:
    index, source = (np.broadcast_to(memory.view(r, axes), axes) for r in spec.reads)
    target = spec.writes[0]
    at = memory.gather(target, axes, index.astype(np.int64) * memory.size(core.stride))
    array = memory.arrays[memory.place(target.buffer)[0]]
    if core.mode == "set":
        array[at.reshape(-1)] = source.reshape(-1)
        return
    ufunc = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[core.mode]
    ufunc.at(array, at.reshape(-1), source.reshape(-1).astype(array.dtype))


def _recurrence(spec: KernelSpec, core: Recurrence, memory: Memory) -> None:
    from engine.ops import recurrent

    steps, batch, hidden, width = memory.size(core.steps), memory.size(core.batch), core.hidden, core.width
    rows = core.cell.gates * hidden
    shapes = {
        "weight": (rows, width), "x": (steps, batch, rows), "h": (batch, width), "c": (batch, hidden),
        "bias": (rows,), "projection": (width, hidden), "lengths": (batch,), "hs": (steps, batch, width),
        "cs": (steps, batch, hidden), "saved": (steps, batch, len(core.cell.saved) * hidden),
        "g_hs": (steps, batch, width), "g_h": (batch, width), "g_c": (batch, hidden),
    }  # fmt: skip
    record = op.get(core.cell.name + "_grad" * core.backward)
    fixed = [n for n in record.inputs if not n.startswith("*")]
    given = " ".join(core.reads[len(fixed) :])
    arrays = [
        np.broadcast_to(memory.view(a, shapes[n]), shapes[n]) for n, a in zip(core.reads, spec.reads, strict=True)
    ]
    made = _reference(record.name, arrays, given=given, reverse=core.reverse)
    named = dict(zip(recurrent.output_names(record, given), made, strict=True))
    _write(spec, memory, [named[n] for n in core.writes])


def _attention(spec: KernelSpec, core: Attention, memory: Memory) -> None:
    batch, heads = memory.size(core.batch), memory.size(core.heads)
    queries, keys = memory.size(core.queries), memory.size(core.keys)
    few = heads // core.ratio
    rows = (batch, heads, queries)
    shapes = {
        "q": (*rows, core.features), "k": (batch, few, keys, core.features), "v": (batch, few, keys, core.width),
        "g": (*rows, core.width), "lse": rows, "delta": rows, "mask": (*rows, keys), "offset": (batch,),
        "seed": (), "step": (),
    }  # fmt: skip
    record = op.get("attention_backward" if core.backward else "attention")
    fixed = [n for n in record.inputs if not n.startswith("*")]
    arrays = [
        np.broadcast_to(memory.view(a, shapes[n]), shapes[n]) for n, a in zip(core.reads, spec.reads, strict=True)
    ]
    attrs = {k: getattr(core, k) for k in ("causal", "scale", "dropout", "stream", "empty")}
    made = _reference(record.name, arrays, given=" ".join(core.reads[len(fixed) :]), **attrs)
    named = dict(zip(("dq", "dk", "dv") if core.backward else ("out", "lse"), made, strict=True))
    _write(spec, memory, [named[n] for n in core.writes])


def _custom(spec: KernelSpec, core: Custom, memory: Memory) -> None:
    """A user's op by its own reference."""
    from engine.interpreter import bound

    shapes = [tuple(map(memory.size, s)) for s in core.shapes]
    arrays = [memory.view(a, s).reshape(s) for a, s in zip(spec.reads, shapes, strict=False)]
    _write(spec, memory, _reference(spec.name, arrays, **{k: bound(a, memory.sizes) for k, a in core.attrs}))

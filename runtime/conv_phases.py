"""A convolution of a spread-out image, such as the input gradient of a strided one, without its zeros.

Between two elements of an image that is dilated by ``s`` lie ``s - 1`` zeros, so an output meets only the taps that
fall on elements, and which these are depends on its position modulo ``s``. The outputs of one remainder, a phase, are
a plain convolution with a part of the window; there are ``s`` phases along an axis. Where a phase has no tap at all
its sums are zero.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

from engine.dims import Size, ceil_div
from engine.records import dataclass
from engine.schedule import Access, Conv2d, KernelSpec, Stmt


def has_phases(spec: KernelSpec) -> bool:
    """Whether ``spec`` is such a convolution, and knows its outputs by address alone."""
    core = spec.core
    return (
        isinstance(core, Conv2d) and core.x_dilation != (1, 1) and core.stride == (1, 1)
        and not any(s.op == "index" for s in spec.body)
    )  # fmt: skip


def phases(spec: KernelSpec) -> list[KernelSpec]:
    """The kernels that together are ``spec``, one a phase; their outputs are apart."""
    core = spec.core
    assert isinstance(core, Conv2d)
    return [_phase(spec, core, first) for first in product(*map(range, core.x_dilation))]


def whole_window(spec: KernelSpec) -> Conv2d:
    """The convolution of the image as it lies, without zeros, whose point ``q`` reads what the outputs ``q * x_dilation
    .. (q + 1) * x_dilation - 1`` of ``spec`` read, of all phases: one copy of a part of the image serves them all."""
    core = spec.core
    assert isinstance(core, Conv2d)
    cores = [phase.core for phase in phases(spec) if isinstance(phase.core, Conv2d)]
    before = _largest([part.padding for part in cores])
    after = _largest([
        tuple(d * (k - 1) - p for d, k, p in zip(part.dilation, part.kernel, part.padding, strict=True))
        for part in cores
    ])  # fmt: skip
    height, width = (ceil_div(n, s) for n, s in zip(core.out_size, core.x_dilation, strict=True))
    return replace(
        core, out_size=(height, width), kernel=(before[0] + after[0] + 1, before[1] + after[1] + 1), padding=before,
        dilation=(1, 1), x_dilation=(1, 1),
    )  # fmt: skip


def _largest(pairs: list[tuple[int, ...]]) -> tuple[int, int]:
    return max(down for down, _ in pairs), max(across for _, across in pairs)


@dataclass(frozen=True)
class _Taps:
    """The taps ``start + t * step`` for t below ``count`` along an axis meet ``t * dilation - padding`` elements from
    the output's number within its phase."""

    start: int
    step: int
    count: int
    dilation: int
    padding: int


def _taps(kernel: int, spread: int, dilation: int, padding: int, first: int) -> _Taps:
    """The taps that outputs ``first + spread * q`` meet: those k for which ``first - padding + k * dilation`` is a
    multiple of ``spread``."""
    step = spread // math.gcd(dilation, spread)
    found = [k for k in range(min(step, kernel)) if (first - padding + k * dilation) % spread == 0]
    if not found:
        return _Taps(0, step, 0, 1, 0)
    start = found[0]
    count = -(-(kernel - start) // step)
    return _Taps(start, step, count, step * dilation // spread, (padding - first - start * dilation) // spread)


def _phase(spec: KernelSpec, core: Conv2d, first: tuple[int, ...]) -> KernelSpec:
    down, across = (
        _taps(*numbers)
        for numbers in zip(core.kernel, core.x_dilation, core.dilation, core.padding, first, strict=True)
    )
    height, width = (ceil_div(n - at, s) for n, at, s in zip(core.out_size, first, core.x_dilation, strict=True))
    one = replace(
        spec, name=f"{spec.name}_{first[0]}_{first[1]}", axes=(spec.axes[0], height, width, spec.axes[3]),
        reads=tuple(_thinned(a, core.x_dilation, first) for a in spec.reads),
        writes=tuple(_thinned(a, core.x_dilation, first) for a in spec.writes),
    )  # fmt: skip
    if not (down.count and across.count):
        return replace(one, core=None, body=tuple(_without_core(s) for s in spec.body))
    offset, strides = core.w.offset, []
    for t, size, stride in zip((down, across), core.kernel, core.w.strides[2:], strict=True):
        lowest = size - 1 - t.start - (t.count - 1) * t.step if core.flip else t.start
        offset = offset + lowest * stride
        strides.append(t.step * stride)
    part = replace(
        core, w=replace(core.w, strides=(*core.w.strides[:2], *strides), offset=offset), out_size=(height, width),
        kernel=(down.count, across.count), dilation=(down.dilation, across.dilation),
        padding=(down.padding, across.padding), x_dilation=(1, 1),
    )  # fmt: skip
    return replace(one, core=part)


def _thinned(access: Access, spread: tuple[int, int], first: tuple[int, ...]) -> Access:
    """``access`` at every ``spread``-th row and column from ``first``."""
    n, h, w, c = access.strides
    offset: Size = access.offset + first[0] * h + first[1] * w
    return replace(access, strides=(n, h * spread[0], w * spread[1], c), offset=offset)


def _without_core(stmt: Stmt) -> Stmt:
    return replace(stmt, op="const", args=(0.0,)) if stmt.op == "core" else stmt

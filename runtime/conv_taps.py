"""Which taps of a window the outputs of a convolution meet: runs of outputs alike, and taps that see only padding."""

from __future__ import annotations

from dataclasses import replace

from engine.records import dataclass
from engine.schedule import Conv2d, KernelSpec


@dataclass(frozen=True)
class Run:
    """Outputs ``first .. first + count`` along an axis, which meet the taps ``tap .. tap + taps``."""

    first: int
    count: int
    tap: int
    taps: int


def runs(size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> list[Run]:
    """The runs of outputs along an axis, in order."""
    found: list[Run] = []
    for at in range(outputs):
        inside = [k for k in range(kernel) if 0 <= at * stride - padding + k * dilation < size]
        tap, taps = (inside[0], len(inside)) if inside else (0, 0)
        if found and (found[-1].tap, found[-1].taps) == (tap, taps):
            found[-1] = replace(found[-1], count=found[-1].count + 1)
        else:
            found.append(Run(at, 1, tap, taps))
    return found


def runs_of(core: Conv2d) -> tuple[list[Run], list[Run]]:
    """The runs of rows and of columns of ``core``, whose sizes are known."""
    numbers = zip(core.in_size, core.out_size, core.kernel, core.stride, core.padding, core.dilation, strict=True)
    down, across = (runs(*axis) for axis in numbers)
    return down, across


def is_known(core: Conv2d) -> bool:
    """Whether the runs of ``core`` can be told: its sizes are numbers, and its image is not spread out."""
    return core.x_dilation == (1, 1) and all(isinstance(n, int) and n > 0 for n in (*core.in_size, *core.out_size))


def trimmed(spec: KernelSpec) -> KernelSpec:
    """``spec``, which :func:`has_idle_taps`, without the first and last taps that no output meets: of a window around a
    single pixel one tap remains."""
    core = spec.core
    assert isinstance(core, Conv2d)
    met = [[range(r.tap, r.tap + r.taps) for r in axis if r.taps] for axis in runs_of(core)]
    (top, bottom), (left, right) = ((min(r.start for r in axis), max(r.stop for r in axis)) for axis in met)
    h, w = core.w.strides[2:]
    skipped = (core.kernel[0] - bottom, core.kernel[1] - right) if core.flip else (top, left)
    part = replace(
        core, w=replace(core.w, offset=core.w.offset + skipped[0] * h + skipped[1] * w),
        kernel=(bottom - top, right - left),
        padding=(core.padding[0] - top * core.dilation[0], core.padding[1] - left * core.dilation[1]),
    )  # fmt: skip
    return replace(spec, core=part)


def has_idle_taps(core: Conv2d) -> bool:
    """Whether :func:`trimmed` takes taps away."""
    if not is_known(core):
        return False
    axes = runs_of(core)
    return all(any(r.taps for r in axis) for axis in axes) and any(
        min(r.tap for r in axis if r.taps) > 0 or max(r.tap + r.taps for r in axis if r.taps) < size
        for axis, size in zip(axes, core.kernel, strict=True)
    )

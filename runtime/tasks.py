"""Cutting work into tasks: what sizes to expect, and a task's number as coordinates."""

from __future__ import annotations

from engine import dims
from engine.dims import Size
from runtime.emit import ArgTable

_TYPICAL = 64


def typical(size: Size, value: int = _TYPICAL) -> int:
    """``size`` with every dim at a typical value: for weighing costs and cutting tasks, which is done before any size
    is known."""
    return dims.evaluate(size, dict.fromkeys(dims.names(size), value))


def piece(size: Size, limit: int) -> int:
    """The length of equal pieces of ``size``, of at most ``limit``."""
    if not isinstance(size, int):
        return limit
    return max(-(-size // max(-(-size // limit), 1)), 1)


def divisor(count: int, limit: int) -> int:
    """The largest divisor of ``count`` up to ``limit``; ``count`` itself where that would leave tiny blocks."""
    best = max(d for d in range(1, min(count, limit) + 1) if count % d == 0)
    return count if best < limit // 4 and count <= 4 * limit else best


def coordinates(table: ArgTable, index: str, space: dict[str, Size]) -> list[str]:
    """Lines that set each name of ``space`` (to its size; outermost first) to its coordinate of ``index``."""
    lines: list[str] = []
    for position, (name, size) in reversed(list(enumerate(space.items()))):
        if position == 0:
            return [*lines, f"{name} = {index}"]
        table.declare(**{f"{name}_count": size})
        lines += [f"{name}_rest = quotient({index}, {name}_count)", f"{name} = {index} - {name}_rest * {name}_count"]
        index = f"{name}_rest"
    return lines


def outer_indices(table: ArgTable, axes: tuple[Size, ...], row: str, prefix: str = "i") -> tuple[list[str], list[str]]:
    """Lines that split the point number ``row`` of ``axes`` into one index an axis, and the names of these."""
    if len(axes) <= 1:
        return [], [row] * len(axes)
    lines, names = [], [""] * len(axes)
    rest = row
    for axis in range(len(axes) - 1, 0, -1):
        size = table.size(axes[axis])
        quotient = f"{prefix}_rest{axis}" if axis > 1 else f"{prefix}0"
        lines.append(f"{quotient} = quotient({rest}, {size})")
        lines.append(f"{prefix}{axis} = {rest} - {quotient} * {size}")
        names[axis], rest = f"{prefix}{axis}", quotient
    names[0] = rest
    return lines, names

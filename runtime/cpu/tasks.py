"""Numbering tasks: a task's number as coordinates."""

from __future__ import annotations

from engine.dims import Size
from runtime.cpu.emit import ArgTable


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

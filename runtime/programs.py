"""What every executor of programs needs: their state, constants and checks, and what it is given to write into."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from engine.buffers import Buffer
from engine.errors import DTypeError, IndexRangeError, ShapeError, SourceLocation, StateError, TenonError
from engine.memory import Sizes, plan
from engine.program import Port, Program
from engine.state import Cell, aligned_empty, place_together


def memory_by_class(program: Program, values: Mapping[str, int]) -> dict[str, int]:
    """The bytes that ``program`` takes at these dims: one entry a kind of buffer, of which ``temp`` is the arena.
    Raises ShapeError where a dim is missing."""
    try:
        found = plan(program, Sizes(values))
    except KeyError as error:
        raise ShapeError(f"no size is given for the dim {error.args[0]}") from None
    result = dict.fromkeys(("input", "output", "state", "const", "packed"), 0)
    for buffer in program.buffers:
        if buffer.kind in result:
            result[buffer.kind] += found.nbytes[buffer.name]
    return result | {"temp": found.arena}


def check_failure(program: Program, code: int, value: int) -> IndexRangeError:
    """The error that the error word spells."""
    check = program.checks[code - 1]
    return IndexRangeError(check.message.format(value=value), _location(check.location))


def _location(text: str) -> SourceLocation | None:
    """The line that a Check's ``location`` names (``file:line in function``), if it names one."""
    found = re.fullmatch(r"(.*):(\d+) in (.*)", text)
    return SourceLocation(found[1], int(found[2]), found[3]) if found else None


def program_cells(program: Program, cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """The cells of the program's state by buffer. Raises StateError where one is missing or of another dtype."""
    found = {port.buffer: _cell(cells, port) for port in program.state}
    place_together(found.values())
    return found


def _cell(cells: Mapping[str, Cell], port: Port) -> Cell:
    cell = cells.get(port.name)
    if cell is None:
        raise StateError(f"the program needs the state {port.name!r}, which is not there")
    if cell.dtype != port.dtype:
        raise StateError(f"the state {port.name!r} has dtype {cell.dtype}; the program expects {port.dtype}")
    return cell


def constant_array(program: Program, buffer: Buffer) -> np.ndarray:
    """The data of a const buffer, aligned."""
    data = np.frombuffer(program.constants[buffer.name], buffer.dtype.numpy)
    array = aligned_empty(data.shape, buffer.dtype)
    array[...] = data
    return array


def check_out_count(outputs: Sequence[Port], out: Sequence[object]) -> None:
    """Raises ShapeError where ``out`` has another number of arrays than there are outputs."""
    if len(out) != len(outputs):
        raise ShapeError(f"out holds {len(out)} arrays; expected {len(outputs)}")


def check_out(port: Port, shape: tuple[int, ...], array: object) -> None:
    """Raises DTypeError, ShapeError or TenonError where ``array`` cannot take the output ``port`` of this ``shape``."""
    if not isinstance(array, np.ndarray) or array.dtype != port.dtype.numpy:
        given = getattr(array, "dtype", type(array).__name__)
        raise DTypeError(f"out for {port.name!r} has dtype {given}; expected {port.dtype}")
    if array.shape != shape:
        raise ShapeError(f"out for {port.name!r} has shape {array.shape}; expected {shape}")
    if not array.flags.writeable:
        raise TenonError(f"out for {port.name!r} is read-only; an array to write into was expected")

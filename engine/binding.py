"""Meeting the caller's arrays: checks against what a program takes, and the values of its dims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from engine import dims
from engine.dims import Assumption, Symbol
from engine.errors import DTypeError, ShapeError, TenonError
from engine.graph import Value
from engine.program import Port


def ports(values: Iterable[Value]) -> tuple[Port, ...]:
    """Inputs or state of a graph as ports."""
    return tuple(Port(v.node.attrs["name"], v.shape, v.dtype, v.name) for v in values)


def arrange(expected: Sequence[Port], given: Mapping[str, object] | Sequence[object]) -> list[np.ndarray]:
    """``given`` as arrays in the order of ``expected``, each of its port's dtype.

    Raises TenonError for a missing or unknown name or a wrong count, DTypeError for a dtype that loses values.
    """
    names = [p.name for p in expected]
    if isinstance(given, Mapping):
        missing = [n for n in names if n not in given]
        unknown = sorted(str(n) for n in given if n not in names)
        if missing or unknown:
            what = f"the input {missing[0]!r} is missing" if missing else f"there is no input {unknown[0]!r}"
            raise TenonError(f"{what}; the inputs are: {', '.join(names) or 'none'}")
        values = [given[n] for n in names]
    else:
        if len(given) != len(expected):
            raise TenonError(f"expected {len(expected)} inputs ({', '.join(names) or 'none'}), and got {len(given)}")
        values = list(given)
    return [as_array(p, v) for p, v in zip(expected, values, strict=True)]


def as_array(port: Port, value: object) -> np.ndarray:
    """``value`` as an array of the port's dtype: as it is where it has it, else converted where no kind is lost (a
    float is rounded; an integer must fit). Raises DTypeError."""
    array = np.asarray(value)
    target = port.dtype.numpy
    if array.dtype == target:
        return array
    if not np.can_cast(array.dtype, target, "same_kind"):
        raise DTypeError(f"{port.name} has dtype {array.dtype}, and {port.dtype.numpy_name} was expected")
    converted = array.astype(target)
    if port.dtype.is_integer and not np.array_equal(converted, array):
        raise DTypeError(f"{port.name} has {array.dtype} values that do not fit {port.dtype.numpy_name}")
    return converted


def solve(expected: Sequence[Port], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """The dims' values that make the ports' shapes equal ``shapes``.

    Raises ShapeError for a wrong rank or size, for two sizes that disagree about a dim, and for a dim that no
    shape determines.
    """
    known: dict[str, int] = {}
    origin: dict[str, str] = {}
    open_: list[tuple[Port, tuple[int, ...], int]] = []
    for port, shape in zip(expected, shapes, strict=True):
        if len(shape) != len(port.shape):
            raise ShapeError(
                f"{port.name} has shape {shape}, of rank {len(shape)}; {dims.shape_text(port.shape)}, "
                f"of rank {len(port.shape)}, was expected"
            )
        open_ += [(port, shape, axis) for axis in range(len(shape))]
    while open_:
        later = []
        for port, shape, axis in open_:
            size = dims.substitute(port.shape[axis], known) if known else port.shape[axis]
            if isinstance(size, int):
                if size != shape[axis]:
                    raise ShapeError(_disagreement(port, shape, axis, size, origin))
            elif (unknown := _linear(size)) is None:
                later.append((port, shape, axis))
            else:
                name, factor, offset = unknown
                value, rest = divmod(shape[axis] - offset, factor)
                if rest or value < 0:
                    raise ShapeError(_disagreement(port, shape, axis, size, origin))
                known[name], origin[name] = value, f"axis {axis} of {port.name}"
        if len(later) == len(open_):
            port, _, axis = later[0]
            raise ShapeError(f"no input's shape determines the dims in {port.shape[axis]}, axis {axis} of {port.name}")
        open_ = later
    return known


def _linear(size: dims.Expr) -> tuple[str, int, int] | None:
    """``factor * name + offset`` as (name, factor, offset), or None where ``size`` is not of this form."""
    name, factor, offset = None, 0, 0
    for mono, c in size.terms:
        if not mono:
            offset = c
        elif len(mono) == 1 and isinstance(mono[0], Symbol) and name is None:
            name, factor = mono[0].name, c
        else:
            return None
    return None if name is None else (name, factor, offset)


def _disagreement(
    port: Port, shape: tuple[int, ...], axis: int, size: dims.Size, origin: Mapping[str, str]
) -> str:
    text = f"{port.name} has shape {shape}; {dims.shape_text(port.shape)} was expected: axis {axis} is {shape[axis]}"
    if isinstance(port.shape[axis], int) or not isinstance(size, int):
        return f"{text}, not {size}"
    causes = ", ".join(f"{n} from {origin[n]}" for n in sorted(dims.names(port.shape[axis])))
    return f"{text}, and {port.shape[axis]} is {size} ({causes})"


def check(assumptions: Iterable[Assumption], values: Mapping[str, int]) -> None:
    """Raise ShapeError for the first of ``assumptions`` that does not hold for these dims."""
    for a in assumptions:
        if not a.holds(values):
            where = ", ".join(f"{n} = {values[n]}" for n in sorted(dims.names(a.expr)))
            raise ShapeError(f"{a.reason}: {a.expr} {a.relation} does not hold for {where}", a.location)

"""Meeting the caller's arrays: checks against what a program takes, and the values of its dims.

Every backend takes its inputs through this, so all accept the same arrays and refuse others in the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from engine import dims
from engine.dims import Expr, Size, Symbol, shape_text
from engine.errors import DTypeError, ShapeError, TenonError
from engine.graph import Value
from engine.program import Port


def ports(values: Iterable[Value]) -> tuple[Port, ...]:
    """Inputs or state of a graph as ports."""
    return tuple(Port(v.node.attrs["name"], v.shape, v.dtype, v.name) for v in values)


def arrange(expected: Sequence[Port], given: Mapping[str, object] | Sequence[object]) -> list[np.ndarray]:
    """``given``, by name or by position, as arrays in the order of ``expected``, each of its port's dtype.

    Raises TenonError for a missing or unknown name or a wrong count, DTypeError as :func:`as_input`.
    """
    if not isinstance(given, (tuple, list)) and isinstance(given, Mapping):
        names = [p.name for p in expected]
        missing = [n for n in names if n not in given]
        unknown = sorted(str(n) for n in given if n not in names)
        if missing or unknown:
            what = f"the input {missing[0]!r} is missing" if missing else f"there is no input {unknown[0]!r}"
            raise TenonError(f"{what}; the inputs are: {', '.join(names) or 'none'}")
        given = [given[n] for n in names]
    elif len(given) != len(expected):
        names = [p.name for p in expected]
        count = f"{len(expected)} input{'' if len(expected) == 1 else 's'}"
        raise TenonError(f"expected {count} ({', '.join(names) or 'none'}), and got {len(given)}")
    return [as_input(v, p) for p, v in zip(expected, given, strict=True)]


def as_input(value: Any, port: Port) -> np.ndarray:
    """``value`` as a C-contiguous, aligned array of the port's dtype: itself where it is one, else a copy.

    Arrays must have that dtype; Python numbers and lists of them are converted where nothing but the precision of
    a float is lost. Raises DTypeError.
    """
    wanted = port.dtype.numpy
    if type(value) is np.ndarray and value.dtype == wanted:
        flags = value.flags
        return value if flags.c_contiguous and flags.aligned else _aligned_copy(value, wanted)
    if isinstance(value, (bool, int, float, list, tuple)):
        return _from_numbers(value, port, wanted)
    array = np.asarray(value)
    if array.dtype.newbyteorder("=") != wanted:
        raise DTypeError(
            f"input {port.name!r} has dtype {array.dtype}; expected {port.dtype} ({wanted}): convert it with "
            f"astype, or give its dtype in the spec"
        )
    return _aligned_copy(array, wanted)


def _aligned_copy(array: np.ndarray, wanted: np.dtype) -> np.ndarray:
    return np.array(array, wanted, order="C", copy=True, subok=False)


def _from_numbers(value: object, port: Port, wanted: np.dtype) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"input {port.name!r} is a nested list of uneven lengths: {error}") from None
    if array.size == 0:
        return array.astype(wanted)
    if array.dtype.kind in "biuf" and (array.dtype.kind != "f" or port.dtype.is_float):
        with np.errstate(all="ignore"):
            converted = array.astype(wanted)
        if array.dtype.kind == "f" or np.array_equal(converted.astype(array.dtype), array):
            return converted
    raise DTypeError(f"input {port.name!r} is a list or number of {array.dtype} that does not fit {port.dtype} exactly")


def solve(
    ports: Sequence[Port],
    shapes: Sequence[tuple[int, ...]],
    kind: str = "input",
    known: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """The dims' values, from the shapes given for ``ports``, beside those already ``known``.

    A size that is one dim settles it; then a linear size with one unknown dim does (``2*B + 1``); then every size is
    checked. Raises ShapeError with the port, the shape given and the shape expected.
    """
    values: dict[str, int] = dict(known or {})
    unsettled: list[tuple[Size, int]] = []
    for port, shape in zip(ports, shapes, strict=True):
        if len(shape) != len(port.shape):
            raise _mismatch(port, shape, values, kind, f"rank {len(shape)} instead of {len(port.shape)}")
        for size, given in zip(port.shape, shape, strict=True):
            name = _dim_name(size)
            if name is None:
                unsettled.append((size, given))
            elif values.setdefault(name, given) != given:
                raise _mismatch(port, shape, values, kind, f"{name} is already {values[name]}")
    for size, given in unsettled:
        _settle(size, given, values)
    for port, shape in zip(ports, shapes, strict=True):
        for axis, (size, given) in enumerate(zip(port.shape, shape, strict=True)):
            unknown = dims.names(size) - values.keys()
            if len(unknown) == 1:
                why = f"no {min(unknown)} gives the {given} of axis {axis}"
                raise _mismatch(port, shape, values, kind, why)
            if unknown:
                raise ShapeError(f"the shapes of the inputs do not settle the dim {min(unknown)} in {size}")
            expected = dims.evaluate(size, values)
            if expected != given:
                raise _mismatch(port, shape, values, kind, f"axis {axis} is {given} instead of {expected}")
    return values


def _dim_name(size: Size) -> str | None:
    if isinstance(size, Expr) and len(size.terms) == 1:
        monomial, factor = size.terms[0]
        if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
            return monomial[0].name
    return None


def _settle(size: Size, given: int, values: dict[str, int]) -> None:
    """Settle the dim of ``factor * dim + rest == given`` where ``rest`` is known."""
    unknown = dims.names(size) - values.keys()
    if len(unknown) != 1 or not isinstance(size, Expr):
        return
    name = unknown.pop()
    rest = dims.substitute(size, values) if values else size
    at_zero, at_one = dims.evaluate(rest, {name: 0}), dims.evaluate(rest, {name: 1})
    factor = at_one - at_zero
    linear = isinstance(rest, Expr) and all(m in ((), (Symbol(name),)) for m, _ in rest.terms)
    if linear and factor and (given - at_zero) % factor == 0 and (given - at_zero) // factor >= 0:
        values[name] = (given - at_zero) // factor


def _mismatch(port: Port, shape: tuple[int, ...], values: Mapping[str, int], kind: str, why: str) -> ShapeError:
    known = {n: v for n, v in values.items() if any(n in dims.names(s) for s in port.shape)}
    where = f" with {', '.join(f'{n}={v}' for n, v in known.items())}" if known else ""
    return ShapeError(
        f"{kind} {port.name!r} has shape {shape_text(shape)}; expected {shape_text(port.shape)}{where}: {why}"
    )


def check_assumptions(assumptions: Iterable[dims.Assumption], values: Mapping[str, int]) -> None:
    """Raises ShapeError with the reason and the user's line of the first assumption that does not hold."""
    for assumption in assumptions:
        if not assumption.holds(values):
            sizes = ", ".join(f"{n}={values[n]}" for n in sorted(dims.names(assumption.expr)))
            raise ShapeError(f"{assumption.reason} (here {sizes})", assumption.location)

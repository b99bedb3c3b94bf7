"""A Program as JSON text, for the compile cache, and back."""

from __future__ import annotations

import base64
import json
from dataclasses import astuple, replace
from functools import lru_cache
from typing import Any

from engine import dims, dtypes
from engine.buffers import Buffer
from engine.dims import Assumption, Expr, Size
from engine.errors import SourceLocation, TextError
from engine.program import Arg, Block, BoxMap, Call, Check, Kernel, Loop, Pointer, Port, Program, Window

FORMAT = 9


def to_json(program: Program) -> str:
    """``program`` as compact JSON; sizes are ints or their Python text."""
    return json.dumps(
        {
            "format": FORMAT,
            "name": program.name,
            "inputs": [_port_out(p) for p in program.inputs],
            "outputs": [_port_out(p) for p in program.outputs],
            "state": [_port_out(p) for p in program.state],
            "updates": program.updates,
            "buffers": [_buffer_out(b) for b in program.buffers],
            "loops": [_loop_out(loop) for loop in program.loops],
            "main": [_call_out(c) for c in program.main],
            "prepare": [_call_out(c) for c in program.prepare],
            "kernels": [astuple(k) for k in program.kernels],
            "assumptions": [_assumption_out(a) for a in program.assumptions],
            "checks": [[c.message, c.location, c.node] for c in program.checks],
            "lifetimes": program.lifetimes,
            "statistics": program.statistics,
            "constants": {n: base64.b64encode(v).decode("ascii") for n, v in program.constants.items()},
        },
        separators=(",", ":"),
    )


def from_json(text: str | bytes) -> Program:
    """The Program that :func:`to_json` wrote. Raises TextError for anything else."""
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise TextError(f"a program in format {data['format']}; this version reads format {FORMAT}")
        return Program(
            name=data["name"],
            inputs=tuple(_port_in(p) for p in data["inputs"]),
            outputs=tuple(_port_in(p) for p in data["outputs"]),
            state=tuple(_port_in(p) for p in data["state"]),
            updates=tuple(data["updates"]),
            buffers=tuple(_buffer_in(b) for b in data["buffers"]),
            loops=tuple(_loop_in(loop) for loop in data["loops"]),
            main=tuple(_call_in(c) for c in data["main"]),
            prepare=tuple(_call_in(c) for c in data["prepare"]),
            kernels=tuple(Kernel(*k) for k in data["kernels"]),
            assumptions=tuple(_assumption_in(a) for a in data["assumptions"]),
            checks=tuple(Check(*c) for c in data["checks"]),
            lifetimes={n: (first, last) for n, (first, last) in data["lifetimes"].items()},
            statistics=data["statistics"],
            constants={n: base64.b64decode(v, validate=True) for n, v in data["constants"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"not a program: {type(error).__name__}: {error}") from None


def _size_out(size: Size) -> int | str:
    return str(size) if isinstance(size, Expr) else int(size)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Size:
    return dims.parse(text)


def _size_in(value: int | str) -> Size:
    return _parsed(value) if isinstance(value, str) else value


def _port_out(port: Port) -> list:
    return [port.name, [_size_out(s) for s in port.shape], port.dtype.name, port.buffer, port.order]


def _port_in(value: list) -> Port:
    name, shape, dtype, buffer, order = value
    order = None if order is None else tuple(order)
    return Port(name, tuple(_size_in(s) for s in shape), dtypes.as_dtype(dtype), buffer, order)


def _buffer_out(b: Buffer) -> list:
    plain = [b.name, b.kind, b.dtype.name, _size_out(b.size)]
    return [*plain, b.within, _size_out(b.start), _size_out(b.step), b.alternates] if b.within else plain


def _buffer_in(value: list) -> Buffer:
    name, kind, dtype, size, *window = value
    plain = Buffer(name, kind, dtypes.as_dtype(dtype), _size_in(size))
    if not window:
        return plain
    within, start, step, alternates = window
    return replace(plain, within=within, start=_size_in(start), step=_size_in(step), alternates=alternates)


def _loop_out(loop: Loop) -> list:
    guard = None if loop.guard is None else _arg_out(loop.guard)
    return [loop.first, loop.end, _size_out(loop.times), loop.windows, guard]


def _loop_in(value: list) -> Loop:
    first, end, times, windows, guard = value
    at = None if guard is None else Pointer(guard[0], _size_in(guard[1]))
    return Loop(first, end, _size_in(times), tuple(windows), at)


def _arg_out(arg: Arg) -> Any:
    """A size as itself, a Pointer as ``[buffer, offset]``, a Block as ``[[...]]``, a BoxMap as all its fields."""
    if isinstance(arg, Pointer):
        return [arg.buffer, _size_out(arg.offset)]
    if isinstance(arg, Block):
        return [[_arg_out(a) for a in arg.args]]
    if isinstance(arg, BoxMap):
        return [
            _arg_out(arg.at),
            *([_size_out(s) for s in sizes] for sizes in (arg.shape, arg.strides)),
            arg.itemsize,
            [*arg.box],
            arg.window and [*map(_size_out, arg.window.sizes), *arg.window.step],
        ]
    return _size_out(arg)


def _arg_in(value: Any) -> Arg:
    if not isinstance(value, list):
        return _size_in(value)
    if len(value) == 2:
        return Pointer(value[0], _size_in(value[1]))
    if len(value) == 1:
        return Block(tuple(_arg_in(a) for a in value[0]))
    at, shape, strides, itemsize, box, numbers = value
    place = Pointer(at[0], _size_in(at[1]))
    window = None
    if numbers is not None:
        top, left, bottom, right = map(_size_in, numbers[:4])
        window = Window((top, left), (bottom, right), (numbers[4], numbers[5]))
    return BoxMap(place, tuple(map(_size_in, shape)), tuple(map(_size_in, strides)), itemsize, tuple(box), window)


def _call_out(call: Call) -> list:
    args = [_arg_out(a) for a in call.args]
    guard = None if call.guard is None else _arg_out(call.guard)
    fixed = [call.reads, call.writes, call.scratch, call.nodes, call.indexed, guard]
    return [call.kernel, call.label, args, _size_out(call.tasks), *fixed]


def _call_in(value: list) -> Call:
    kernel, label, args, tasks, reads, writes, scratch, nodes, indexed, guard = value
    return Call(
        kernel,
        label,
        tuple(_arg_in(a) for a in args),
        _size_in(tasks),
        tuple(reads),
        tuple(writes),
        scratch,
        tuple(nodes),
        indexed,
        None if guard is None else Pointer(guard[0], _size_in(guard[1])),
    )


def _assumption_out(a: Assumption) -> list:
    where = [a.location.file, a.location.line, a.location.function] if a.location else None
    return [_size_out(a.expr), a.relation, a.reason, where]


def _assumption_in(value: list) -> Assumption:
    expr, relation, reason, where = value
    return Assumption(_size_in(expr), relation, reason, SourceLocation(*where) if where else None)  # type: ignore[arg-type]

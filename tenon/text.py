"""What a dumped graph runs on: ``from tenon.text import *`` is its first line.

A dump is a Python program over the NumPy reference. ``python 04-fuse.py`` runs it on the inputs saved beside it
(``inputs.npz``) or on made-up ones; in a debugger its lines can be stepped through, every value an array.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine import binding, dims, dtypes, interpreter, op, samples, text
from engine.dtypes import DType
from engine.errors import TenonError, TextError
from engine.graph import Graph, TensorType, Value
from engine.names import WORDS
from engine.records import dataclass
from engine.text.literals import as_constant
from passes.autodiff import expand_gradients

INPUTS = "inputs.npz"

__all__ = sorted({*WORDS, *(d.name for d in dtypes.ALL), *op.all_ops()} - {"str", "input", "state"})

inf, nan = float("inf"), float("nan")


@dataclass(frozen=True)
class _Running:
    """What the lines of a running program refer to: the sizes of dims, and the constants kept beside the text."""

    sizes: Mapping[str, int]
    constants: Mapping[str, np.ndarray]
    skipping: bool = False


_NOTHING = _Running({}, {})
_running: ContextVar[_Running] = ContextVar("running", default=_NOTHING)


# --- the words of the language -----------------------------------------------------------------------------


class Annotation:
    """Stands where a type is written. Types are read from the program's text, so it holds nothing."""

    def __getitem__(self, item: object) -> Annotation:
        return self

    def order(self, *axes: int) -> Annotation:
        return self


class DTypeWord(Annotation):
    """A dtype: ``f32["B", 3]`` is a type, ``f32(0.5)`` a scalar, ``dtype=f32`` an attribute."""

    def __init__(self, dtype: DType):
        self.dtype = dtype

    def __call__(self, value: float) -> np.ndarray:
        return as_constant(value, self.dtype, ())


class State(dict[str, Any]):
    """``State({...})`` holds the new values of state; ``State["name", f32[3]]`` is the type of an old one."""

    def __class_getitem__(cls, item: object) -> Any:
        return Annotation()


Input = Annotation()


def assume(fact: str, reason: str) -> None:
    """Check a fact about the dims, such as ``"B - 1 >= 0"``. Raises ShapeError."""
    binding.check_assumptions([text.assumption(fact, reason)], _running.get().sizes)


def constant(value: Any, dtype: DTypeWord | None = None, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """An array from numbers, or one of those kept beside the text, by name."""
    if dtype is not None:
        return as_constant(value, dtype.dtype, shape)
    constants = _running.get().constants
    if value not in constants:
        raise TextError(f"the constant {value!r} was not found beside the program")
    return constants[value]


def dim(size: str) -> int:
    """The value of a symbolic size."""
    return dims.evaluate(dims.parse(size), _running.get().sizes)


@contextlib.contextmanager
def kernel(name: str, when: object = True) -> Iterator[None]:
    """Marks the ops that one compiled kernel computes. Unless ``when`` holds they compute nothing, and give zeros."""
    running = _running.get()
    token = _running.set(replace(running, skipping=not when))
    try:
        yield
    finally:
        _running.reset(token)


def body(function: Callable[..., Any]) -> Callable[..., tuple[np.ndarray, ...]]:
    """Decorator of the body of a loop, which runs once a step."""

    def step(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        found = function(*arrays)
        return tuple(map(np.asarray, found if isinstance(found, tuple) else (found,)))

    return step


def _attribute(value: Any, nested: bool = False) -> Any:
    if isinstance(value, tuple):
        return tuple(_attribute(v, nested=True) for v in value)
    if isinstance(value, DTypeWord):
        return value.dtype
    return dim(value) if nested and isinstance(value, str) else value


def _op_word(record: op.Op) -> Callable[..., Any]:
    """An op as a function on arrays; numbers take the dtype that they take beside tensors in a program."""

    def apply(*operands: Any, **attrs: Any) -> Any:
        tensors = [dtypes.as_dtype(a.dtype) for a in operands if isinstance(a, (np.ndarray, np.generic))]
        beside = dtypes.promote(*tensors) if tensors else None
        arrays = [
            np.asarray(a) if isinstance(a, (np.ndarray, np.generic)) else as_constant(a, dtypes.of_scalar(a, beside))
            for a in operands
        ]
        running = _running.get()
        known = {k: _attribute(a) for k, a in attrs.items()}
        if record.kind == "loop":
            length = 0 if running.skipping else interpreter.bound(known["length"], running.sizes)
            options = {**record.attrs, **known, "length": length}
            found = interpreter.loop(arrays=arrays, **options)
            if running.skipping:
                steps = interpreter.bound(known["length"], running.sizes)
                found = tuple(np.zeros((steps, *a.shape[1:]) if i >= known["carries"] else a.shape, a.dtype)
                              for i, a in enumerate(found))  # fmt: skip
        elif running.skipping:
            given = tuple(TensorType(a.shape, dtypes.as_dtype(a.dtype)) for a in arrays)
            types = record.infer(
                given, {k: interpreter.bound(a, running.sizes) for k, a in record.complete(known).items()}
            )
            found = tuple(np.zeros(t.shape, t.dtype.numpy) for t in types)
        else:
            found = interpreter.evaluate(record, arrays, known, running.sizes)
        return found[0] if len(found) == 1 else found

    apply.__name__ = apply.__qualname__ = record.name
    apply.__doc__ = record.doc
    return apply


def __getattr__(name: str) -> Any:
    """The dtypes and ops as words. In this module's own scope ``sum`` or ``bool`` would hide Python's."""
    for dtype in dtypes.ALL:
        if dtype.name == name:
            return DTypeWord(dtype)
    if name in __all__:
        return _op_word(op.get(name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- programs ----------------------------------------------------------------------------------------------


class Program:
    """A dumped function: callable on arrays, with the graph that its text spells."""

    def __init__(self, function: Callable[..., Any], name: str | None = None):
        self.function = function
        self.name = name or function.__name__
        self.__doc__ = function.__doc__

    @property
    def path(self) -> Path:
        return Path(inspect.getfile(self.function))

    @cached_property
    def constants(self) -> dict[str, np.ndarray]:
        return load_arrays(self.path.with_suffix(".npz"))

    @cached_property
    def graph(self) -> Graph:
        """The graph, parsed from the text. Raises TextError."""
        return text.parse(self.path.read_text(encoding="utf-8"), self.constants)

    def __call__(self, *inputs: object, **state: object) -> Any:
        """Run the function's own lines. Inputs and state go by their parameters; raises as the interpreter does."""
        given = inspect.signature(self.function).bind(*inputs, **state).arguments
        ports = (self.graph.inputs, self.graph.state)
        arrays, sizes = interpreter.bind(self.graph, *({v.node.attrs["name"]: given[v.name] for v in p} for p in ports))
        parameters = dict(zip((v.name for p in ports for v in p), arrays, strict=True))
        token = _running.set(_Running(sizes, self.constants))
        try:
            with np.errstate(all="ignore"):
                return self.function(**parameters)
        finally:
            _running.reset(token)


def program(function: Callable[..., Any] | str) -> Any:
    """Decorator of a dumped function: ``@program``, or ``@program("name")`` where its name is no identifier."""
    if isinstance(function, str):
        return lambda f: Program(f, function)
    return Program(function)


def run(program: Program) -> None:
    """Run a dump on the inputs beside it, or else on made-up ones, and print what comes out."""
    graph = program.graph
    saved = load_arrays(program.path.with_name(INPUTS))
    if saved:
        inputs, state = ({v.node.attrs["name"]: _saved(saved, v) for v in p} for p in (graph.inputs, graph.state))
    else:
        inputs, state = samples.sample(graph)
    print(f"{program.name} on {f'the inputs in {INPUTS}' if saved else 'made-up inputs'}")
    if any(n.op.kind == "grad" for n in graph.nodes):  # its lines cannot run before autodiff has expanded them
        outputs, after = interpreter.run(expand_gradients(graph), inputs, state)
        updates = {name: after[name] for name in graph.updates}
    else:
        values = {v.name: inputs[v.node.attrs["name"]] for v in graph.inputs}
        found = program(**values, **{v.name: state[v.node.attrs["name"]] for v in graph.state})
        results = found if isinstance(found, tuple) else (found,)
        outputs, updates = results[: len(graph.outputs)], results[-1] if graph.updates else {}
    for v, array in zip(graph.outputs, outputs, strict=True):
        print(f"{v.name}: {summary(array)}")
    for name, array in updates.items():
        print(f"state {name}: {summary(array)}")


def _saved(saved: Mapping[str, np.ndarray], port: Value) -> np.ndarray:
    name = f"{port.node.op.name}:{port.node.attrs['name']}"
    if name not in saved:
        raise TenonError(f"{INPUTS} has no {name!r}; it holds {', '.join(sorted(saved))}")
    return saved[name]


def summary(array: np.ndarray) -> str:
    """Type and values of an array in a line."""
    array = np.asarray(array)
    head = TensorType(array.shape, dtypes.as_dtype(array.dtype))
    if array.size <= 4:
        return f"{head} = {array.tolist()}"
    wide = array.astype(np.float64)
    return f"{head}, min {wide.min():.6g}, mean {wide.mean():.6g}, max {wide.max():.6g}"


# --- files -------------------------------------------------------------------------------------------------


def write(graph: Graph, path: str | Path, title: str | None = None) -> None:
    """Write ``graph`` to the Python file ``path``, and its larger constants to an .npz file of the same name."""
    path = Path(path)
    program, constants = text.to_text_and_constants(graph, title)
    path.write_text(program, encoding="utf-8")
    if constants:
        save_arrays(path.with_suffix(".npz"), {f"constant:{k}": v for k, v in constants.items()})


def write_inputs(folder: str | Path, inputs: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray]) -> None:
    """Save what the dumps in ``folder`` run on."""
    arrays = {f"input:{k}": v for k, v in inputs.items()} | {f"state:{k}": v for k, v in state.items()}
    save_arrays(Path(folder) / INPUTS, arrays)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of any dtype by name."""
    np.savez(path, **arrays)  # type: ignore[arg-type]  # it takes the names for its own options


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What save_arrays wrote; nothing where there is no such file."""
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as file:
        arrays = {name.removeprefix("constant:"): file[name] for name in file.files}
    return {k: a.view(dtypes.bf16.numpy) if a.dtype.kind == "V" else a for k, a in arrays.items()}  # .npy has no bf16

"""Running a model or a function once on symbolic tensors, which gives the graph of everything it does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from engine.collecting import no_collecting
from engine.errors import TenonError, TraceError
from engine.graph import Graph, identifier
from engine.records import dataclass
from engine.state import Cell
from frontend.nest import Rebuild, flatten
from frontend.nn import Module
from frontend.tensor import Tensor
from frontend.trace import Trace
from tenon.specs import TensorSpec
from tenon.text_format import plural


@dataclass(frozen=True)
class Traced:
    """A graph, the cells of its state by name, and how its outputs are put together for the caller."""

    graph: Graph
    cells: dict[str, Cell]
    rebuild: Rebuild


@no_collecting()
def trace(function: Callable[..., Any], specs: Sequence[TensorSpec], name: str | None = None) -> Traced:
    """Call ``function`` (a Module, or any function of Tensors) on symbolic tensors of these specs.

    Raises TenonError where the specs do not fit the arguments or something else than Tensors is returned.
    """
    call = function.forward if isinstance(function, Module) else function
    title = identifier(name or _name_of(function))
    names = _argument_names(call, specs, title)
    trace = Trace(title)
    with trace:
        arguments = [Tensor.of(trace.builder.input(n, s.type)) for n, s in zip(names, specs, strict=True)]
        result = function(*arguments)
        leaves, rebuild = flatten(
            result, lambda x: isinstance(x, Tensor), lambda x, where: _not_a_tensor(title, x, where)
        )
        outputs = [leaf.value() for leaf in leaves]
    return Traced(trace.finish(outputs), trace.cells, rebuild)


def _name_of(function: Callable[..., Any]) -> str:
    if isinstance(function, Module):
        return type(function).__name__
    name = getattr(function, "__name__", type(function).__name__)
    return "function" if name == "<lambda>" else name


def _argument_names(call: Callable[..., Any], specs: Sequence[TensorSpec], title: str) -> list[str]:
    """What each input is called: the spec's own name, or the argument's."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):  # a builtin
        names = [f"x{i}" for i in range(len(specs))]
    else:
        try:
            bound = signature.bind(*specs)
        except TypeError as error:
            plain = signature.replace(return_annotation=inspect.Signature.empty)
            plain = plain.replace(parameters=[p.replace(annotation=p.empty) for p in plain.parameters.values()])
            given = plural(len(specs), "spec")
            raise TenonError(f"{title}{plain} was given {given}, one for each tensor: {error}") from None
        names = []
        for name, value in bound.arguments.items():
            is_rest = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            names += [f"{name}{i}" for i in range(len(value))] if is_rest else [name]
    names = [s.name or n for n, s in zip(names, specs, strict=True)]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise TenonError(f"two inputs of {title} are called {twice[0]!r}; give one of their specs another name")
    return names


def _not_a_tensor(title: str, found: object, where: str) -> TraceError:
    place = f" at {where}" if where else ""
    return TraceError(
        f"{title} returned {type(found).__name__} {found!r:.60}{place}; a traced function returns Tensors, alone or in "
        "tuples, lists and dicts"
    )

"""Gradients of traced functions: a ``grad`` node that the autodiff pass expands, so they nest and compile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from engine import graph
from engine.errors import TenonError, TraceError
from frontend.tensor import Tensor
from frontend.trace import current_trace


def grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The function that computes the gradient of the scalar ``f(*args)`` with respect to argument ``argnums``.

    A tuple of positions gives a tuple of gradients. Call it in traced code, or compile it:
    ``tn.compile(tn.grad(f), tn.spec(3))``. It nests: ``tn.grad(lambda x: tn.grad(f)(x).sum())``.
    """
    both = value_and_grad(f, argnums)

    @functools.wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    gradient.__name__ = f"grad_{_name(f)}"
    return gradient


def value_and_grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """Like :func:`grad`, for the pair of ``f(*args)`` and its gradient."""
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not positions or not all(isinstance(i, int) for i in positions):
        raise TenonError(f"argnums is {argnums!r}; the position of an argument, or a tuple of them, was expected")
    name = _name(f)

    @functools.wraps(f)
    def value_and_gradient(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if not graph.tracing():
            current_trace(f"the gradient of {name}")  # which raises
        arguments = list(args)
        sources = []
        for position in positions:
            if not -len(args) <= position < len(args):
                raise TenonError(f"argnums names argument {position} of {name}, which was called with {len(args)}")
            # A value of its own, so that the gradient is that of this use and not of others of the same tensor.
            source = graph.apply("identity", _tensor(arguments[position], name, position).value())
            sources.append(source)
            arguments[position] = Tensor.of(source)
        result = f(*arguments, **kwargs)
        if not isinstance(result, Tensor):
            raise TraceError(
                f"a gradient is taken of a function that returns one Tensor; {name} returned {_type(result)}"
            )
        found = graph.apply("grad", result.value(), *sources)
        if isinstance(argnums, int):
            return result, Tensor.of(found)
        return result, tuple(map(Tensor.of, found if isinstance(found, tuple) else (found,)))

    value_and_gradient.__name__ = f"value_and_grad_{name}"
    return value_and_gradient


def _tensor(argument: Any, name: str, position: int) -> Tensor:
    if not isinstance(argument, Tensor):
        raise TraceError(
            f"the gradient of {name} with respect to argument {position} needs a Tensor there, not {_type(argument)}"
        )
    return argument


def _name(f: Callable[..., Any]) -> str:
    name = getattr(f, "__name__", type(f).__name__)
    return name if name.isidentifier() else "function"


def _type(x: object) -> str:
    return f"{type(x).__name__} {x!r:.60}"

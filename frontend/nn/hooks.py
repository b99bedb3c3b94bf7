"""Functions that run before or after a module's forward."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.errors import TenonError

if TYPE_CHECKING:
    from frontend.nn.module import Module

Hooks = dict[int, tuple[Callable[..., Any], bool]]
"""Hooks in the order in which they run, each with whether it takes keyword arguments, by number."""

_numbers = itertools.count()


class RemovableHandle:
    """A registered hook. ``remove()`` takes it away; so does leaving a ``with`` block."""

    def __init__(self, hooks: Hooks, hook: Callable[..., Any], with_kwargs: bool, prepend: bool):
        if not callable(hook):
            raise TypeError(f"a hook is a function, not {type(hook).__name__} {hook!r:.60}")
        self._hooks = hooks
        self._number = next(_numbers)
        others = dict(hooks) if prepend else {}
        if prepend:
            hooks.clear()
        hooks[self._number] = (hook, with_kwargs)
        hooks.update(others)

    def remove(self) -> None:
        self._hooks.pop(self._number, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def changed_arguments(
    hook: Callable[..., Any], with_kwargs: bool, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a module's forward after one hook has seen them. Raises TenonError for what is none."""
    found = hook(module, args, kwargs) if with_kwargs else hook(module, args)
    if found is None:
        return args, kwargs
    if not with_kwargs:
        return (found if isinstance(found, tuple) else (found,)), kwargs
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        raise TenonError(f"a forward pre-hook with_kwargs returns (args, kwargs) or None, not {found!r:.60}")
    return found[0], found[1]

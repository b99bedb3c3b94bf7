"""What a traced function returns: tensors in tuples, lists and dicts, flattened and put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Rebuild = Callable[[Iterator[Any]], Any]


def flatten(tree: Any, is_leaf: Callable[[Any], bool], reject: Callable[[Any, str], Exception]) -> tuple[list, Rebuild]:
    """The leaves of ``tree`` in order, and a function that builds the same nest around an iterator over others.

    Tuples (named ones too), lists and dicts are nests; None is a nest without leaves. Anything else raises what
    ``reject(found, where)`` makes, ``where`` being its path: ``[0]['loss']``.
    """
    leaves: list = []
    return leaves, _walk(tree, "", leaves, is_leaf, reject)


def unflatten(rebuild: Rebuild, leaves: Sequence[Any]) -> Any:
    return rebuild(iter(leaves))


def _walk(
    tree: Any, where: str, leaves: list, is_leaf: Callable[[Any], bool], reject: Callable[[Any, str], Exception]
) -> Rebuild:
    if is_leaf(tree):
        leaves.append(tree)
        return next
    if tree is None:
        return lambda found: None
    if isinstance(tree, (tuple, list)):
        parts = [_walk(x, f"{where}[{i}]", leaves, is_leaf, reject) for i, x in enumerate(tree)]
        kind = type(tree)
        if hasattr(kind, "_make"):
            return lambda found: kind._make(part(found) for part in parts)
        return lambda found: kind(part(found) for part in parts)
    if isinstance(tree, dict):
        items = {k: _walk(x, f"{where}[{k!r}]", leaves, is_leaf, reject) for k, x in tree.items()}
        return lambda found: {k: part(found) for k, part in items.items()}
    raise reject(tree, where)

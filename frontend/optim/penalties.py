"""Penalties on the size of weights, to be added to a loss."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import TenonError
from frontend import reducing
from frontend.dispatch import call
from frontend.tensor import Tensor


def l1_penalty(params: Iterable[Tensor]) -> Tensor:
    """The sum of the magnitudes of all elements, a scalar: ``loss + 1e-4 * optim.l1_penalty(model.parameters())``.

    Raises TenonError where there are no parameters.
    """
    return _total([reducing.sum(call("abs", p)) for p in params])


def l2_penalty(params: Iterable[Tensor]) -> Tensor:
    """The sum of the squares of all elements, a scalar (without the factor 1/2). Raises TenonError where there are no
    parameters."""
    return _total([reducing.sum(call("square", p)) for p in params])


def _total(parts: list[Tensor]) -> Tensor:
    if not parts:
        raise TenonError("a penalty needs at least one parameter, and got none")
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total

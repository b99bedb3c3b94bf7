"""Cases in which Tenon and PyTorch do the same.

Each module of this package lists the ``CASES`` of one area; ``tests/test_parity.py`` runs them all. A case says what
both compute; the runner compares outputs and gradients in f32 and f64 on the reference, and compiled where ``compiled``
is set (one case for each function or module is enough: a kernel takes a third of a second to compile).

    CASES = [
        Case("softplus", F.softplus, lambda t, x: t.nn.functional.softplus(x), (normal(3, 4),), compiled=True),
        Case("softplus/beta", lambda x: F.softplus(x, 2, 5), lambda t, x: t.nn.functional.softplus(x, 2, 5), (wide,)),
        ModuleCase("PReLU", lambda: nn.PReLU(4), lambda t: t.nn.PReLU(4), (normal(2, 4, 3),), compiled=True),
    ]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_rng = np.random.default_rng(11)


def normal(*shape: int) -> np.ndarray:
    return _rng.normal(size=shape)


def uniform(low: float, high: float, *shape: int) -> np.ndarray:
    return _rng.uniform(low, high, shape)


def distinct(*shape: int) -> np.ndarray:
    """Numbers of both signs, each at least 0.1 from the others and from 0: no ties, no kinks."""
    n = int(np.prod(shape))
    return (_rng.permutation(n) - n // 2 + 0.5).reshape(shape) * 0.3


def integers(high: int, *shape: int) -> np.ndarray:
    return _rng.integers(0, high, shape)


@dataclass(frozen=True, eq=False)
class Case:
    """``ours(*tensors)`` and ``theirs(torch, *tensors)`` give the same tensor, or the same tuple of tensors.

    ``name`` is the function, with ``/what`` after it where there are several cases. Float ``arrays`` are f64, and cast
    to the dtype that is tried; gradients of a weighted sum of all float outputs flow to each of them unless ``grads``
    is False. ``batched`` numbers the arrays whose axis 0 is the symbolic dim ``B`` in the compiled program.
    ``tolerance`` is a factor on the runner's. ``dtypes`` may leave one out.
    """

    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    grads: bool = True
    compiled: bool = False
    batched: tuple[int, ...] = ()
    tolerance: float = 1.0
    dtypes: tuple[str, ...] = ("f32", "f64")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class ModuleCase:
    """``ours()`` and ``theirs(torch)`` make the same module: the same state_dict keys and shapes, and, once PyTorch's
    state is loaded, the same outputs, gradients of inputs and parameters, and buffers afterwards.

    ``train`` is the mode. ``call`` is what is done with module and tensors where it is more than calling it.
    """

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[Any], Any]
    arrays: tuple[np.ndarray, ...]
    grads: bool = True
    train: bool = True
    compiled: bool = False
    batched: tuple[int, ...] = ()
    tolerance: float = 1.0
    dtypes: tuple[str, ...] = ("f32",)
    call: Callable[..., Any] = field(default=lambda module, *tensors: module(*tensors))

    def __str__(self) -> str:
        return self.name

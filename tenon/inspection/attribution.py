"""``tn.attribute``: how much each number of an input counts for what a model says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine import dtypes
from engine.errors import DTypeError, IndexRangeError, ShapeError, TenonError
from frontend.nn import Module
from frontend.tensor import Tensor
from tenon.compiling import compile
from tenon.executable import Executable
from tenon.gradients import value_and_grad
from tenon.modes import mode
from tenon.specs import spec

METHODS = ("saliency", "integrated_gradients")


def attribute(
    model: Module | Callable[..., Any],
    inputs: Any,
    target: Any = None,
    method: str = "saliency",
    *,
    steps: int = 50,
    baseline: Any = 0.0,
    device: str = "cpu",
) -> Any:
    """How much each element of ``inputs`` counts for the score of ``target``, as arrays of their shapes and dtypes.

    ``inputs`` is an array whose first axis is the batch, or a tuple of them; those of floats are attributed to, for the
    others (tokens, lengths) there is None. ``model`` gives scores (B, classes), and ``target`` is then a class, or one
    for each of the batch; or it gives one number each, (B,), and there is no ``target``. A Module is taken in
    evaluation mode. Examples of a batch must not depend on each other. ``device`` is where it is computed: what
    ``tn.compile`` calls ``target``.

    - ``"saliency"``: the size of the gradient, ``|d score / dx|``. Simonyan, Vedaldi and Zisserman (2013), "Deep inside
      convolutional networks".
    - ``"integrated_gradients"``: ``(x - x') * integral over a from 0 to 1 of d score / dx at x' + a * (x - x')``, from
      the ``baseline`` x' (a number, or what broadcasts to the inputs; for several inputs a tuple), summed at the nodes
      of Gauss and Legendre, ``steps`` of them. The attributions of an example add up to ``score(x) - score(x')``, as
      near as the sum is to the integral. Sundararajan, Taly and Yan (2017), "Axiomatic attribution for deep networks".

    Raises TenonError for an unknown method and what cannot be meant, DTypeError where no input holds floats,
    ShapeError for scores or a target of another shape, IndexRangeError for a class that is none.
    """
    if method not in METHODS:
        raise TenonError(f"method is {method!r}; {' or '.join(map(repr, METHODS))} was expected")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise TenonError(f"steps is {steps!r}; a whole number of at least 1 was expected")
    several = isinstance(inputs, (tuple, list))
    arrays = [np.asarray(x) for x in (inputs if several else [inputs])]
    _check(arrays)
    wanted = [i for i, x in enumerate(arrays) if x.dtype.kind == "f"]
    gradients = _Gradients(model, arrays, wanted, target, device)
    if method == "saliency":
        found = [np.abs(g) for g in gradients(arrays)]
    else:
        starts = _baselines(baseline, arrays, wanted, several)
        found = _integrated(gradients, arrays, wanted, starts, steps)
    if not several:
        return found[0]
    placed = dict(zip(wanted, found, strict=True))
    return tuple(placed.get(i) for i in range(len(arrays)))


def _check(arrays: Sequence[np.ndarray]) -> None:
    if not arrays:
        raise TenonError("inputs is empty; an array, or a tuple of arrays, was expected")
    for x in arrays:
        if x.ndim == 0 or len(x) != len(arrays[0]):
            shapes = ", ".join(str(a.shape) for a in arrays)
            raise ShapeError(f"the inputs have the shapes {shapes}; one batch, the first axis of all, was expected")
    if not any(x.dtype.kind == "f" for x in arrays):
        kinds = ", ".join(str(x.dtype) for x in arrays)
        raise DTypeError(f"the inputs hold {kinds}; attributions are gradients, and need an input of floats")


class _Gradients:
    """The gradient of each example's score with respect to the inputs that are ``wanted``, compiled once."""

    def __init__(self, model: Callable[..., Any], arrays: Sequence[np.ndarray], wanted: Sequence[int], target: Any,
                 device: str):  # fmt: skip
        self.target = target
        self.classes = 0

        def score(*values: Tensor) -> Tensor:
            *inputs, index = values
            scores = model(*inputs)
            return self._chosen(scores, index)

        specs = [spec("B", *x.shape[1:], dtype=dtypes.as_dtype(x.dtype), name=f"x{i}") for i, x in enumerate(arrays)]
        index = spec("B", dtype=dtypes.i64, name="target")
        name = type(model).__name__ if isinstance(model, Module) else getattr(model, "__name__", "function")
        evaluating = mode(model, training=False) if isinstance(model, Module) else contextlib.nullcontext()
        with evaluating:
            program = value_and_grad(score, tuple(wanted))
            self.program: Executable = compile(program, *specs, index, name=f"attribute_{name}", target=device)
        self.index = self._index(len(arrays[0]))

    def _chosen(self, scores: Any, index: Tensor) -> Tensor:
        """The sum of all examples' scores of their targets, whose gradient is that of each."""
        if not isinstance(scores, Tensor) or scores.ndim not in (1, 2):
            found = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
            raise ShapeError(f"the model gives {found}; scores (B, classes), or one a piece, (B,), were expected")
        if (scores.ndim == 1) != (self.target is None):
            what = "no target" if scores.ndim == 1 else "a target: the class, or one for each example,"
            raise TenonError(
                f"the model gives scores of {scores.ndim} axes, so {what} was expected, not {self.target!r:.60}"
            )
        if scores.ndim == 1:
            return scores.sum()
        self.classes = int(scores.shape[1])
        return scores.gather(1, index.unsqueeze(1)).sum()

    def _index(self, batch: int) -> np.ndarray:
        if self.target is None:
            return np.zeros(batch, np.int64)
        index = np.asarray(self.target)
        if index.dtype.kind not in "iu" or index.shape not in ((), (batch,)):
            raise ShapeError(
                f"target is {self.target!r:.60}; a class, or {batch} of them, one for each example, was expected"
            )
        if index.size and not (index.min() >= 0 and index.max() < self.classes):
            raise IndexRangeError(f"target is {self.target!r:.60}; classes from 0 to {self.classes - 1} were expected")
        return np.broadcast_to(index, (batch,)).astype(np.int64)

    def __call__(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        return self.program(*arrays, self.index)[1]


def _baselines(baseline: Any, arrays: Sequence[np.ndarray], wanted: Sequence[int], several: bool) -> list[np.ndarray]:
    """Where the integral of each wanted input starts."""
    given = baseline if isinstance(baseline, (tuple, list)) and several else [baseline] * len(arrays)
    if len(given) != len(arrays):
        raise TenonError(f"there are {len(given)} baselines for {len(arrays)} inputs")
    found = []
    for i in wanted:
        start = np.asarray(given[i], arrays[i].dtype)
        try:
            found.append(np.broadcast_to(start, arrays[i].shape))
        except ValueError:
            raise ShapeError(
                f"the baseline has the shape {start.shape}; what broadcasts to {arrays[i].shape} was expected"
            ) from None
    return found


def _integrated(
    gradients: _Gradients,
    arrays: Sequence[np.ndarray],
    wanted: Sequence[int],
    starts: Sequence[np.ndarray],
    steps: int,
) -> list[np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    sums = [np.zeros(arrays[i].shape) for i in wanted]
    for alpha, weight in zip((nodes + 1) / 2, weights / 2, strict=True):  # from [-1, 1] to [0, 1]
        along = list(arrays)
        for i, start in zip(wanted, starts, strict=True):
            along[i] = (start + alpha * (arrays[i] - start)).astype(arrays[i].dtype)
        for total, g in zip(sums, gradients(along), strict=True):
            total += weight * g
    return [
        (total * (arrays[i] - start)).astype(arrays[i].dtype)
        for i, start, total in zip(wanted, starts, sums, strict=True)
    ]

"""Tenon and PyTorch do the same: the cases of ``tests/parity``, on the reference, and compiled where they say so."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import parity
import pytest
from parity import Case, ModuleCase

import tenon as tn
from engine import graph
from engine.dtypes import as_dtype
from frontend.tensor import Tensor

torch = pytest.importorskip("torch")

AnyCase = Case | ModuleCase

TOLERANCE = {"f32": (1e-5, 1e-4), "f64": (1e-10, 1e-10)}
"""Of outputs and of gradients, against the greatest magnitude in the array (at least 1)."""


def cases() -> list[Any]:
    names = [m.name for m in pkgutil.iter_modules(parity.__path__)]
    found = [(n, c) for n in names for c in importlib.import_module(f"parity.{n}").CASES]
    return [pytest.param(c, d, id=f"{n}-{c}-{d}") for n, c in found for d in c.dtypes]


def compiled_cases() -> list[Any]:
    return [p for p in cases() if p.values[0].compiled and p.values[1] == "f32"]


def flat(found: Any) -> list[Any]:
    if isinstance(found, (tuple, list)):
        return [t for part in found for t in flat(part)]
    return [found]


def is_float(dtype: Any) -> bool:
    return as_dtype(str(dtype).removeprefix("torch.")).is_float


def weights(shape: Sequence[int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def arguments(case: AnyCase, dtype: str) -> list[np.ndarray]:
    kind = as_dtype(dtype).numpy
    return [np.asarray(a).astype(kind) if np.asarray(a).dtype.kind == "f" else np.asarray(a) for a in case.arrays]


# --- PyTorch -----------------------------------------------------------------------------------------------------


def theirs(case: AnyCase, module: Any, arrays: list[np.ndarray]) -> tuple[list[Any], list[Any]]:
    """The outputs of PyTorch, and the gradients of float inputs, then of parameters; None where none flows."""
    inputs = [torch.tensor(a) for a in arrays]
    for x in inputs:
        x.requires_grad_(case.grads and x.is_floating_point())
    outputs = flat(case.call(module, *inputs) if isinstance(case, ModuleCase) else case.theirs(torch, *inputs))
    sources = [x for x in inputs if x.requires_grad]
    sources += [p for p in module.parameters() if p.requires_grad] if isinstance(case, ModuleCase) else []
    loss = sum((y * torch.tensor(weights(tuple(y.shape), i), dtype=y.dtype)).sum()
               for i, y in enumerate(outputs) if y.is_floating_point() and y.requires_grad)  # fmt: skip
    gradients = torch.autograd.grad(loss, sources, allow_unused=True) if case.grads and sources else ()
    return [y.detach().numpy() for y in outputs], [None if g is None else g.numpy() for g in gradients]


# --- Tenon -------------------------------------------------------------------------------------------------------


def traced(case: AnyCase, module: Any, shapes: list[tuple[int, ...]]) -> Callable[..., Any]:
    def run(*inputs: Tensor) -> Any:
        values = [graph.apply("identity", x.value()) for x in inputs]
        tensors = [Tensor.of(v) for v in values]
        outputs = flat(case.call(module, *tensors) if isinstance(case, ModuleCase) else case.ours(*tensors))
        sources = [v for v in values if v.dtype.is_float] if case.grads else []
        if case.grads and isinstance(case, ModuleCase):
            sources += [p.value() for p in module.parameters() if p.requires_grad]
        if not sources:
            return outputs
        terms = [
            (y * tn.tensor(weights(shape, i), dtype=y.dtype)).sum()
            for i, (y, shape) in enumerate(zip(outputs, shapes, strict=True))
            if y.dtype.is_float
        ]
        total = sum(terms[1:], terms[0])
        found = graph.apply("grad", total.value(), *sources)
        return outputs, [Tensor.of(v) for v in (found if isinstance(found, tuple) else (found,))]

    return run


def ours(
    case: AnyCase, module: Any, arrays: list[np.ndarray], shapes: list[tuple[int, ...]], target: str, symbolic: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    specs = [
        tn.spec(*(("B",) if symbolic and i in case.batched else a.shape[:1]), *a.shape[1:], dtype=a.dtype)
        for i, a in enumerate(arrays)
    ]
    run = traced(case, module, shapes)
    run.__signature__ = signature(len(arrays))  # type: ignore[attr-defined]
    found = tn.compile(run, *specs, target=target)(*arrays)
    return (list(found[0]), list(found[1])) if isinstance(found, tuple) else (list(found), [])


def signature(count: int) -> Any:
    import inspect

    return inspect.Signature(
        [inspect.Parameter(f"x{i}", inspect.Parameter.POSITIONAL_OR_KEYWORD) for i in range(count)]
    )


# --- the comparison ------------------------------------------------------------------------------------------------


def assert_equal(what: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert found.shape == expected.shape, f"{what}: shape {found.shape} instead of {expected.shape}"
    assert found.dtype == expected.dtype, f"{what}: {found.dtype} instead of {expected.dtype}"
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected, err_msg=what)
        return
    scale = max(1.0, np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale, err_msg=what)


def compare(case: AnyCase, dtype: str, target: str, symbolic: bool = False) -> None:
    arrays = arguments(case, dtype)
    module = oracle = None
    if isinstance(case, ModuleCase):
        module, oracle = paired(case, arrays)
    expected, expected_gradients = theirs(case, oracle, arrays)
    found, gradients = ours(case, module, arrays, [y.shape for y in expected], target, symbolic)
    of_outputs, of_gradients = (t * case.tolerance for t in TOLERANCE[dtype])
    assert len(found) == len(expected), f"{len(found)} outputs instead of {len(expected)}"
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert_equal(f"output {i}", a, b, of_outputs)
    for i, (a, b) in enumerate(zip(gradients, expected_gradients, strict=True)):
        assert_equal(f"gradient {i}", a, np.zeros_like(a) if b is None else b, of_gradients)
    if oracle is not None and module is not None:
        after = {k: v.detach().numpy() for k, v in oracle.state_dict().items()}
        for key, array in module.state_dict().items():
            assert_equal(key, array, after[key], of_outputs)


def paired(case: ModuleCase, arrays: list[np.ndarray]) -> tuple[Any, Any]:
    """The two modules with one state, in one mode."""
    torch.manual_seed(0)
    oracle, module = case.theirs(torch), case.ours()
    if arguments_of_lazy := [m for m in oracle.modules() if "Lazy" in type(m).__name__]:
        with torch.no_grad():
            case.call(oracle, *map(torch.tensor, arrays))
        assert arguments_of_lazy
        tn.compile(lambda *x: case.call(module, *x), *(tn.spec(*a.shape, dtype=a.dtype) for a in arrays),
                   target="reference")  # fmt: skip
    state = {k: v.detach().numpy() for k, v in oracle.state_dict().items()}
    own = module.state_dict()
    assert {k: a.shape for k, a in own.items()} == {k: a.shape for k, a in state.items()}
    module.load_state_dict(state)
    oracle.train(case.train)
    module.train(case.train)
    return module, oracle


@pytest.mark.parametrize(("case", "dtype"), cases())
def test_on_the_reference(case: AnyCase, dtype: str) -> None:
    compare(case, dtype, "reference")


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dtype"), compiled_cases())
def test_compiled(case: AnyCase, dtype: str) -> None:
    compare(case, dtype, "cpu", symbolic=True)

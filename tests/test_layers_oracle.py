"""Every layer and loss, compiled, against PyTorch: outputs and the gradients of inputs and parameters."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import parity
import pytest

import tenon as tn
from tenon import F, nn, optim

torch = pytest.importorskip("torch")

IMAGE = (4, 9, 7)
LAYERS: dict[str, tuple[int, ...]] = {
    "Linear(6, 5)": (6,),
    "Linear(6, 5, bias=False)": (3, 6),
    "Conv2d(4, 6, 3)": IMAGE,
    "Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), bias=False)": IMAGE,
    "Conv2d(4, 6, 3, dilation=2, padding='same')": IMAGE,
    "Conv2d(4, 8, 3, groups=2, padding=1)": IMAGE,
    "Conv2d(4, 4, 5, groups=4, padding=2)": IMAGE,
    "MaxPool2d(2)": IMAGE,
    "MaxPool2d(3, stride=2, padding=1)": IMAGE,
    "MaxPool2d((2, 3), stride=(1, 2), ceil_mode=True)": IMAGE,
    "MaxPool2d(2, stride=1, dilation=2)": IMAGE,
    "ReLU()": (5,),
    "Sigmoid()": (5,),
    "Tanh()": (5,),
    "Softmax(dim=1)": IMAGE,
    "LogSoftmax(dim=-1)": (5,),
    "Dropout(0.0)": (5,),
    "Flatten()": IMAGE,
    "Flatten(2, 3)": IMAGE,
    "Identity()": (5,),
    "Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))": (6,),
}
LOSSES = ["CrossEntropyLoss", "NLLLoss", "MSELoss", "L1Loss"]


def make(text: str) -> tuple[Any, Any]:
    """PyTorch's module and Tenon's, with the same weights."""
    theirs = eval(f"nn.{text}", {"nn": torch.nn})
    ours = eval(f"nn.{text}", {"nn": nn})
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def close(found: np.ndarray, expected: Any) -> None:
    expected = expected.detach().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5 * max(np.abs(expected).max(initial=0), 1e-3))


@pytest.mark.slow
@pytest.mark.parametrize("text", LAYERS)
def test_layer(text):
    """The step of size 1 that SGD makes is the parameters' gradient."""
    theirs, ours = make(text)
    before = ours.state_dict()
    x = np.random.default_rng(0).normal(size=(3, *LAYERS[text])).astype(np.float32)
    inputs = torch.from_numpy(x).requires_grad_()
    out = theirs(inputs)
    weights = np.random.default_rng(1).normal(size=tuple(out.shape)).astype(np.float32)
    (out * torch.from_numpy(weights)).sum().backward()

    def step(x, weights):
        out = ours(x)
        gradient = tn.grad(lambda x: (ours(x) * weights).sum())(x)
        if before:
            optim.SGD(ours.parameters(), lr=1.0).minimize((out * weights).sum())
        return out, gradient

    exe = tn.compile(step, tn.spec("B", *x.shape[1:]), tn.spec("B", *weights.shape[1:]))
    found, gradient = exe(x, weights)
    close(found, out)
    close(gradient, inputs.grad)
    after = ours.state_dict()
    for name, parameter in theirs.named_parameters():
        close(before[name] - after[name], parameter.grad)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, reduction):
    theirs, ours = getattr(torch.nn, name)(reduction=reduction), getattr(nn, name)(reduction=reduction)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 5)).astype(np.float32)
    y = rng.integers(0, 5, 9) if name in ("CrossEntropyLoss", "NLLLoss") else rng.normal(size=(9, 5)).astype(np.float32)
    inputs = torch.from_numpy(x).requires_grad_()
    expected = theirs(inputs, torch.from_numpy(y))
    expected.sum().backward()

    def both(x, y):
        return ours(x, y), tn.grad(lambda x: ours(x, y).sum())(x)

    loss, gradient = tn.compile(both, tn.spec("B", 5), tn.spec("B", *y.shape[1:], dtype=y.dtype))(x, y)
    close(loss, expected)
    close(gradient, inputs.grad)


EXEMPT = {
    "Module": "the base of the others",
    "ModuleDict": "is not called: tests/test_modules.py",
    "ModuleList": "is not called: tests/test_modules.py",
    "ParameterDict": "is not called: tests/test_modules.py",
    "ParameterList": "is not called: tests/test_modules.py",
    "cond": "takes functions, and PyTorch's only runs in its own compiler: tests/test_cond.py",
    "RNNBase": "the base of RNN, LSTM and GRU",
    "RNNCellBase": "the base of their cells",
}
"""What no case compares, and why."""


def compared() -> set[str]:
    """The functions and modules that a case here or in ``tests/parity`` is named after, with options or without."""
    areas = [importlib.import_module(f"parity.{m.name}") for m in pkgutil.iter_modules(parity.__path__)]
    texts = [*LAYERS, *LOSSES, *(case.name.split("/")[0] for area in areas for case in area.CASES)]
    return {name for text in texts for name in text.split("(")[0].split(", ")}


def offered() -> set[str]:
    """The functions that F adds to those of tensors, and the modules, as far as PyTorch has them under their names."""
    functions = {
        name
        for name, thing in vars(F).items()
        if inspect.isfunction(thing) and thing.__module__.startswith("frontend.functional.") and name[0] != "_"
    }
    modules = {name for name, thing in vars(nn).items() if inspect.isclass(thing) and issubclass(thing, nn.Module)}
    known = {n for n in functions if hasattr(torch.nn.functional, n) or hasattr(torch, n)}
    return known | {n for n in modules if hasattr(torch.nn, n)}


def test_every_layer_and_function_is_compared():
    assert offered() - compared() - EXEMPT.keys() == set()
    assert EXEMPT.keys() <= offered() - compared(), "these are compared, or gone: they need no exemption"

"""Learning rate schedules against PyTorch, stepped between calls and inside a traced step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from frontend_tools import traced

from engine.errors import TenonError
from frontend import nn, optim
from frontend.optim import lr_scheduler as schedules
from frontend.tensor import Tensor

torch = pytest.importorskip("torch")

COUNTS = 40

SCHEDULES: dict[str, Callable[[Any, Any], Any]] = {
    "step": lambda m, o: m.StepLR(o, 7, 0.3),
    "multi-step": lambda m, o: m.MultiStepLR(o, [3, 11, 12], 0.5),
    "constant": lambda m, o: m.ConstantLR(o, 0.25, 6),
    "linear warm-up": lambda m, o: m.LinearLR(o, 0.1, 1.0, 9),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.93),
    "polynomial": lambda m, o: m.PolynomialLR(o, 30, 1.7),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 13, 1e-3),
    "restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 6, 1, 1e-3),
    "growing restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 3, 2, 1e-3),
    "one cycle": lambda m, o: m.OneCycleLR(o, 0.4, COUNTS),
    "one cycle, linear, three phases": lambda m, o: m.OneCycleLR(
        o, 0.4, COUNTS, pct_start=0.25, anneal_strategy="linear", three_phase=True
    ),
    "lambda": lambda m, o: m.LambdaLR(o, lambda n: 0.9**n),
    "warm-up, then cosine": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, 1.0, 5), m.CosineAnnealingLR(o, 30)], [5]
    ),
}


def expected(name: str) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler = SCHEDULES[name](torch.optim.lr_scheduler, optimizer)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(COUNTS - 1):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def training(**options: Any) -> tuple[nn.Module, optim.SGD]:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data = np.ones((1, 1), np.float32)
    return model, optim.SGD(model.parameters(), lr=0.2, **options)


@pytest.mark.parametrize("name", SCHEDULES)
def test_stepped_between_calls(name: str) -> None:
    _, optimizer = training()
    scheduler = SCHEDULES[name](schedules, optimizer)
    found = [optimizer.lr]
    for _ in range(COUNTS - 1):
        scheduler.step()
        found.append(optimizer.lr)
    np.testing.assert_allclose(found, expected(name), rtol=1e-9, atol=1e-12)
    assert scheduler.last_epoch == COUNTS - 1 and scheduler.get_last_lr() == [found[-1]]


@pytest.mark.parametrize("name", SCHEDULES)
def test_stepped_in_the_program(name: str) -> None:
    model, optimizer = training()
    scheduler = SCHEDULES[name](schedules, optimizer)

    def step(x: Tensor) -> None:
        optimizer.minimize(model(x).sum() * 0)
        scheduler.step()

    program = traced(step, (1, 1))
    assert {"sgd.lr", "sgd.scheduler.0.count"} <= set(program.trace.cells)
    found = [optimizer.lr]
    for _ in range(COUNTS - 1):
        program(np.ones((1, 1), np.float32))
        found.append(optimizer.lr)
    np.testing.assert_allclose(found, expected(name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"mode": "max", "threshold_mode": "abs", "threshold": 0.05, "cooldown": 2}])
@pytest.mark.parametrize("inside", [False, True], ids=["between", "inside"])
def test_plateau(options: dict[str, Any], inside: bool) -> None:
    metrics = np.round(np.sin(np.arange(60) / 3), 2)
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(other, patience=3, factor=0.5, min_lr=0.003, **options)
    model, optimizer = training()
    scheduler = schedules.ReduceLROnPlateau(optimizer, patience=3, factor=0.5, min_lr=0.003, **options)

    def step(x: Tensor) -> None:
        optimizer.minimize(model(x).sum() * 0)
        scheduler.step(x.sum())

    program = traced(step, (1, 1)) if inside else None
    for metric in metrics:
        oracle.step(float(np.float32(metric)))
        if program is None:
            scheduler.step(np.float32(metric))
        else:
            program(np.full((1, 1), metric, np.float32))
        assert np.isclose(optimizer.lr, other.param_groups[0]["lr"], rtol=1e-12)
    assert optimizer.lr < 0.1


def test_the_state_is_saved_with_the_optimizers() -> None:
    _, optimizer = training()
    scheduler = schedules.CosineAnnealingLR(optimizer, 10)
    for _ in range(4):
        scheduler.step()
    _, other = training()
    again = schedules.CosineAnnealingLR(other, 10)
    other.load_state_dict(optimizer.state_dict())
    assert (other.lr, again.last_epoch) == (optimizer.lr, 4)
    scheduler.step()
    again.step()
    assert other.lr == optimizer.lr


def test_only_calls_that_change_the_parameters_count() -> None:
    model, optimizer = training(accumulate=3)
    scheduler = schedules.ExponentialLR(optimizer, 0.5)

    def step(x: Tensor) -> None:
        optimizer.minimize(model(x).sum())
        scheduler.step()

    program = traced(step, (1, 1))
    counts = []
    for _ in range(7):
        program(np.ones((1, 1), np.float32))
        counts.append(scheduler.last_epoch)
    assert counts == [0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda o: schedules.StepLR(o, 0), "step_size must be a whole number of at least 1, not 0"),
        (lambda o: schedules.OneCycleLR(o, 0.1), "needs total_steps, or epochs and steps_per_epoch"),
        (lambda o: schedules.OneCycleLR(o, 0.1, 5, anneal_strategy="exp"), "not 'exp'"),
        (lambda o: schedules.ReduceLROnPlateau(o, "less"), '"min" or "max"'),
        (lambda o: schedules.SequentialLR(o, [schedules.ExponentialLR(o, 0.5)], [3]), "need 0 milestones"),
    ],
)
def test_messages(make: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(TenonError, match=words):
        make(training()[1])

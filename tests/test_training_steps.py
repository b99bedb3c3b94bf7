"""What a training step has beside the update: clipping, accumulation, averages, penalties, LAMB and Lion."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
from frontend_tools import Traced, close, traced
from graph_tools import tensor

import tenon as tn
from engine.errors import TenonError
from frontend import functional as F
from frontend import nn, optim
from frontend.tensor import Tensor

rng = np.random.default_rng(3)
X = rng.normal(size=(8, 5)).astype(np.float32)
Y = rng.integers(0, 3, 8)


def mlp() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    for i, p in enumerate(model.parameters()):
        p.data = np.sin(np.arange(p.numel()) * (i + 1)).reshape(p.shape).astype(np.float32)
    return model


def training(model: nn.Module, optimizer: optim.Optimizer, batch: int = 8):
    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    return Traced(step, tensor(batch, 5), tensor(batch, dtype="i64"))


@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf")])
def test_clipping_by_norm_is_pytorchs(norm_type: float) -> None:
    torch = pytest.importorskip("torch")
    model = mlp()
    theirs = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    theirs.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    optimizer = optim.SGD(model.parameters(), lr=1.0)

    def step(x: Tensor, y: Tensor) -> Tensor:
        grads = optimizer.gradients(F.cross_entropy(model(x), y))
        optimizer.apply(optim.clip_grad_norm(grads, 0.05, norm_type))
        return optim.global_norm(grads, norm_type)

    found = Traced(step, tensor(8, 5), tensor(8, dtype="i64"))(X, Y)
    torch.nn.functional.cross_entropy(theirs(torch.tensor(X)), torch.tensor(Y)).backward()
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.05, norm_type)
    torch.optim.SGD(theirs.parameters(), lr=1.0).step()
    close(found, expected.numpy())
    for key, value in theirs.state_dict().items():
        close(model.state_dict()[key], value.numpy())


def test_options_clip_before_the_update() -> None:
    for options, bound in (({"clip_norm": 0.01}, 0.01), ({"clip_value": 0.002}, 0.002)):
        model = mlp()
        before = model.state_dict()
        training(model, optim.SGD(model.parameters(), lr=1.0, **options))(X, Y)
        moved = np.concatenate([(before[k] - v).ravel() for k, v in model.state_dict().items()])
        size = np.linalg.norm(moved) if "clip_norm" in options else np.abs(moved).max()
        assert np.isclose(size, bound, rtol=1e-3)


def test_accumulated_small_batches_are_a_large_one() -> None:
    whole, parts = mlp(), mlp()
    large = training(whole, optim.AdamW(whole.parameters(), lr=0.01, clip_norm=0.5))
    small = training(parts, optim.AdamW(parts.parameters(), lr=0.01, clip_norm=0.5, accumulate=4), 2)
    for _ in range(3):
        large(X, Y)
        for i in range(0, 8, 2):
            before = parts.state_dict()
            small(X[i : i + 2], Y[i : i + 2])
            same = all(np.array_equal(before[k], v) for k, v in parts.state_dict().items())
            assert same == (i < 6)
    for key, value in whole.state_dict().items():
        close(parts.state_dict()[key], value, 1e-5)


def test_averages_of_the_weights() -> None:
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.5, ema=0.75)
    expected = model.state_dict()
    step = training(model, optimizer)
    for _ in range(5):
        step(X, Y)
        expected = {k: 0.75 * expected[k] + 0.25 * v for k, v in model.state_dict().items()}
    own = model.state_dict()
    with optimizer.averaged():
        for key, value in expected.items():
            close(model.state_dict()[key], value)
    assert all(np.array_equal(own[k], v) for k, v in model.state_dict().items())
    other_model = mlp()
    other = optim.SGD(other_model.parameters(), lr=0.5, ema=0.75)
    other.load_state_dict(optimizer.state_dict())
    other_model.load_state_dict(own)
    step(X, Y)
    training(other_model, other)(X, Y)
    with optimizer.averaged(), other.averaged():
        for key, value in model.state_dict().items():
            np.testing.assert_array_equal(other_model.state_dict()[key], value)


def test_penalties() -> None:
    model = nn.Linear(3, 2)
    w, b = (np.array(p.numpy(), np.float64) for p in model.parameters())
    found = traced(lambda x: (optim.l1_penalty(model.parameters()), optim.l2_penalty(model.parameters())), (1, 1))
    one, two = found(np.zeros((1, 1), np.float32))
    close(one, np.abs(w).sum() + np.abs(b).sum())
    close(two, (w * w).sum() + (b * b).sum())


def gradients_of(model: nn.Module) -> dict[str, np.ndarray]:
    other = copy.deepcopy(model)
    before = other.state_dict()
    training(other, optim.SGD(other.parameters(), lr=1.0))(X, Y)
    return {k: (before[k] - v).astype(np.float64) for k, v in other.state_dict().items()}


def test_lamb_follows_its_paper() -> None:
    model = mlp()
    step = training(model, optim.LAMB(model.parameters(), lr=0.1, weight_decay=0.05))
    moments = {k: (0.0, 0.0) for k in model.state_dict()}
    for t in range(1, 4):
        grads = gradients_of(model)
        expected = {}
        for key, p in model.state_dict().items():
            m = 0.9 * moments[key][0] + 0.1 * grads[key]
            v = 0.999 * moments[key][1] + 0.001 * grads[key] ** 2
            moments[key] = m, v
            r = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + 0.05 * p
            expected[key] = p - 0.1 * np.linalg.norm(p) / np.linalg.norm(r) * r
        step(X, Y)
        for key, value in expected.items():
            close(model.state_dict()[key], value, 1e-3)


def test_lamb_steps_from_weights_of_nothing() -> None:
    layer = nn.Linear(5, 3)
    for p in layer.parameters():
        p.data = np.zeros(p.shape, np.float32)
    training(layer, optim.LAMB(layer.parameters(), lr=0.1))(X, Y)
    assert all(np.isfinite(p.numpy()).all() and p.numpy().any() for p in layer.parameters())


def test_lion_follows_its_paper() -> None:
    model = mlp()
    step = training(model, optim.Lion(model.parameters(), lr=0.01, weight_decay=0.1))
    mean = {k: np.zeros_like(v, np.float64) for k, v in model.state_dict().items()}
    for _ in range(3):
        grads = gradients_of(model)
        expected = {}
        for key, p in model.state_dict().items():
            expected[key] = p - 0.01 * (np.sign(0.9 * mean[key] + 0.1 * grads[key]) + 0.1 * p)
            mean[key] = 0.99 * mean[key] + 0.01 * grads[key]
        step(X, Y)
        for key, value in expected.items():
            close(model.state_dict()[key], value, 1e-5)


@pytest.mark.slow
def test_everything_is_one_call_that_never_compiles_again() -> None:
    """A schedule, accumulation, clipping and averages over a thousand steps: one program, one entry a call."""
    model = mlp()
    optimizer = optim.AdamW(model.parameters(), lr=1e-2, clip_norm=1.0, accumulate=2, ema=0.99)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=500)

    def train(x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(model(x), y) + 1e-4 * optim.l2_penalty(model.parameters())
        optimizer.minimize(loss)
        scheduler.step()
        return loss

    step = tn.function(train, specs=[tn.spec("B", 5), tn.spec("B", dtype="i64")])
    first = float(step(X, Y))
    compiled, executable = step.executable.compile_count, step.executable
    before = dict(executable.counters)
    rates = set()
    for _ in range(1000):
        last = float(step(X, Y))
        rates.add(optimizer.lr)
    assert (step.executable, executable.compile_count) == (executable, compiled)
    after = executable.counters
    assert after["calls"] - before["calls"] == 1000 and after["bindings"] == before["bindings"]
    assert after["steps"] - before["steps"] == 1000 * len(executable.program.main)
    assert len(rates) > 450 and scheduler.last_epoch == 500 and last < first


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip_norm": 0}, "clip_norm must be above 0, not 0"),
        ({"accumulate": 1.5}, "accumulate must be a whole number of at least 1, not 1.5"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1, not 1.0"),
    ],
)
def test_messages(options: dict, words: str) -> None:
    with pytest.raises(TenonError, match=words):
        optim.Adam(mlp().parameters(), **options)
    with pytest.raises(TenonError, match="keeps no averages"), optim.Adam(mlp().parameters()).averaged():
        pass


def test_updates_run_as_soon_as_they_can() -> None:
    """A layer's weights change before the gradient reaches the layer below, so its activations need not be kept."""
    layers = [nn.Linear(8, 8) for _ in range(6)]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    specs = [tn.spec("B", 5, 8), tn.spec("B", 5, 8)]
    step = tn.train_step(model, F.mse_loss, optimizer, specs)
    step(*np.random.default_rng(0).standard_normal((2, 64, 5, 8)).astype(np.float32))
    calls = step.executable.program.main
    written = [i for i, call in enumerate(calls) for name in call.writes if re.fullmatch(r"state\.\d+\.weight", name)]
    read = [i for i, call in enumerate(calls) for name in call.touched if re.fullmatch(r"state\.\d+\.weight", name)]
    assert len(written) == 6 and sum(i > written[0] for i in read) > 6
    # One activation a layer, and a few more that one layer needs at a time.
    assert step.executable.memory(B=64).arena < 64 * 5 * 8 * 4 * (2 * 6 + 5)

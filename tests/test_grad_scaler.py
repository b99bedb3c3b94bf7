"""Loss scaling: skipped steps, a scale that moves as PyTorch's, and files from which it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn, optim

SPECS = [tn.spec("B", 3), tn.spec("B", 2)]


def data(n: int = 4, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, 3)) * scale).astype(np.float32), rng.normal(size=(n, 2)).astype(np.float32)


def training(scaler: optim.GradScaler | None, **options: Any) -> tuple[Any, nn.Module, optim.Optimizer]:
    tn.seed(0)
    model = nn.Linear(3, 2)
    optimizer = optim.Adam(model.parameters(), lr=0.01, **options)
    return tn.train_step(model, F.mse_loss, optimizer, SPECS, scaler=scaler, target="reference"), model, optimizer


def state(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, np.ndarray]:
    return {**model.state_dict(), **optimizer.state_dict()}


def test_a_scale_that_fits_changes_nothing() -> None:
    plain, scaled = training(None), training(optim.GradScaler())
    for _ in range(3):
        assert plain[0](*data()) == scaled[0](*data())
    for name, array in state(*plain[1:]).items():
        np.testing.assert_array_equal(array, state(*scaled[1:])[name])  # by a power of two: not even rounding


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip_norm": 1.0, "ema": 0.9}])
def test_a_step_that_overflows_is_skipped_wholly(options: dict[str, Any]) -> None:
    scaler = optim.GradScaler(init_scale=4.0, growth_interval=100)
    step, model, optimizer = training(scaler, **options)
    step(*data())
    before = state(model, optimizer)
    step(*data(scale=1e30))  # the squares of this loss are infinite
    assert scaler.get_scale() == 2.0
    for name, array in state(model, optimizer).items():
        np.testing.assert_array_equal(array, before[name])
    step(*data())
    assert scaler.get_scale() == 2.0
    changed = {name for name, array in state(model, optimizer).items() if not np.array_equal(array, before[name])}
    assert "weight" in changed or "accumulate" in options


def test_skipped_calls_do_not_count_for_accumulation_and_schedules() -> None:
    scaler = optim.GradScaler(init_scale=4.0)
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=1.0, accumulate=2)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    @tn.function(specs=SPECS, target="reference")
    def step(x: tn.Tensor, y: tn.Tensor) -> Any:
        loss = F.mse_loss(model(x), y)
        optimizer.minimize(loss, scaler=scaler)
        scheduler.step()
        return loss

    rates = []
    for scale in (1.0, 1e30, 1.0, 1.0, 1e30, 1e30, 1.0):
        step(*data(scale=scale))
        rates.append(optimizer.lr)
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_the_scale_moves_as_in_pytorch() -> None:
    torch: Any = pytest.importorskip("torch")
    options = {"init_scale": 8.0, "growth_factor": 4.0, "backoff_factor": 0.25, "growth_interval": 2}
    ours, theirs = optim.GradScaler(**options), torch.amp.GradScaler("cpu", **options)
    assert optim.GradScaler().state_dict() == torch.amp.GradScaler("cpu").state_dict() | {"_growth_tracker": 0}
    step = training(ours)[0]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    for good in (1, 1, 1, 0, 1, 0, 0, 1, 1, 1, 1):
        step(*data(scale=1.0 if good else 1e30))
        parameter.grad = None
        theirs.scale(parameter.sum() * (1.0 if good else np.inf)).backward()
        theirs.step(optimizer)
        theirs.update()
        assert ours.state_dict() == theirs.state_dict()


def test_a_scale_that_would_be_infinite_stays() -> None:
    scaler = optim.GradScaler(init_scale=2.0**127, growth_interval=1)
    model = nn.Linear(1, 1)

    @tn.function(specs=[tn.spec(1, 1)], target="reference")
    def step(x: tn.Tensor) -> Any:
        loss = model(x).sum() * 2.0**-120
        optim.SGD(model.parameters(), lr=0.1).minimize(loss, scaler=scaler)
        return loss

    step(np.ones((1, 1), np.float32))
    assert scaler.get_scale() == 2.0**127


def test_small_gradients_survive_in_fp16() -> None:
    """A gradient of 2**-26 is 0 in fp16, whose least number is 2**-24."""

    def weight(scaler: optim.GradScaler | None) -> np.ndarray:
        model = nn.Linear(2, 2, bias=False)
        model.weight.data = np.zeros((2, 2), np.float32)
        optimizer = optim.SGD(model.parameters(), lr=1.0)
        step = tn.train_step(
            model, lambda p, y: (p * y).sum() * 2.0**-26, optimizer, [tn.spec(1, 2), tn.spec(1, 2)],
            precision="fp16", scaler=scaler, target="reference",
        )  # fmt: skip
        step(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32))
        return model.weight.numpy()

    assert (weight(None) == 0).all() and (weight(optim.GradScaler()) == -(2.0**-26)).all()


def test_one_that_is_not_enabled_does_nothing() -> None:
    scaler = optim.GradScaler(enabled=False)
    step, model, optimizer = training(scaler)
    plain = training(None)
    assert step(*data()) == plain[0](*data()) and not scaler.is_enabled() and scaler.get_scale() == 1.0
    assert scaler.state_dict() == {} and "scaler.scale" not in step.executable.cells


def test_its_state_is_saved_and_loaded() -> None:
    scaler = optim.GradScaler(init_scale=4.0, growth_interval=3)
    step = training(scaler)[0]
    step(*data())
    other = optim.GradScaler()
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict() and other.state_dict()["_growth_tracker"] == 1
    with pytest.raises(tn.StateError, match="a GradScaler's state has scale, growth_factor"):
        other.load_state_dict({"scale": 1.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_scale": 0.0}, "init_scale must be a number above 0, not 0.0"),
        ({"growth_factor": 1.0}, "growth_factor must be above 1, not 1.0"),
        ({"backoff_factor": 1.5}, "backoff_factor must be below 1, not 1.5"),
        ({"growth_interval": 0}, "growth_interval must be a whole number of at least 1, not 0"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(tn.TenonError, match=message):
        optim.GradScaler(**options)


def test_what_pytorch_does_in_steps_says_what_to_call() -> None:
    scaler = optim.GradScaler()
    for call in (lambda: scaler.step(None), lambda: scaler.unscale_(None), scaler.update):
        with pytest.raises(tn.UnsupportedError, match=r"optimizer\.minimize\(loss, scaler=scaler\)"):
            call()


# --- Trainer -----------------------------------------------------------------------------------------------------


def trainer(**options: Any) -> tn.Trainer:
    tn.seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    return tn.Trainer(model, optim.Adam(model.parameters(), lr=0.01), nn.MSELoss(), **options)


@pytest.mark.slow
def test_trainer_scales_in_fp16_and_goes_on_from_a_file(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    x, y = data(32)
    whole = trainer(precision="fp16", scaler=optim.GradScaler(growth_interval=3))
    losses = whole.fit(x, y, epochs=4, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and whole.scaler is not None and whole.scaler.get_scale() > 65536
    first = trainer(precision="fp16", scaler=optim.GradScaler(growth_interval=3))
    first.fit(x, y, epochs=2, batch_size=8, verbose=0)
    first.save(tmp_path / "half.safetensors")
    second = trainer(precision="fp16")
    second.fit(x, y, epochs=4, batch_size=8, verbose=0, resume=tmp_path / "half.safetensors")
    assert second.scaler is not None and second.scaler.state_dict() == whole.scaler.state_dict()
    for name, array in whole.model.state_dict().items():
        np.testing.assert_array_equal(second.model.state_dict()[name], array)
    with pytest.raises(tn.StateError, match="was written by training with loss scaling"):
        trainer().load(tmp_path / "half.safetensors")


@pytest.mark.slow
def test_trainer_in_bf16_needs_no_scale_and_predicts_as_in_float32() -> None:
    x, y = data(32)
    mixed, exact = trainer(precision="bf16"), trainer()
    assert mixed.scaler is None
    mixed_losses, exact_losses = (
        t.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0).history["loss"] for t in (mixed, exact)
    )
    np.testing.assert_allclose(mixed_losses, exact_losses, rtol=0.02)
    predicted = mixed.predict(x)
    assert predicted.dtype == np.float32 and np.abs(predicted - exact.predict(x)).max() < 0.05
    assert {e.options.precision.name for e in mixed.executables} == {"bf16"}

"""Models with PyTorch's weights give PyTorch's outputs and train as in PyTorch, step for step.

The golden file holds what PyTorch said; where it is installed, it is asked again.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import oracle_cases
import pytest
from oracle_cases import CASES, GOLDEN, MODELS

import tenon as tn
from tenon import F, nn, optim


def model(name: str) -> Any:
    """Tenon's model with the fixed weights."""
    found = MODELS[name](nn)
    found.load_state_dict(oracle_cases.weights(name))
    return found


def specs(name: str) -> list[tn.TensorSpec]:
    return [tn.spec("B", *a.shape[2:], dtype=a.dtype) for a in oracle_cases.batches(name)]


@cache
def outputs(name: str) -> np.ndarray:
    """What the untrained model says to the first batch."""
    x, _ = oracle_cases.batches(name)
    return tn.compile(model(name).eval(), specs(name)[0])(x[0])


@cache
def losses(name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The loss before each step of a case, and the weights after the last."""
    case = CASES[name]
    trained = model(case.model)
    optimizer = getattr(optim, case.optimizer)(trained.parameters(), **case.options)
    loss_of = F.mse_loss if case.model == "line" else F.cross_entropy
    step = tn.train_step(trained, loss_of, optimizer, specs(case.model))
    found = [float(step(x, y)) for x, y in zip(*oracle_cases.batches(case.model), strict=True)]
    assert step.executable.compile_count == 1
    return np.array(found), trained.state_dict()


@cache
def golden(what: str) -> np.ndarray:
    with np.load(GOLDEN) as file:
        return file[what]


slow_cnn = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("cnn") else name for name in MODELS]
slow_cases = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("cnn") else name for name in CASES]


@pytest.mark.parametrize("name", slow_cnn)
def test_outputs_are_those_in_the_golden_file(name):
    np.testing.assert_allclose(outputs(name), golden(f"outputs of {name}"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", slow_cases)
def test_losses_are_those_in_the_golden_file(name):
    np.testing.assert_allclose(losses(name)[0], golden(f"losses of {name}"), rtol=1e-4)


@pytest.mark.parametrize("name", slow_cnn)
def test_outputs_are_pytorchs(name):
    pytest.importorskip("torch")
    import pytorch_oracle

    np.testing.assert_allclose(outputs(name), pytorch_oracle.outputs(name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", slow_cases)
def test_losses_and_trained_weights_are_pytorchs(name):
    pytest.importorskip("torch")
    import pytorch_oracle

    expected, trained = pytorch_oracle.train(CASES[name])
    found, weights = losses(name)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert weights.keys() == trained.keys()
    for key, start in oracle_cases.weights(CASES[name].model).items():
        # Of the way from the start. Where rounding decides a maximum, gradients take another way; f64 is as far off.
        error, way = np.linalg.norm(weights[key] - trained[key]), np.linalg.norm(trained[key] - start)
        assert error <= 3e-3 * way, key


@pytest.mark.slow
def test_one_program_serves_every_batch():
    """Outputs against the reference; the loss of a training step against the outputs just before it."""
    trained = model("cnn")
    predict = tn.compile(trained, specs("cnn")[0])
    step = tn.train_step(trained, F.cross_entropy, optim.Adam(trained.parameters(), lr=1e-3), specs("cnn"))
    x, y = (a.reshape(-1, *a.shape[2:])[:1000] for a in oracle_cases.batches("cnn"))
    expected = tn.compile(trained, specs("cnn")[0], target="reference")(x)
    for count in (1, 7, 64, 1000):
        np.testing.assert_allclose(predict(x[:count]), expected[:count], rtol=0, atol=1e-5)
    for count in (1000, 1, 7, 64, 1000):
        logits = predict(x[:count]).astype(np.float64)
        picked = np.take_along_axis(logits, y[:count, None], 1)[:, 0]
        loss = (np.log(np.exp(logits).sum(1)) - picked).mean()
        np.testing.assert_allclose(step(x[:count], y[:count]), loss, rtol=1e-5)
    assert predict.compile_count == step.executable.compile_count == 1
    assert step.executable.counters["bindings"] == 4

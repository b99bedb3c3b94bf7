"""The cases of ``oracle_cases`` as PyTorch trains them."""

from __future__ import annotations

import numpy as np
import oracle_cases
import torch
from oracle_cases import MODELS, SHAPES, Case


def model(name: str) -> torch.nn.Module:
    """The model with its fixed weights."""
    found = MODELS[name](torch.nn)
    arrays = oracle_cases.weights(name)
    assert {k: tuple(v.shape) for k, v in found.state_dict().items()} == SHAPES[name]
    found.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})
    return found


def outputs(name: str) -> np.ndarray:
    """What the untrained model says to the first batch."""
    x, _ = oracle_cases.batches(name)
    with torch.no_grad():
        return model(name).eval()(torch.from_numpy(x[0])).numpy()


def train(case: Case) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The loss before each step of training, and the weights after the last."""
    trained = model(case.model)
    optimizer = getattr(torch.optim, case.optimizer)(trained.parameters(), **case.options)
    loss_of = torch.nn.functional.mse_loss if case.model == "line" else torch.nn.functional.cross_entropy
    losses = []
    for x, y in zip(*map(torch.from_numpy, oracle_cases.batches(case.model)), strict=True):
        optimizer.zero_grad()
        loss = loss_of(trained(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), {k: v.numpy() for k, v in trained.state_dict().items()}

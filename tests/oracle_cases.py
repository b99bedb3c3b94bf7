"""What Tenon and PyTorch are both asked to train: models, weights, data and optimizers, named once for both.

Weights and data come from ``numpy.random.RandomState``, whose stream NumPy has frozen, so that golden files hold
results only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "pytorch.npz"

STEPS = 20
BATCH = 64


def cnn(nn: Any) -> Any:
    """The seed's CNN for 28x28 images; ``nn`` is Tenon's or PyTorch's."""

    class CNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 32, kernel_size=3, stride=1, padding=1)
            self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=1, padding=1)
            self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
            self.fc1 = nn.Linear(64 * 7 * 7, 128)
            self.fc2 = nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            relu = nn.functional.relu
            x = self.pool(relu(self.conv1(x)))
            x = self.pool(relu(self.conv2(x)))
            x = x.view(-1, 64 * 7 * 7)
            return self.fc2(relu(self.fc1(x)))

    return CNN()


def small_cnn(nn: Any) -> Any:
    """For 10x6 images of 2 channels and 3 classes: what a CNN has, at a size that takes no time."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 5 * 3, 3)
    )


def mlp(nn: Any) -> Any:
    """Two dense layers for rows of 12 features and 5 classes."""
    return nn.Sequential(nn.Linear(12, 33), nn.ReLU(), nn.Linear(33, 5))


def line(nn: Any) -> Any:
    """Linear regression on rows of 6 features."""
    return nn.Linear(6, 1)


MODELS = {"cnn": cnn, "mlp": mlp, "line": line}

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "cnn": {
        "conv1.weight": (32, 1, 3, 3), "conv1.bias": (32,), "conv2.weight": (64, 32, 3, 3), "conv2.bias": (64,),
        "fc1.weight": (128, 3136), "fc1.bias": (128,), "fc2.weight": (10, 128), "fc2.bias": (10,),
    },
    "mlp": {"0.weight": (33, 12), "0.bias": (33,), "2.weight": (5, 33), "2.bias": (5,)},
    "line": {"weight": (1, 6), "bias": (1,)},
}  # fmt: skip
"""Each model's ``state_dict``."""


@dataclass(frozen=True)
class Case:
    """One training run: a model, an optimizer of this name, and its options."""

    model: str
    optimizer: str
    options: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "cnn SGD": Case("cnn", "SGD", {"lr": 0.05}),
    "cnn Adam": Case("cnn", "Adam", {"lr": 5e-4}),
    "mlp SGD": Case("mlp", "SGD", {"lr": 0.2}),
    "mlp SGD momentum": Case("mlp", "SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.1}),
    "mlp SGD nesterov": Case("mlp", "SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "mlp SGD decay": Case("mlp", "SGD", {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.05}),
    "mlp Adam": Case("mlp", "Adam", {"lr": 0.01}),
    "mlp Adam decay": Case("mlp", "Adam", {"lr": 0.01, "weight_decay": 0.05, "betas": (0.8, 0.95)}),
    "mlp Adam amsgrad": Case("mlp", "Adam", {"lr": 0.02, "amsgrad": True, "betas": (0.9, 0.6)}),
    "line SGD": Case("line", "SGD", {"lr": 0.05}),
}


def weights(model: str) -> dict[str, np.ndarray]:
    """A ``state_dict`` with PyTorch's default spread: uniform within 1 / sqrt(fan-in)."""
    draw = np.random.RandomState(20)
    found: dict[str, np.ndarray] = {}
    bound = 1.0
    for name, shape in SHAPES[model].items():
        if name.endswith("weight"):
            bound = 1 / np.sqrt(np.prod(shape[1:]))
        found[name] = draw.uniform(-bound, bound, shape).astype(np.float32)
    return found


def batches(model: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of ``STEPS`` batches: classes around centres of their own, or a line with noise."""
    draw = np.random.RandomState(21)
    shape = {"cnn": (1, 28, 28), "mlp": (12,), "line": (6,)}[model]
    x = draw.standard_normal((STEPS, BATCH, *shape))
    if model == "line":
        y = x @ np.arange(-2.0, 4.0)[:, None] + 1 + 0.1 * draw.standard_normal((STEPS, BATCH, 1))
        return x.astype(np.float32), y.astype(np.float32)
    classes = SHAPES[model]["fc2.bias" if model == "cnn" else "2.bias"][0]
    labels = draw.randint(classes, size=(STEPS, BATCH))
    return (x + draw.standard_normal((classes, *shape))[labels]).astype(np.float32), labels.astype(np.int64)

"""Overfitting, and what helps: no regulariser, L1, L2, dropout and early stopping, side by side in one plot.

A wide network learns a hundred digits by heart. What it makes of digits that it has not seen is the question.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import tenon as tn
from tenon import F, nn, optim


def digits(count: int, seed: int) -> list[np.ndarray]:
    """``count`` digits to learn from, with noise that is worth nothing, and all others to test on."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    noisy = images / 16 + np.random.default_rng(seed).normal(0, 0.25, images.shape)
    x, xt, y, yt = tn.data.train_test_split(noisy.astype(np.float32), labels, test_size=len(labels) - count, seed=seed)
    return [x, y, xt, yt]


def train(
    arrays: list[np.ndarray], epochs: int, dropout: float = 0.0, callbacks: list[Any] | None = None,
    penalty: Callable[[Any], Any] | None = None, strength: float = 0.0,
) -> tuple[tn.History, float]:  # fmt: skip
    """The history of a run, and the accuracy at its end."""
    tn.seed(0)
    model = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, 256), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(256, 10),
    )  # fmt: skip
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]

    def loss(prediction: tn.Tensor, target: tn.Tensor) -> tn.Tensor:
        plain = F.cross_entropy(prediction, target)
        return plain if penalty is None or not model.training else plain + strength * penalty(weights)

    x, y, xt, yt = arrays
    trainer = tn.Trainer(model, optim.Adam(model.parameters(), lr=2e-3), loss, ["accuracy"])
    history = trainer.fit(x, y, epochs, batch_size=25, validation_data=(xt, yt), callbacks=callbacks or [])
    return history, trainer.evaluate(xt, yt)["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--out", default="overfitting.png")
    args = parser.parse_args()

    arrays = digits(args.samples, seed=0)
    stop = tn.callbacks.EarlyStopping("val_loss", patience=4, restore_best_weights=True)
    runs: dict[str, dict[str, Any]] = {
        "no regulariser": {},
        "L1": {"penalty": optim.l1_penalty, "strength": 3e-4},
        "L2": {"penalty": optim.l2_penalty, "strength": 2e-3},
        "dropout": {"dropout": 0.5},
        "early stopping": {"callbacks": [stop]},
    }
    found = {name: train(arrays, args.epochs, **options) for name, options in runs.items()}
    for name, (history, accuracy) in found.items():
        last = {key: values[-1] for key, values in history.history.items()}
        print(f"{name:15} {len(history.epoch):3} epochs  loss {last['loss']:.3f}  test loss {last['val_loss']:.3f}"
              f"  test accuracy {accuracy:.4f}")  # fmt: skip
    draw({name: history for name, (history, _) in found.items()}, args.out)


def draw(runs: dict[str, tn.History], path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(runs), 3.2), layout="constrained")
    panels = figure.subplots(1, len(runs), sharex=True, sharey=True)
    for axes, (name, history) in zip(panels, runs.items(), strict=True):
        axes.plot(history.history["loss"], label="training")
        axes.plot(history.history["val_loss"], label="test")
        axes.set(title=name, xlabel="epoch", yscale="log")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("loss (training: with the penalty)")
    figure.axes[0].legend()
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

"""Transfer learning: a network that knows the digits 0 to 4 learns 5 to 9 from a few examples.

Its layers are frozen and the last one replaced; a network that starts from nothing learns the same for comparison.
"""

from __future__ import annotations

import argparse

import numpy as np

import tenon as tn
from tenon import nn, optim


def network() -> nn.Sequential:
    """Two convolutions over 8x8 images, and a head of five classes."""
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    )  # fmt: skip
    return nn.Sequential({"body": body, "head": nn.Linear(32 * 4 * 4, 5)})


def fit(model: nn.Module, x: np.ndarray, y: np.ndarray, epochs: int) -> tn.Trainer:
    """Train what is not frozen."""
    trained = [p for p in model.parameters() if p.requires_grad]
    trainer = tn.Trainer(model, optim.Adam(trained, lr=2e-3), nn.CrossEntropyLoss(), ["accuracy"])
    trainer.fit(x, y, epochs, batch_size=16)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--examples", type=int, default=2, help="of each new digit")
    args = parser.parse_args()

    from sklearn.datasets import load_digits

    tn.seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    known, new = labels < 5, labels >= 5
    model = network()
    first = fit(model, images[known], labels[known], args.epochs).evaluate(images[known], labels[known])
    print(f"digits 0 to 4: accuracy {first['accuracy']:.4f} on what it was trained on")

    x, y = images[new], labels[new] - 5
    few = np.concatenate([np.flatnonzero(y == label)[: args.examples] for label in range(5)])
    rest = np.setdiff1d(np.arange(len(y)), few)
    model.body.requires_grad_(False)
    model.body.eval()
    model.head = nn.Linear(32 * 4 * 4, 5)
    print(tn.summary(model, tn.spec("B", 1, 8, 8)))
    found = {}
    for name, candidate in (("frozen layers, new head", model), ("from nothing", network())):
        trainer = fit(candidate, x[few], y[few], 4 * args.epochs)
        found[name] = trainer.evaluate(x[rest], y[rest])["accuracy"]
        print(f"digits 5 to 9 from {len(few)} examples, {name}: accuracy {found[name]:.4f}")


if __name__ == "__main__":
    main()

"""Linear regression by gradient descent: y = x on five points, then the progression of diabetes in 442 patients.

The second part compares what gradient descent finds with the least squares solution.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import tenon as tn
from tenon import F, nn, optim


def fit_line(steps: int, lr: float) -> float:
    """Fit y = theta * x to the points (1, 1) ... (5, 5), and predict for x = 6. theta is a plain array here: the
    gradient is a function that is compiled like any other."""
    x = np.arange(1, 6, dtype=np.float32)[:, None]
    y = np.arange(1, 6, dtype=np.float32)

    def loss(theta: tn.Tensor, x: tn.Tensor, y: tn.Tensor) -> tn.Tensor:
        return F.mse_loss((x @ theta).squeeze(1), y)

    def descend(theta: tn.Tensor, x: tn.Tensor, y: tn.Tensor) -> tn.Tensor:
        return theta - lr * tn.grad(loss)(theta, x, y)

    step = tn.compile(descend, tn.spec(1, 1), tn.spec("N", 1), tn.spec("N"))
    theta = np.random.default_rng(0).standard_normal((1, 1), np.float32)
    for _ in range(steps):
        theta = step(theta, x, y)
    return float(6 * theta[0, 0])


def fit_diabetes(epochs: int, lr: float, batch_size: int) -> tuple[tn.History, np.ndarray, np.ndarray, float, float]:
    """History, targets and predictions on the test patients, and R² there: of the model, and of least squares."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:353], order[353:]
    mean, deviation = x[train].mean(0), x[train].std(0)
    x = (x - mean) / deviation
    offset, scale = y[train].mean(), y[train].std()
    target = ((y - offset) / scale)[:, None]

    model = nn.Linear(x.shape[1], 1)
    trainer = tn.Trainer(model, optimizer=optim.SGD(model.parameters(), lr=lr), loss=nn.MSELoss(), metrics=["mae"])
    history = trainer.fit(
        x[train], target[train], epochs, batch_size, validation_data=(x[test], target[test]), verbose=0
    )
    predicted = trainer.predict(x[test])[:, 0] * scale + offset

    columns = np.column_stack([x, np.ones(len(x))])
    solution = np.linalg.lstsq(columns[train], y[train], rcond=None)[0]
    return history, y[test], predicted, r_squared(y[test], predicted), r_squared(y[test], columns[test] @ solution)


def r_squared(target: np.ndarray, predicted: np.ndarray) -> float:
    """The share of the targets' variance that the predictions explain."""
    return 1 - float(np.sum((target - predicted) ** 2) / np.sum((target - target.mean()) ** 2))


def plot(history: tn.History, target: np.ndarray, predicted: np.ndarray, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(history.history["loss"], label="training loss")
    left.plot(history.history["val_loss"], label="test loss")
    left.set_xlabel("epoch")
    left.legend()
    right.scatter(target, predicted, s=14)
    ends = [target.min(), target.max()]
    right.plot(ends, ends, "k--", linewidth=1)
    right.set_xlabel("disease progression after a year")
    right.set_ylabel("predicted")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100, help="passes over the patients (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="patients a step (%(default)s)")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("linear_regression.png"), help="the plot (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    tn.seed(0)
    print(f"y = x on five points: the prediction for 6 is {fit_line(1000, options.lr):.4f}")
    history, target, predicted, ours, exact = fit_diabetes(options.epochs, options.lr, options.batch_size)
    plot(history, target, predicted, options.out)
    print(
        f"diabetes: R² on {len(target)} test patients {ours:.3f}, by least squares {exact:.3f}; plot in {options.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A vanilla RNN learns to predict a noisy sine, and then goes on by itself from its own predictions."""

from __future__ import annotations

import argparse

import numpy as np

import tenon as tn
from tenon import F, nn, optim


class Forecaster(nn.Module):
    """The next value after each of a series (N, T, 1), and the state from which to go on."""

    def __init__(self, hidden: int):
        super().__init__()
        self.rnn = nn.RNN(1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: tn.Tensor, state: tn.Tensor | None = None) -> tuple[tn.Tensor, tn.Tensor]:
        states, last = self.rnn(x, state)
        return self.out(states), last


def series(count: int, noise: float, seed: int) -> np.ndarray:
    """``count`` points of a sine of period 25 with noise (float32)."""
    clean = np.sin(np.arange(count) * 2 * np.pi / 25)
    return (clean + np.random.default_rng(seed).normal(0, noise, count)).astype(np.float32)


def windows(values: np.ndarray, length: int) -> np.ndarray:
    """Every window of so many values and the one behind it, as (N, length + 1, 1)."""
    return np.lib.stride_tricks.sliding_window_view(values, length + 1)[..., None].copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=32, help="units (%(default)s)")
    parser.add_argument("--noise", type=float, default=0.1, help="its standard deviation (%(default)s)")
    parser.add_argument("--length", type=int, default=50, help="steps of a training window (%(default)s)")
    parser.add_argument("--out", default="sine_rnn.png")
    args = parser.parse_args()

    tn.seed(0)
    values = series(600, args.noise, seed=0)
    train, test = windows(values[:500], args.length), values[500:]
    model = Forecaster(args.hidden)
    adam = optim.Adam(model.parameters(), lr=3e-3)

    @tn.function
    def step(x: tn.spec("B", "T", 1), y: tn.spec("B", "T", 1)):  # type: ignore[valid-type]
        loss = F.mse_loss(model(x)[0], y)
        adam.minimize(loss)
        return loss

    random = np.random.default_rng(0)
    for epoch in range(args.epochs):
        order = random.permutation(len(train))
        losses = [step(train[i, :-1], train[i, 1:]) for i in np.array_split(order, len(train) // 32)]
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")

    read = tn.compile(model.eval(), tn.spec(1, "T", 1))
    onward = tn.compile(model.eval(), tn.spec(1, 1, 1), tn.spec(1, 1, args.hidden))
    predicted, _ = read(test[None, :-1, None])
    error = np.mean((predicted[0, 10:, 0] - test[11:]) ** 2)
    repeated = np.mean((test[10:-1] - test[11:]) ** 2)
    print(f"error of the next value {error:.4f}; of the value before in its place {repeated:.4f}")
    print(f"better by a factor of {repeated / error:.2f}")

    guess, state = read(test[None, :50, None])
    free = [guess[0, -1, 0]]
    while len(free) < 50:
        value, state = onward(np.float32(free[-1]).reshape(1, 1, 1), state)
        free.append(value[0, 0, 0])
    draw(test, predicted[0, :, 0], np.array(free), args.out)


def draw(test: np.ndarray, predicted: np.ndarray, free: np.ndarray, path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(test, ".", label="the series")
    axes.plot(np.arange(1, len(predicted) + 1), predicted, label="the next value, predicted")
    axes.plot(np.arange(50, 50 + len(free)), free, "--", label="from its own predictions")
    axes.set(xlabel="step")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

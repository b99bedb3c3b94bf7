"""An LSTM reads handwritten digits row by row: each image is a sequence of its rows."""

from __future__ import annotations

import argparse
import time

import numpy as np

import tenon as tn
from tenon import nn, optim


class LSTM(nn.Module):
    """The last hidden state of an LSTM over (N, T, input_size), made into scores of the classes."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, num_classes: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=True)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        h0 = tn.zeros(self.num_layers, x.size(0), self.hidden_size)
        c0 = tn.zeros(self.num_layers, x.size(0), self.hidden_size)
        out, (hn, cn) = self.lstm(x, (h0, c0))
        return self.fc(out[:, -1, :])


def digits(seed: int) -> list[np.ndarray]:
    """scikit-learn's digits as 8 rows of 8 numbers, a fifth of them for the test."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rows = (images / 16).astype(np.float32).reshape(-1, 8, 8)
    x, xt, y, yt = tn.data.train_test_split(rows, labels, test_size=0.2, seed=seed)
    return [x, y, xt, yt]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=128, help="units of a layer (%(default)s)")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3, help="Adam's learning rate (%(default)s)")
    args = parser.parse_args()

    tn.seed(0)
    x, y, xt, yt = digits(seed=0)
    model = LSTM(8, args.hidden, args.layers, 10)
    trainer = tn.Trainer(model, optim.Adam(model.parameters(), lr=args.lr), nn.CrossEntropyLoss(), ["accuracy"])
    start = time.perf_counter()
    trainer.fit(x, y, args.epochs, batch_size=args.batch_size, validation_data=(xt, yt))
    print(f"trained {args.epochs} epochs in {time.perf_counter() - start:.1f} s, compilation included")
    print(f"test accuracy {trainer.evaluate(xt, yt)['accuracy']:.4f}")


if __name__ == "__main__":
    main()

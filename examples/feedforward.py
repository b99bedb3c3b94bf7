"""A feed-forward network in Keras's verbs: 128 hidden units, softmax, categorical cross-entropy on probabilities.

It is trained on scikit-learn's digits with mini-batches, and beside that by batch gradient descent: one step for each
pass over the whole set.
"""

from __future__ import annotations

import argparse

import numpy as np

import tenon as tn
from tenon import nn, optim


def digits(seed: int) -> list[np.ndarray]:
    """Images as rows of 64 numbers from 0 to 1, and one-hot targets: for training, then for testing."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return tn.data.train_test_split((images / 16).astype(np.float32), np.eye(10, dtype=np.float32)[labels], seed=seed)


def network() -> nn.Sequential:
    """Keras's ``Dense`` layers learn their input sizes from the first batch, as LazyLinear does."""
    return nn.Sequential(nn.LazyLinear(128), nn.ReLU(), nn.Dropout(0.2), nn.LazyLinear(10), nn.Softmax(-1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="write the curves to this picture")
    args = parser.parse_args()

    tn.seed(args.seed)
    x, xt, y, yt = digits(args.seed)
    model = network()
    print(tn.summary(model, tn.spec("B", 64)))
    trainer = tn.Trainer(model, optim.Adam(model.parameters()), nn.CategoricalCrossEntropy(), metrics=["accuracy"])
    stop = tn.callbacks.EarlyStopping("val_accuracy", patience=8, restore_best_weights=True)
    history = trainer.fit(x, y, args.epochs, args.batch_size, validation_split=0.1, callbacks=[stop], verbose=2)
    print(f"mini-batches: test accuracy {trainer.evaluate(xt, yt)['accuracy']:.4f}")

    whole = network()
    descent = tn.Trainer(whole, optim.SGD(whole.parameters(), lr=1.0), nn.CategoricalCrossEntropy(), ["accuracy"])
    descent.fit(x, y, epochs=10 * args.epochs, batch_size=len(x), verbose=0)
    print(f"the whole set in each step: test accuracy {descent.evaluate(xt, yt)['accuracy']:.4f}")
    if args.out:
        history.plot(args.out)


if __name__ == "__main__":
    main()

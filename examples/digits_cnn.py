"""Train a convolutional network on handwritten digits.

By default on the 1797 digits that scikit-learn carries, resized to 28x28; with --data DIR on MNIST's IDX files
(train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, gzipped or not).
"""

from __future__ import annotations

import argparse
import gzip
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tenon as tn
from tenon import F, nn, optim


class CNN(nn.Module):
    """Two convolutions with pooling and two dense layers, for 28x28 images of one channel and ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, stride=1, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=1, padding=1)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.fc1 = nn.Linear(64 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 64 * 7 * 7)
        x = F.relu(self.fc1(x))
        return self.fc2(x)


# --- data --------------------------------------------------------------------------------------------------


class DataError(Exception):
    """A data file that is missing or not what it should be."""


@dataclass(frozen=True)
class Digits:
    """Images f32[n, 1, 28, 28] of mean 0 and deviation 1, and labels i64[n]."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def bundled_digits(seed: int, test_share: float = 0.2) -> Digits:
    """scikit-learn's 8x8 digits, resized, a random fifth of them for the test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = resize(found.images / 16, 28)
    order = np.random.default_rng(seed).permutation(len(images))
    cut = round(len(images) * (1 - test_share))
    train, test = order[:cut], order[cut:]
    return normalised(images[train], found.target[train], images[test], found.target[test])


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear interpolation of images (n, h, w) to (n, size, size); values stand at the centres of pixels."""

    def along(values: np.ndarray, axis: int) -> np.ndarray:
        length = values.shape[axis]
        position = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.minimum(position.astype(int), length - 2)
        weight = np.expand_dims(position - low, tuple(range(1, values.ndim - axis)))
        return np.take(values, low, axis) * (1 - weight) + np.take(values, low + 1, axis) * weight

    return along(along(images, 1), 2)


def mnist(folder: Path) -> Digits:
    """MNIST's four files in ``folder``. Raises DataError."""
    x, y = read_idx(folder, "train-images-idx3-ubyte", 3), read_idx(folder, "train-labels-idx1-ubyte", 1)
    xt, yt = read_idx(folder, "t10k-images-idx3-ubyte", 3), read_idx(folder, "t10k-labels-idx1-ubyte", 1)
    for images, labels, what in ((x, y, "training"), (xt, yt, "test")):
        if images.shape[1:] != (28, 28):
            raise DataError(f"the {what} images are {images.shape[1]}x{images.shape[2]}; 28x28 was expected")
        if len(images) != len(labels) or not len(images):
            raise DataError(f"there are {len(images)} {what} images and {len(labels)} labels")
        if labels.max() > 9:
            raise DataError(f"the {what} labels reach {labels.max()}; 0 to 9 were expected")
    return normalised(x / 255, y, xt / 255, yt)


def read_idx(folder: Path, name: str, rank: int) -> np.ndarray:
    """The bytes in an IDX file (big-endian: 0, 0, 8 for unsigned bytes, the rank, the sizes, then the data)."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise DataError(f"there is neither {name} nor {name}.gz in {folder}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    head = 4 + 4 * rank
    if len(content) < head or content[:4] != bytes([0, 0, 8, rank]):
        raise DataError(f"{path} is not an IDX file of unsigned bytes with {rank} axes")
    sizes = struct.unpack(f">{rank}I", content[4:head])
    if len(content) - head != np.prod(sizes, dtype=np.int64):
        raise DataError(f"{path} announces {sizes}, and holds {len(content) - head} bytes of data")
    return np.frombuffer(content, np.uint8, offset=head).reshape(sizes)


def normalised(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Digits:
    """Images shifted and scaled by the mean and deviation of the training images."""
    mean, deviation = x.mean(), x.std()
    images = [((a - mean) / deviation).astype(np.float32)[:, None] for a in (x, x_test)]
    return Digits(images[0], y.astype(np.int64), images[1], y_test.astype(np.int64))


# --- training ----------------------------------------------------------------------------------------------


def plot(history: tn.History, data: Digits, predicted: np.ndarray, path: Path) -> None:
    """Learning curves, and test images with what the network says they are: the wrong ones first."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subfigures(1, 2)
    curves = left.subplots()
    epochs = [e + 1 for e in history.epoch]
    curves.plot(epochs, history.history["loss"], "o-", label="training loss")
    curves.plot(epochs, history.history["val_loss"], "o-", label="test loss")
    curves.set_xlabel("epoch")
    curves.set_yscale("log")
    curves.legend()
    wrong = np.flatnonzero(predicted != data.y_test)
    shown = np.concatenate([wrong, np.flatnonzero(predicted == data.y_test)])[:24]
    for index, axes in zip(shown, right.subplots(4, 6).flat, strict=False):
        axes.imshow(data.x_test[index, 0], cmap="gray_r")
        axes.set_axis_off()
        right_answer = predicted[index] == data.y_test[index]
        title = f"{predicted[index]}" if right_answer else f"{predicted[index]}, is {data.y_test[index]}"
        axes.set_title(title, fontsize=8, color="black" if right_answer else "red")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder with MNIST's IDX files")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the training images (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="Adam's learning rate (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the parameters and the order (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("digits_cnn.png"), help="where the plot goes (%(default)s)")
    parser.add_argument("--dump", type=Path, metavar="DIR", help="write every stage of the training program here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        data = mnist(options.data) if options.data else bundled_digits(options.seed)
    except DataError as error:
        print(f"digits_cnn.py: {error}", file=sys.stderr)
        return 1
    print(f"{len(data.x)} training and {len(data.x_test)} test images of {data.x.shape[2]}x{data.x.shape[3]}")

    tn.seed(options.seed)
    model = CNN()
    trainer = tn.Trainer(
        model,
        optimizer=optim.Adam(model.parameters(), lr=options.lr),
        loss=nn.CrossEntropyLoss(),
        metrics=["accuracy"],
    )
    start = time.perf_counter()
    history = trainer.fit(
        data.x,
        data.y,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_data=(data.x_test, data.y_test),
    )
    seconds = time.perf_counter() - start

    predicted = np.argmax(trainer.predict(data.x_test, batch_size=256), axis=1)
    for executable in trainer.executables:
        print(executable.report)
    if options.dump:
        step = trainer.executables[0]
        print(f"dumped {step.dump(options.dump, data.x[: options.batch_size], data.y[: options.batch_size])}")
    plot(history, data, predicted, options.out)
    print(f"trained {options.epochs} epochs in {seconds:.1f} s, compilation included; plot in {options.out}")
    print(f"test accuracy {np.mean(predicted == data.y_test):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

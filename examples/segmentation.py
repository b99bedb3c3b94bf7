"""Train a U-Net to find discs, squares and triangles in pictures.

The pictures are made here: shapes filled with the texture of one photograph that scikit-learn carries, laid over
another. Each pixel is one of four classes. Prints the intersection over union of each, on pictures whose textures were
not trained on. The network: Ronneberger et al. (2015), "U-Net".
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import tenon as tn
from tenon import F, nn, optim

CLASSES = ("background", "disc", "square", "triangle")
COLOURS = np.array([[0.1, 0.1, 0.1], [0.9, 0.3, 0.2], [0.2, 0.6, 0.9], [0.95, 0.8, 0.2]])


def double(before: int, after: int) -> nn.Sequential:
    """Two convolutions, each with normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """From an image (N, 3, H, W) to a score for each class at each pixel; H and W divide by 8. What the way down sees
    at each size the way up reads beside what comes from below."""

    def __init__(self, classes: int, width: int, depth: int = 3):
        super().__init__()
        widths = [width * 2**i for i in range(depth + 1)]
        pairs = list(zip(widths, widths[1:], strict=False))
        self.entry = double(3, width)
        self.down = nn.ModuleList(double(a, b) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in reversed(pairs))
        self.join = nn.ModuleList(double(b, a) for a, b in reversed(pairs))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        seen = [self.entry(x)]
        for down in self.down:
            seen.append(down(F.max_pool2d(seen[-1], 2)))
        below = seen.pop()
        for up, join in zip(self.up, self.join, strict=True):
            below = join(tn.cat([up(below), seen.pop()], 1))
        return self.head(below)


# --- pictures ------------------------------------------------------------------------------------------------


def photographs() -> tuple[np.ndarray, np.ndarray]:
    """A temple and a flower, (H, W, 3) between 0 and 1."""
    from sklearn.datasets import load_sample_images

    temple, flower = (image.astype(np.float32) / 255 for image in load_sample_images().images)
    return temple, flower


def crop(photograph: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    top, left = (rng.integers(0, n - size + 1) for n in photograph.shape[:2])
    part = photograph[top : top + size, left : left + size]
    return part[:, :: rng.choice((-1, 1))]


def outline(kind: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """The pixels of a shape of class ``kind``, anywhere, of any size and turned by any angle."""
    radius = rng.uniform(0.14, 0.28) * size
    centre = rng.uniform(radius * 0.7, size - radius * 0.7, 2)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] - centre[:, None, None] + 0.5
    if CLASSES[kind] == "disc":
        return x * x + y * y < (0.9 * radius) ** 2
    corners = 4 if CLASSES[kind] == "square" else 3
    sides = angle + 2 * np.pi * np.arange(corners) / corners
    within = radius * np.cos(np.pi / corners)  # how far the sides are from the centre
    return np.all([x * np.cos(a) + y * np.sin(a) < within for a in sides], axis=0)


def pictures(
    count: int, size: int, ground: np.ndarray, filling: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images f32[count, 3, size, size], and the class of each pixel, i64[count, size, size]."""
    rng = np.random.default_rng(seed)
    images, labels = np.empty((count, size, size, 3), np.float32), np.zeros((count, size, size), np.int64)
    for image, label in zip(images, labels, strict=True):
        image[:] = crop(ground, size, rng)
        for _ in range(rng.integers(1, 4)):
            kind = int(rng.integers(1, len(CLASSES)))
            inside = outline(kind, size, rng)
            texture = 0.6 * crop(filling, size, rng) + 0.4 * rng.uniform(0, 1, 3)
            image[inside], label[inside] = texture[inside], kind
    images += rng.normal(0, 0.03, images.shape)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) * 2 - 1, labels


# --- what came out ---------------------------------------------------------------------------------------------


def intersection_over_union(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each class the pixels that are rightly called so, of those that are or are called so."""
    found = []
    for kind in range(len(CLASSES)):
        ours, theirs = predicted == kind, labels == kind
        found.append((ours & theirs).sum() / max(1, (ours | theirs).sum()))
    return np.array(found)


def plot(images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, path: Path) -> None:
    """Pictures, what is in them, and what the network says is."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 8, figsize=(12, 4.8), layout="constrained")
    rows = ((images.transpose(0, 2, 3, 1) + 1) / 2).clip(0, 1), COLOURS[labels], COLOURS[predicted]
    for row, (name, shown) in zip(axes, zip(("picture", "truth", "U-Net"), rows, strict=True), strict=True):
        for one, image in zip(row, shown, strict=False):
            one.imshow(image)
            one.set_xticks([])
            one.set_yticks([])
        row[0].set_ylabel(name)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500, help="pictures to train on (%(default)s)")
    parser.add_argument("--size", type=int, default=64, help="height and width of a picture (%(default)s)")
    parser.add_argument("--width", type=int, default=12, help="channels of the first layer (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the pictures (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures a step (%(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="AdamW's learning rate at its highest (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of pictures, parameters and order (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("segmentation.png"), help="where the plot goes (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    temple, flower = photographs()
    half = temple.shape[1] // 2  # textures of the left halves for training, of the right ones for the test
    x, y = pictures(options.images, options.size, temple[:, :half], flower[:, :half], options.seed)
    x_test, y_test = pictures(200, options.size, temple[:, half:], flower[:, half:], options.seed + 1)

    tn.seed(options.seed)
    model = UNet(len(CLASSES), options.width)
    steps = -(-len(x) // options.batch_size) * options.epochs
    optimizer = optim.AdamW(model.parameters(), lr=options.lr)
    trainer = tn.Trainer(
        model,
        optimizer=optimizer,
        loss=nn.CrossEntropyLoss(),
        scheduler=optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=steps),
        schedule_every="batch",
    )
    start = time.perf_counter()
    trainer.fit(x, y, epochs=options.epochs, batch_size=options.batch_size, validation_data=(x_test, y_test))
    seconds = time.perf_counter() - start

    predicted = np.argmax(trainer.predict(x_test), axis=1)
    found = intersection_over_union(predicted, y_test)
    plot(x_test, y_test, predicted, options.out)
    print(f"trained {options.epochs} epochs in {seconds:.1f} s, compilation included; pictures in {options.out}")
    print("intersection over union: " + ", ".join(f"{n} {v:.3f}" for n, v in zip(CLASSES, found, strict=True)))
    print(f"mean {found.mean():.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train a one-stage detector to find handwritten digits on a canvas: where each is, how large, and which.

The canvases are made here: digits that scikit-learn carries, of many sizes, at random places over noise and strokes.
For each cell of a coarse grid the network says whether the middle of a digit lies in it, its box and its class: Redmon
et al. (2016), "You only look once". Prints precision, recall and mean average precision on digits that were not trained
on.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import tenon as tn
from tenon import F, nn, optim

CELL = 8  # pixels; each may hold the middle of one digit
TYPICAL = 18.0  # pixels, of a digit: sizes are learnt as logarithms of multiples of it
DIGITS = 10


def block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.1))


class Detector(nn.Module):
    """From a canvas (N, 1, H, W) to (N, 5 + 10, H / 8, W / 8): whether there is a digit, where its middle lies in the
    cell, width and height, and a score for each digit."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            block(1, width), nn.MaxPool2d(2),
            block(width, 2 * width), nn.MaxPool2d(2),
            block(2 * width, 4 * width), nn.MaxPool2d(2),
            block(4 * width, 8 * width), block(8 * width, 8 * width),
        )  # fmt: skip
        self.head = nn.Conv2d(8 * width, 5 + DIGITS, 1)

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        return self.head(self.body(x))


def loss(predicted: tn.Tensor, target: tn.Tensor) -> tn.Tensor:
    """What is wrong about the cells (is there a digit?), and about box and class where there is one. ``target`` is
    (N, 6, rows, columns): there or not, middle, logarithms of the sizes, class."""
    there = target[:, 0]
    count = there.sum() + 1e-6
    found = F.binary_cross_entropy_with_logits(predicted[:, 0], there, reduction="sum")
    middle = F.binary_cross_entropy_with_logits(predicted[:, 1:3], target[:, 1:3], reduction="none").sum(1)
    sizes = F.smooth_l1_loss(predicted[:, 3:5], target[:, 3:5], reduction="none").sum(1)
    kind = F.cross_entropy(predicted[:, 5:], target[:, 5].long(), reduction="none")
    return (found + ((middle + 5 * sizes + kind) * there).sum()) / count


# --- canvases ------------------------------------------------------------------------------------------------


def bundled_digits(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """scikit-learn's 8x8 digits and what they are: four fifths for training, the others for the test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = (found.images / 16).astype(np.float32), found.target
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = np.split(order, [len(order) * 4 // 5])
    return (images[train], labels[train]), (images[test], labels[test])


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """``image`` (h, w) bilinearly as (height, width). Tenon's functions compute at once outside of a program."""
    return F.interpolate(tn.tensor(image[None, None]), (height, width), mode="bilinear").numpy()[0, 0]


def trimmed(image: np.ndarray) -> np.ndarray:
    """Without empty rows and columns."""
    rows, columns = (np.flatnonzero(image.max(axis) > 0.2) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def canvases(
    count: int, size: int, images: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Canvases f32[count, 1, size, size], and for each the digits on it: rows of left, top, right, bottom, class."""
    rng = np.random.default_rng(seed)
    found = np.zeros((count, 1, size, size), np.float32)
    truth = []
    for (canvas,) in found:
        scribble(canvas, rng)
        digits: list[tuple[float, ...]] = []
        for _ in range(rng.integers(1, 6)):
            chosen = rng.integers(len(images))
            digit = trimmed(images[chosen])
            height = int(rng.integers(12, 27))
            width = max(4, round(height * digit.shape[1] / digit.shape[0] * rng.uniform(0.8, 1.2)))
            if width > 30:
                continue
            top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
            box = (left, top, left + width, top + height)
            if any(overlap(np.array([box]), np.array([other[:4]]))[0, 0] > 0.02 for other in digits):
                continue
            ink = resized(digit, height, width) * rng.uniform(0.6, 1.0)
            part = canvas[top : top + height, left : left + width]
            np.maximum(part, ink, out=part)
            digits.append((*box, labels[chosen]))
        truth.append(np.array(digits, np.float32).reshape(-1, 5))
    return found + rng.normal(0, 0.08, found.shape).astype(np.float32), truth


def scribble(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """A few straight strokes that are no digits."""
    size = len(canvas)
    for _ in range(rng.integers(0, 5)):
        start, end = rng.uniform(0, size - 1, 2), rng.normal(0, 12, 2)
        for t in np.linspace(0, 1, 40):
            y, x = np.clip(start + t * end, 0, size - 1).astype(int)
            canvas[y, x] = max(canvas[y, x], 0.4)


def targets(truth: list[np.ndarray], cells: int) -> np.ndarray:
    """What :func:`loss` compares with, f32[n, 6, cells, cells]."""
    found = np.zeros((len(truth), 6, cells, cells), np.float32)
    for grid, digits in zip(found, truth, strict=True):
        for left, top, right, bottom, kind in digits:
            x, y = (left + right) / 2 / CELL, (top + bottom) / 2 / CELL
            column, row = min(int(x), cells - 1), min(int(y), cells - 1)
            sizes = np.log((right - left) / TYPICAL), np.log((bottom - top) / TYPICAL)
            grid[:, row, column] = 1, x - column, y - row, *sizes, kind
    return found


# --- from scores to boxes ------------------------------------------------------------------------------------------


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The intersection over the union of each box (left, top, right, bottom) of ``a`` with each of ``b``."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def boxes_of(scores: np.ndarray, least: float, most_overlap: float = 0.4) -> np.ndarray:
    """The digits in (15, rows, columns): rows of left, top, right, bottom, class, confidence, the surest first. Of
    boxes that overlap only the surest stays."""
    sure = 1 / (1 + np.exp(-scores[0]))
    middle = 1 / (1 + np.exp(-scores[1:3]))
    kinds = np.exp(scores[5:] - scores[5:].max(0))
    confidence = sure * kinds.max(0) / kinds.sum(0)
    rows, columns = np.nonzero(confidence > least)
    x, y = ((place + m[rows, columns]) * CELL for place, m in zip((columns, rows), middle, strict=True))
    width, height = (np.exp(np.clip(s[rows, columns], -3, 3)) * TYPICAL for s in scores[3:5])
    kind = scores[5:].argmax(0)[rows, columns]
    found = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2, kind, confidence[rows, columns]], 1)
    found = found[np.argsort(-found[:, 5])]
    kept: list[int] = []
    shares = overlap(found, found)
    for i in range(len(found)):
        if all(shares[i, j] < most_overlap for j in kept):
            kept.append(i)
    return found[kept]


def judged(found: list[np.ndarray], truth: list[np.ndarray], kind: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Of the boxes of one class, the surest first: confidence, and whether it is right, which takes an overlap of a
    half with a digit of that class that no surer one has found. And how many digits there are."""
    confidence, right, total = [], [], 0
    for boxes, digits in zip(found, truth, strict=True):
        mine, theirs = boxes[boxes[:, 4] == kind], digits[digits[:, 4] == kind]
        total += len(theirs)
        free = np.ones(len(theirs), bool)
        for box, shares in zip(mine, overlap(mine, theirs), strict=True):
            best = int(np.argmax(shares * free)) if free.any() else -1
            hit = best >= 0 and shares[best] >= 0.5
            if hit:
                free[best] = False
            confidence.append(box[5])
            right.append(hit)
    order = np.argsort(-np.array(confidence))
    return np.array(confidence)[order], np.array(right, bool)[order], total


def average_precision(right: np.ndarray, total: int) -> float:
    """The area under precision over recall, precision being that of the best recall at least as high."""
    hits = np.cumsum(right)
    precision = np.maximum.accumulate((hits / np.arange(1, len(right) + 1))[::-1])[::-1]
    return float((precision * right).sum() / max(1, total))


def plot(images: np.ndarray, found: list[np.ndarray], truth: list[np.ndarray], path: Path) -> None:
    """Canvases with the digits (thin) and what was found (thick, with its class)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    figure, axes = plt.subplots(2, 5, figsize=(13, 5.6), layout="constrained")
    for one, image, boxes, digits in zip(axes.flat, images, found, truth, strict=False):
        one.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
        one.set_axis_off()
        for left, top, right, bottom, _ in digits:
            one.add_patch(
                Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, ec="black", lw=0.7)
            )
        for left, top, right, bottom, kind, confidence in boxes:
            corner = (left - 0.5, top - 0.5)
            one.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, ec="tab:red", lw=1.6))
            one.text(*corner, f"{int(kind)} {confidence:.2f}", color="tab:red", fontsize=8, va="bottom")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000, help="canvases to train on (%(default)s)")
    parser.add_argument("--size", type=int, default=72, help="height and width of a canvas (%(default)s)")
    parser.add_argument("--width", type=int, default=12, help="channels of the first layer (%(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the canvases (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="canvases a step (%(default)s)")
    parser.add_argument("--lr", type=float, default=4e-3, help="AdamW's learning rate at its highest (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of canvases, parameters and order (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("detection.png"), help="where the plot goes (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    train, test = bundled_digits(options.seed)
    x, truth = canvases(options.images, options.size, *train, options.seed)
    x_test, truth_test = canvases(300, options.size, *test, options.seed + 1)
    y, y_test = (targets(t, options.size // CELL) for t in (truth, truth_test))
    print(f"{len(x)} canvases with {sum(map(len, truth))} digits, and {len(x_test)} with {sum(map(len, truth_test))}")

    tn.seed(options.seed)
    model = Detector(options.width)
    steps = -(-len(x) // options.batch_size) * options.epochs
    optimizer = optim.AdamW(model.parameters(), lr=options.lr)
    trainer = tn.Trainer(
        model,
        optimizer=optimizer,
        loss=loss,
        scheduler=optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=steps),
        schedule_every="batch",
    )
    start = time.perf_counter()
    trainer.fit(x, y, epochs=options.epochs, batch_size=options.batch_size, validation_data=(x_test, y_test))
    seconds = time.perf_counter() - start

    scores = trainer.predict(x_test)
    results = [judged([boxes_of(s, 0.05) for s in scores], truth_test, kind) for kind in range(DIGITS)]
    precision = np.mean([average_precision(right, total) for _, right, total in results])
    sure = np.concatenate([right[confidence > 0.5] for confidence, right, _ in results])
    total = sum(t for _, _, t in results)
    plot(x_test, [boxes_of(s, 0.5) for s in scores], truth_test, options.out)
    print(f"trained {options.epochs} epochs in {seconds:.1f} s, compilation included; canvases in {options.out}")
    print(f"precision {sure.mean() if len(sure) else 0.0:.4f}, recall {sure.sum() / total:.4f} of those surer than 0.5")
    print(f"mean average precision {precision:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

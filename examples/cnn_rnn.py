"""A CNN reads each frame of a clip and a GRU what it saw: which digit moves, and where to?"""

from __future__ import annotations

import argparse
import time

import numpy as np

import tenon as tn
from tenon import F, nn, optim

SIZE, FRAMES = 20, 8
DIRECTIONS = ["right", "down right", "down", "down left", "left", "up left", "up", "up right"]


class CNNRNN(nn.Module):
    """Clips (N, T, 1, SIZE, SIZE) to scores of the digits (N, 10) and of the directions (N, 8)."""

    def __init__(self, features: int, hidden: int):
        super().__init__()
        self.frame = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.LazyLinear(features), nn.ReLU(),
        )  # fmt: skip
        self.rnn = nn.GRU(features, hidden, batch_first=True)
        self.digit, self.direction = nn.Linear(hidden, 10), nn.Linear(hidden, len(DIRECTIONS))

    def forward(self, clips: tn.Tensor) -> tuple[tn.Tensor, tn.Tensor]:
        seen = self.frame(clips.flatten(0, 1))  # frames are images like others: all clips' at once
        _, last = self.rnn(seen.reshape(clips.shape[0], clips.shape[1], -1))
        return self.digit(last[0]), self.direction(last[0])


def film(images: np.ndarray, rng: np.random.Generator, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """A clip (FRAMES, 1, SIZE, SIZE) of each image (N, 8, 8) as it moves, and its direction's number. In a frame
    seven tenths of the digit's pixels are lit, others each time; noise is added."""
    count, side = len(images), images.shape[-1]
    direction = rng.integers(0, len(DIRECTIONS), count)
    angle = direction * (2 * np.pi / len(DIRECTIONS))
    step = np.round(np.stack([np.sin(angle), np.cos(angle)], -1)).astype(int)  # downwards, rightwards: -1, 0 or 1 pixel
    path = step[:, None] * np.arange(FRAMES)[:, None]
    low, high = -path.min(1), SIZE - side - path.max(1)
    place = rng.integers(low, high + 1)[:, None] + path
    clips = rng.normal(0, noise, (count, FRAMES, 1, SIZE, SIZE)).astype(np.float32)
    lit = images[:, None] * (rng.random((count, FRAMES, side, side)) < 0.7)
    for i, t in np.ndindex(count, FRAMES):
        y, x = place[i, t]
        clips[i, t, 0, y : y + side, x : x + side] += lit[i, t]
    return clips, direction


def draw(clips: np.ndarray, titles: list[tuple[str, str]], path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FRAMES * 1.05 + 1.8, len(clips) * 1.12), layout="constrained")
    grid = figure.subplots(len(clips), FRAMES)
    for row, clip, (expected, found) in zip(grid, clips, titles, strict=True):
        for axes, frame in zip(row, clip[:, 0], strict=True):
            axes.imshow(frame, cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        colour = "black" if expected == found else "tab:red"
        row[0].set_ylabel(f"{expected}\nread: {found}", rotation=0, ha="right", va="center", color=colour)
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--features", type=int, default=64, help="numbers that tell of a frame (%(default)s)")
    parser.add_argument("--hidden", type=int, default=96, help="units of the GRU (%(default)s)")
    parser.add_argument("--noise", type=float, default=0.1, help="its standard deviation (%(default)s)")
    parser.add_argument("--out", default="cnn_rnn.png")
    args = parser.parse_args()

    from sklearn.datasets import load_digits

    tn.seed(0)
    rng = np.random.default_rng(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8)
    x, xt, y, yt = tn.data.train_test_split(images, labels, test_size=0.2)
    test, directions = film(xt, rng, args.noise)

    model = CNNRNN(args.features, args.hidden)
    adam = optim.Adam(model.parameters(), lr=2e-3)
    clip = tn.spec("B", FRAMES, 1, SIZE, SIZE)

    @tn.function(specs=[clip, tn.spec("B", dtype="i64"), tn.spec("B", dtype="i64")])
    def step(clips, digit, direction):
        digits, ways = model(clips)
        loss = F.cross_entropy(digits, digit) + F.cross_entropy(ways, direction)
        adam.minimize(loss)
        return loss

    start = time.perf_counter()
    for epoch in range(args.epochs):
        clips, ways = film(x, rng, args.noise)  # each digit moves elsewhere in each epoch
        order = rng.permutation(len(x))
        losses = [step(clips[i], y[i], ways[i]) for i in np.array_split(order, len(x) // 48)]
        if (epoch + 1) % 5 == 0:
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")
    print(f"trained {args.epochs} epochs in {time.perf_counter() - start:.1f} s, compilation included")

    digits, ways = (scores.argmax(1) for scores in tn.compile(model.eval(), clip)(test))
    print(f"digits {np.mean(digits == yt):.4f} right, directions {np.mean(ways == directions):.4f}")
    print(f"test accuracy, both right: {np.mean((digits == yt) & (ways == directions)):.4f}")
    wrong = np.flatnonzero((digits != yt) | (ways != directions))[:2]
    shown = np.concatenate([np.setdiff1d(np.arange(len(yt)), wrong)[: 6 - len(wrong)], wrong])
    titles = [(f"{yt[i]} {DIRECTIONS[directions[i]]}", f"{digits[i]} {DIRECTIONS[ways[i]]}") for i in shown]
    draw(test[shown], titles, args.out)


if __name__ == "__main__":
    main()

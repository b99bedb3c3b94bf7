"""A convolutional network on colour images of 28x28 or 32x32: which material is this a patch of?

The patches are cut from the two photographs that scikit-learn carries: sky, roof and trees of a palace, petals and
leaves of a flower. Training and test patches come from different places.
"""

from __future__ import annotations

import argparse

import numpy as np

import tenon as tn
from tenon import F, nn, optim

REGIONS = {  # photograph, rows, columns
    "sky": (0, (0, 110), (0, 640)),
    "roof": (0, (190, 300), (60, 560)),
    "trees": (0, (330, 427), (0, 200)),
    "petals": (1, (120, 300), (230, 450)),
    "leaves": (1, (0, 400), (0, 150)),
}


class CNN(nn.Module):
    """Two convolutions with pooling and two dense layers. Pooling twice leaves a quarter of each side, so the first
    dense layer has 64 * 7 * 7 inputs for images of 28x28, and 64 * 8 * 8 for 32x32."""

    def __init__(self, size: int, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, kernel_size=3, stride=1, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=1, padding=1)
        self.fc1 = nn.Linear(64 * (size // 4) ** 2, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), kernel_size=2, stride=2)
        x = F.max_pool2d(F.relu(self.conv2(x)), kernel_size=2, stride=2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def patches(size: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``count`` patches of each region for training, from its left part, and a quarter as many for the test."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(seed)
    photographs = [image.astype(np.float32) / 255 for image in load_sample_images().images]
    found: tuple[list[np.ndarray], list[int], list[np.ndarray], list[int]] = ([], [], [], [])
    for label, (number, (top, bottom), (left, right)) in enumerate(REGIONS.values()):
        # Every third column of squares is kept for the test.
        squares = [range(x, x + size) for x in range(left, right - 2 * size + 1, 2 * size)]
        for part, chosen, n in (
            (0, [s for i, s in enumerate(squares) if i % 3 != 1], count),
            (2, squares[1::3], count // 4),
        ):
            for _ in range(n):
                y, x = rng.integers(top, bottom - size), rng.choice(chosen[rng.integers(len(chosen))])
                found[part].append(photographs[number][y : y + size, x : x + size].transpose(2, 0, 1))
                found[part + 1].append(label)
    return tuple(np.array(part) for part in found)  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=32, choices=(28, 32))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--count", type=int, default=200, help="training patches of each material")
    args = parser.parse_args()

    tn.seed(0)
    x, y, xt, yt = patches(args.size, args.count, seed=0)
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    augment = tn.data.Compose(tn.data.RandomFlip(), tn.data.RandomCrop(args.size, 2), tn.data.Normalize(mean, std))
    loader = tn.data.Loader((x, y), batch_size=32, shuffle=True, transform=augment, workers=1)
    xt = tn.data.Normalize(mean, std)(xt)

    model = CNN(args.size, len(REGIONS))
    print(tn.summary(model, tn.spec("B", 3, args.size, args.size)))
    trainer = tn.Trainer(
        model, optim.SGD(model.parameters(), lr=0.01, momentum=0.9), nn.CrossEntropyLoss(), ["accuracy"]
    )
    trainer.fit(loader, epochs=args.epochs, validation_data=(xt, yt), verbose=2)
    print(f"waited for data {loader.stats.share:.1%} of the time")
    found = trainer.predict(xt).argmax(1)
    for label, name in enumerate(REGIONS):
        print(f"{name:7} {np.mean(found[yt == label] == label):.1%} recognised")
    print(f"test accuracy {np.mean(found == yt):.4f}")


if __name__ == "__main__":
    main()

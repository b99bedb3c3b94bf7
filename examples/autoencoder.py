"""An autoencoder: digits through a bottleneck of two numbers, and back. The two numbers are places on a map of digits.

Noise is put on the images that go in, and the clean ones are expected to come out.
"""

from __future__ import annotations

import argparse

import numpy as np

import tenon as tn
from tenon import F, nn, optim


class Autoencoder(nn.Module):
    def __init__(self, pixels: int, code: int):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(pixels, 128), nn.GELU(), nn.Linear(128, 64), nn.GELU(), nn.Linear(64, code)
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, 64), nn.GELU(), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, pixels)
        )

    def forward(self, x: tn.Tensor) -> tuple[tn.Tensor, tn.Tensor]:
        """The images that come out, as logits, and the code."""
        code = self.encoder(x)
        return self.decoder(code), code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--out", default="autoencoder.png")
    args = parser.parse_args()

    from sklearn.datasets import load_digits

    tn.seed(0)
    images, labels = load_digits(return_X_y=True)
    x, xt, _, yt = tn.data.train_test_split((images / 16).astype(np.float32), labels)
    model = Autoencoder(64, 2)
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    loader = tn.data.Loader(x, batch_size=64, shuffle=True)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=args.epochs * len(loader))

    @tn.function
    def step(x: tn.spec("B", 64)) -> tn.Tensor:
        noisy = tn.clamp(x + 0.2 * tn.randn_like(x), 0, 1)
        loss = F.binary_cross_entropy_with_logits(model(noisy)[0], x)
        optimizer.minimize(loss)
        scheduler.step()
        return loss

    for epoch in range(args.epochs):
        losses = [float(step(*batch)) for batch in loader]
        if (epoch + 1) % max(1, args.epochs // 5) == 0:
            print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, lr {optimizer.lr:.1e}")

    logits, code = tn.compile(model.eval(), tn.spec("B", 64))(xt)
    restored = 1 / (1 + np.exp(-logits))
    error, constant = np.mean((restored - xt) ** 2), np.mean((x.mean(0) - xt) ** 2)
    print(f"mean squared error on the test images {error:.4f}; of their mean image {constant:.4f}")
    draw(xt, restored, code, yt, args.out)


def draw(images: np.ndarray, restored: np.ndarray, code: np.ndarray, labels: np.ndarray, path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    above, below = (a[:24].reshape(3, 8, 8, 8) for a in (images, restored))
    pairs = np.concatenate([above, np.full((3, 8, 1, 8), 0.5), below], 2)  # a grey line between the two
    grid = np.pad(pairs, ((0, 0), (0, 0), (2, 2), (1, 1)), constant_values=1)
    left.imshow(grid.transpose(0, 2, 1, 3).reshape(3 * 21, 8 * 10), cmap="gray")
    left.set(title="test images, each above what comes out", xticks=[], yticks=[])
    points = right.scatter(*code.T, c=labels, cmap="tab10", s=9)
    right.legend(*points.legend_elements(), loc="center left", bbox_to_anchor=(1, 0.5))
    right.set_title("the two numbers between")
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

"""A generative adversarial network (Goodfellow et al., 2014): one network draws digits, another tells them from real
ones.

Both learn in one compiled program, each with an optimizer of its own.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import tenon as tn
from tenon import F, nn, optim

LATENT = 32


def generator() -> nn.Module:
    return nn.Sequential(
        nn.Linear(LATENT, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 256), nn.BatchNorm1d(256), nn.ReLU(),
        nn.Linear(256, 64), nn.Tanh(),
    )  # fmt: skip


def discriminator() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 256), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(256, 128), nn.LeakyReLU(0.2), nn.Dropout(0.3),
        nn.Linear(128, 1),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", default="gan_digits.png")
    args = parser.parse_args()

    from sklearn.datasets import load_digits

    tn.seed(0)
    real = (load_digits().data / 8 - 1).astype(np.float32)
    draws, judges = generator(), discriminator()
    of_generator = optim.Adam(draws.parameters(), lr=3e-4, betas=(0.5, 0.999), ema=0.995)
    of_discriminator = optim.Adam(judges.parameters(), lr=3e-4, betas=(0.5, 0.999))

    @tn.function
    def step(real: tn.spec("B", 64)) -> tuple[tn.Tensor, tn.Tensor]:
        count = real.shape[0]
        yes, no = tn.full((count, 1), 0.9), tn.zeros(count, 1)  # 0.9: a judge that is never certain
        fakes = draws(tn.randn(count, LATENT))
        judged, judged_fake = judges(real), judges(fakes.detach())
        loss = F.binary_cross_entropy_with_logits(judged, yes) + F.binary_cross_entropy_with_logits(judged_fake, no)
        of_discriminator.minimize(loss)
        fooled = F.binary_cross_entropy_with_logits(judges(fakes), yes)
        of_generator.minimize(fooled)
        return loss, fooled

    begin = time.perf_counter()
    loader = tn.data.Loader(real, args.batch_size, shuffle=True, last="drop")
    for epoch in range(args.epochs):
        losses = np.mean([step(*batch) for batch in loader], 0)
        if (epoch + 1) % max(1, args.epochs // 8) == 0:
            print(f"epoch {epoch + 1}: discriminator {losses[0]:.3f}, generator {losses[1]:.3f}, "
                  f"{time.perf_counter() - begin:.0f} s")  # fmt: skip

    with of_generator.averaged():
        drawn = tn.compile(draws.eval(), tn.spec("B", LATENT))(
            np.random.default_rng(1).normal(size=(64, LATENT)).astype("f4")
        )
    spread = np.std(drawn, 0).mean() / np.std(real, 0).mean()
    distance = np.mean([np.linalg.norm(real - image, axis=1).min() for image in drawn])
    print(
        f"drawn digits vary {spread:.2f} times as much as real ones, and lie {distance:.2f} from the nearest real one"
    )
    save(drawn, args.out)


def save(images: np.ndarray, path: str) -> None:
    """A grid of 8 by 8 images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    grid = np.pad(images.reshape(8, 8, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
    axes.imshow(grid.transpose(0, 2, 1, 3).reshape(80, 80), cmap="gray", interpolation="bicubic")
    axes.axis("off")
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

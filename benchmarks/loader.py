"""How long the seed's CNN waits for data: training at batch 64 on augmented images, by who makes the batches.

    python -m benchmarks.loader

Every loader gives the same batches: an image is cropped, turned and normalised as it is taken. All train the same
program, an epoch each in turn, so that what else the machine does meets all of them. Waiting is measured in the
training loop, from asking for a batch to having it; the beginning of each epoch, where none can be ready, counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.models import cnn, load


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 1, 28, 28) float32 from 0 to 1 and classes (count,) int64."""
    rng = np.random.default_rng(1)
    return rng.random((count, 1, 28, 28), np.float32), rng.integers(0, 10, count)


def training(specs: tuple[Any, ...]) -> Callable[..., Any]:
    """The seed's CNN under Adam, as one compiled step."""
    import tenon as tn
    from tenon import F, nn, optim

    model = load(cnn(nn, F), lambda x: x)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    return tn.train_step(model, F.cross_entropy, optimizer, specs=list(specs))


def epoch(loader: Any, step: Callable[..., Any]) -> tuple[float, float]:
    """Seconds that one walk through the loader took, and of them those spent waiting for batches."""
    waited, begin = 0.0, time.perf_counter()
    batches = iter(loader)
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            return time.perf_counter() - begin, waited
        float(step(*batch))


def table(found: dict[str, list[tuple[float, float]]]) -> str:
    """Markdown: medians over the epochs, and the range of the shares."""
    lines = ["| batches made by | epoch (s) | waiting (s) | share of time waiting |", "| --- | --- | --- | --- |"]
    for name, times in found.items():
        shares = [waited / total for total, waited in times]
        total, waited = (statistics.median(column) for column in zip(*times, strict=True))
        spread = f"{statistics.median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})"
        lines.append(f"| {name} | {total:.3f} | {waited:.3f} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="images a step (%(default)s)")
    parser.add_argument("--images", type=int, default=6400, help="images an epoch (%(default)s)")
    parser.add_argument("--epochs", type=int, default=7, help="epochs of each loader that count (%(default)s)")
    parser.add_argument("--degrees", type=float, default=10, help="images are turned by up to that much (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the step (%(default)s)")
    args = parser.parse_args()
    os.environ["TENON_THREADS"] = str(args.threads)

    from tenon import data

    source = images(args.images)
    augment = data.Compose(data.RandomCrop(28, 2), data.RandomRotation(args.degrees), data.Normalize(0.5, 0.29))

    def loader(**workers: Any) -> data.Loader:
        return data.Loader(source, args.batch, shuffle=True, transform=augment, **workers)

    loaders = {
        "the loop itself": loader(),
        "1 thread": loader(workers=1),
        "2 threads": loader(workers=2),
        "1 process": loader(workers=1, processes=True),
    }
    step = training(loaders["the loop itself"].specs)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
    for number in range(args.epochs + 1):
        for name, one in loaders.items():
            times = epoch(one, step)
            if number:  # the first epoch of each warms up
                found[name].append(times)
    print(f"CNN, Adam, batch {args.batch}, {args.threads} threads, {platform.machine()}\n")
    print(table(found))


if __name__ == "__main__":
    main()

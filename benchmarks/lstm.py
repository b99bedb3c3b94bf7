"""The seed's LSTM (2 layers, input 28, hidden 128, 28 steps): Tenon beside PyTorch, same weights, same batch.

    python -m benchmarks.lstm --task adam --batch 64

A task is a training step (``sgd``, ``adam``) or ``infer``, the logits of the last step alone. Engines that are not
installed are named and left out. The first results of all engines are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.cnn import RATES, WARMUP, answer
from benchmarks.paired import Worker, compare, table

INPUT, HIDDEN, LAYERS, STEPS, CLASSES = 28, 128, 2, 28, 10
ENGINES = ("tenon", "torch", "torch.compile")


def weights() -> dict[str, np.ndarray]:
    """The same small weights for every engine, float32."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (CLASSES, HIDDEN), "fc.bias": (CLASSES,)}
    for layer in range(LAYERS):
        shapes[f"lstm.weight_ih_l{layer}"] = (4 * HIDDEN, HIDDEN if layer else INPUT)
        shapes[f"lstm.weight_hh_l{layer}"] = (4 * HIDDEN, HIDDEN)
        shapes[f"lstm.bias_ih_l{layer}"] = shapes[f"lstm.bias_hh_l{layer}"] = (4 * HIDDEN,)
    bound = HIDDEN**-0.5
    return {name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences (size, 28, 28) float32 and classes (size,) int64."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((size, STEPS, INPUT)).astype(np.float32), rng.integers(0, CLASSES, size)


def network(nn):  # type: ignore[no-untyped-def]
    """The seed's model in the vocabulary that Tenon and PyTorch share."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(INPUT, HIDDEN, LAYERS, batch_first=True)
            self.fc = nn.Linear(HIDDEN, CLASSES)

        def forward(self, x):  # type: ignore[no-untyped-def]
            out, _ = self.lstm(x)
            return self.fc(out[:, -1])

    return Model()


def tenon_step(task: str, size: int) -> Callable[[], float]:
    """One training step, or one inference, as a call that returns a number of its result."""
    import tenon as tn
    from tenon import F, nn, optim

    model = network(nn)
    model.load_state_dict(weights())
    x, y = batch(size)
    sequences = tn.spec("B", "T", INPUT)
    if task == "infer":
        infer = tn.compile(model.eval(), sequences)
        return lambda: float(infer(x)[0, 0])
    optimizer = {"sgd": optim.SGD, "adam": optim.Adam}[task](model.parameters(), lr=RATES[task])
    step = tn.train_step(model, F.cross_entropy, optimizer, specs=[sequences, tn.spec("B", dtype="i64")])
    return lambda: float(step(x, y))


def torch_worker(task: str, size: int, variant: str) -> None:
    import torch
    import torch.nn.functional as functional

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = network(torch.nn)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights().items()})
    x, y = map(torch.from_numpy, batch(size))
    forward = torch.compile(model) if variant == "torch.compile" else model
    if task == "infer":
        model.eval()
        with torch.inference_mode():
            answer(lambda: forward(x)[0, 0].item())
        return
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[task](model.parameters(), lr=RATES[task])

    def step() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(forward(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    answer(step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=(*RATES, "infer"), default="adam")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--engines", default="tenon,torch", help=f"some of {','.join(ENGINES)}")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if args.worker == "tenon":
            answer(tenon_step(args.task, args.batch))
        else:
            torch_worker(args.task, args.batch, args.worker)
        return
    names = args.engines.split(",")
    for missing in [n for n in names if importlib.util.find_spec(n.split(".")[0]) is None]:
        print(f"{missing} is not installed and is left out", file=sys.stderr)
        names.remove(missing)
    task = ["--task", args.task, "--batch", str(args.batch)]
    workers = [Worker.start("benchmarks.lstm", name, args.threads, task) for name in names]
    for w in workers:
        first = [w.first[str(i)] for i in range(WARMUP)]
        expected = [workers[0].first[str(i)] for i in range(WARMUP)]
        np.testing.assert_allclose(first, expected, rtol=1e-3, atol=1e-5, err_msg=f"{w.name} computes something else")
    found = compare(workers, args.rounds, args.steps)
    for w in workers:
        w.stop()
    print(f"LSTM, {args.task}, batch {args.batch}, {args.threads} threads, {platform.machine()}\n")
    print(table(found, workers[0].name))


if __name__ == "__main__":
    main()

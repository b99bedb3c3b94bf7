"""An LSTM cell written by hand with ``F.scan`` beside the fused ``nn.LSTM``: 28 steps, hidden 128, same weights.

    python -m benchmarks.scan --task train --batch 64

A task is ``train``, the loss and all gradients, or ``infer``. ``scan`` multiplies the inputs with their weights inside
its function, step by step; ``hoisted`` does so for all steps at once, before the loop, as the fused layer does.
"""

from __future__ import annotations

import argparse
import platform

import numpy as np

from benchmarks.paired import Worker, answer, check_equal, compare, table

INPUT, HIDDEN, STEPS = 28, 128, 28
KINDS = ("fused", "scan", "hoisted")


def model(kind: str):  # type: ignore[no-untyped-def]
    """The states of all steps, (T, N, H), with PyTorch's names for the parameters."""
    import tenon as tn
    from tenon import F, nn

    class ByHand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            lstm = nn.LSTM(INPUT, HIDDEN)
            self.weight_ih_l0, self.weight_hh_l0 = lstm.weight_ih_l0, lstm.weight_hh_l0
            self.bias_ih_l0, self.bias_hh_l0 = lstm.bias_ih_l0, lstm.bias_hh_l0

        def gates(self, x):  # type: ignore[no-untyped-def]
            return x @ self.weight_ih_l0.T + self.bias_ih_l0 + self.bias_hh_l0

        def cell(self, carry, x):  # type: ignore[no-untyped-def]
            h, c = carry
            z = (x if kind == "hoisted" else self.gates(x)) + h @ self.weight_hh_l0.T
            i, f, g, o = z.chunk(4, -1)
            c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
            h = F.sigmoid(o) * F.tanh(c)
            return (h, c), h

        def forward(self, x):  # type: ignore[no-untyped-def]
            zeros = tn.zeros(x.shape[1], HIDDEN)
            xs = self.gates(x) if kind == "hoisted" else x
            return F.scan(self.cell, (zeros, zeros), xs)[1]

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(INPUT, HIDDEN)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.lstm(x)[0]

    return Fused() if kind == "fused" else ByHand()


def make(kind: str, task: str, batch: int):  # type: ignore[no-untyped-def]
    """``step()`` runs the task once and gives its result."""
    import tenon as tn
    from tenon import optim

    tn.seed(0)
    net = model(kind)
    x = np.random.default_rng(1).standard_normal((STEPS, batch, INPUT)).astype(np.float32)
    if task == "infer":
        exe = tn.compile(net.eval(), tn.spec("T", "B", INPUT))
        return lambda: exe(x)
    sgd = optim.SGD(net.parameters(), lr=0.01)

    @tn.function(specs=[tn.spec("T", "B", INPUT)])
    def step(x):  # type: ignore[no-untyped-def]
        loss = (net(x) ** 2).mean()
        sgd.minimize(loss)
        return loss

    return lambda: step(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("train", "infer"), default="train")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each in a round")
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        answer(lambda: make(args.worker, args.task, args.batch))
        return
    task = ["--task", args.task, "--batch", str(args.batch)]
    workers = [Worker.start("benchmarks.scan", kind, args.threads, task) for kind in KINDS]
    check_equal(workers)
    found = compare(workers, args.rounds, args.seconds)
    for w in workers:
        w.stop()
    print(f"LSTM cell, {args.task}, batch {args.batch}, {args.threads} threads, {platform.machine()}\n")
    print(table(found, KINDS[0]))


if __name__ == "__main__":
    main()

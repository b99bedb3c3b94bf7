"""How each measurement of benchmarks/gpu_work.py is made by Tenon: on the same numbers as by PyTorch
(benchmarks/gpu_torch.py), at the same shapes, in the same dtypes, on one GPU.

Kernels are measured on arrays that stay on the GPU; training steps as a user makes them, from arrays of the host to the
loss. Every time is between two CUDA events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gpu_work import Work
from benchmarks.models import CASES, GPTSize, gpt, load

STEPS = 4
"""Losses of a training step that are compared before it is timed: all but the first follow from updates."""


@dataclass(frozen=True)
class Engine:
    """``results`` does the work for the first time, and gives what came out; ``run`` makes so many calls, and gives the
    seconds of each."""

    results: Callable[[], list[np.ndarray]]
    run: Callable[[int], list[float]]


def tenon(work: Work, target: str = "cuda") -> Engine:
    """Tenon's way to do ``work``."""
    import tenon as tn
    from tenon import F, nn, optim

    if work.is_step:
        exe, arrays = _training(work, tn, nn, F, optim, target)
        return Engine(lambda: [exe(*arrays) for _ in range(STEPS)], lambda repeats: _calls(exe, arrays, repeats))
    given, made = ([nn.Buffer(a) for a in some] for some in (arrays_of(work), _results(work)))
    exe = tn.compile(_kernel(work, tn, F, given, made), target=target)

    def results() -> list[np.ndarray]:
        exe()
        return [b.numpy() for b in made]

    return Engine(results, lambda repeats: exe.executor.seconds((), repeats))


def arrays_of(work: Work) -> list[np.ndarray]:
    """What is computed with: tokens of a step, the operands of a kernel, and what gradients of attention begin with."""
    rng = np.random.default_rng(0)
    if work.group == "step":
        return CASES[work.name].arrays()
    if work.group == "gpt":
        batch, length, *_, vocabulary = work.sizes
        return [rng.integers(0, vocabulary, (batch, length)) for _ in range(2)]
    if work.group == "matmul":
        m, n, k = work.sizes
        shapes = [(m, k), (k, n)]
    elif work.group == "attention":
        shapes = [work.sizes[:4]] * 4
    else:
        shapes = [(work.sizes[0] // 4096, 4096)] * 2
    return [_of(work, rng.standard_normal(shape, np.float32)) for shape in shapes]


def _of(work: Work, array: np.ndarray) -> np.ndarray:
    import ml_dtypes

    return array.astype(ml_dtypes.bfloat16) if work.dtype == "bf16" else array


def _results(work: Work) -> list[np.ndarray]:
    """Zeros of the shapes of what a kernel computes."""
    first, second, *_ = (a.shape for a in arrays_of(work))
    if work.group == "matmul":
        shapes = [(first[0], second[1])]
    else:
        shapes = [first] * (3 if work.group == "attention" and work.sizes[4] else 1)
    return [_of(work, np.zeros(shape, np.float32)) for shape in shapes]


def kernel(work: Work, F: Any) -> Callable[..., Any]:
    """What ``work``, which is no step, computes of its first arrays, in the words that Tenon and PyTorch share."""
    if work.group == "attention":
        causal = bool(work.sizes[5])
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    kernels: dict[str, Callable[..., Any]] = {
        "matmul": lambda a, b: a @ b,
        "add": lambda x, y: x + y,
        "softmax": lambda x, _: F.softmax(x, -1),
        "layer_norm": lambda x, _: F.layer_norm(x, (4096,)),
    }
    return kernels[work.group]


def _kernel(work: Work, tn: Any, F: Any, given: list[Any], made: list[Any]) -> Callable[[], None]:
    """A function without inputs, which leaves its results in state: nothing travels."""
    compute = kernel(work, F)

    def forward() -> None:
        made[0].assign(compute(*given[:3]))

    def gradients() -> None:
        *operands, dy = given
        found = tn.grad(lambda *x: (compute(*x) * dy).sum(), argnums=(0, 1, 2))(*operands)
        for to, g in zip(made, found, strict=True):
            to.assign(g)

    return gradients if len(made) > 1 else forward


def _training(work: Work, tn: Any, nn: Any, F: Any, optim: Any, target: str) -> tuple[Any, list[np.ndarray]]:
    if work.group == "step":
        from benchmarks.engines import tenon_program

        return tenon_program(CASES[work.name], target=target), arrays_of(work)
    batch, length, *_, vocabulary = work.sizes
    model = load(gpt_of(nn, F, work), lambda x: x)
    adam = optim.Adam(model.parameters(), lr=1e-4)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x).reshape(-1, vocabulary), y.reshape(-1))
        adam.minimize(loss)
        return loss

    specs = [tn.spec(batch, length, dtype="i64")] * 2
    return tn.compile(step, *specs, target=target, precision=work.dtype), arrays_of(work)


def gpt_of(nn: Any, F: Any, work: Work) -> Any:
    """The model of a piece of work, in Tenon's words or in PyTorch's."""
    _, *size = work.sizes
    return gpt(nn, F, GPTSize(*size))


def _calls(exe: Any, arrays: list[np.ndarray], repeats: int) -> list[float]:
    device = exe.executor.device
    with device.lock:
        device.activate()
        events = [device.event(timed=True) for _ in range(repeats + 1)]
        device.compute.record(events[0])
        for event in events[1:]:
            exe(*arrays)
            device.compute.record(event)
        device.compute.synchronize()
        return [b.seconds_since(a) for a, b in zip(events, events[1:], strict=False)]

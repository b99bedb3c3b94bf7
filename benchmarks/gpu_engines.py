"""How each measurement of benchmarks/gpu_work.py is made by Tenon and by PyTorch: same shapes, same dtypes, one GPU.

Kernels are measured on arrays that stay on the GPU; training steps as a user makes them, from arrays of the host to the
loss. Every time is between two CUDA events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu_work import Work
from benchmarks.models import CASES, GPTSize, gpt, load

Run = Callable[[int], list[float]]
"""Makes so many calls, and gives the seconds of each."""


def tenon(work: Work) -> Run:
    """Tenon's way to do ``work``."""
    import tenon as tn
    from tenon import F, nn, optim

    if work.group in ("step", "gpt"):
        exe, arrays = _training(work, tn, nn, F, optim)
        return lambda repeats: _calls(exe, arrays, repeats)

    def state(*shape: int) -> Any:
        return nn.Buffer(_array(shape, work.dtype))

    exe = tn.compile(_kernel(work, tn, F, state), target="cuda")
    return lambda repeats: exe.executor.seconds((), repeats)


def _array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    import ml_dtypes

    found = np.random.default_rng(0).standard_normal(shape, np.float32)
    return found.astype(ml_dtypes.bfloat16) if dtype == "bf16" else found


def _kernel(work: Work, tn: Any, F: Any, state: Callable[..., Any]) -> Callable[[], Any]:
    """A function without inputs that leaves its result in state: nothing travels."""
    if work.group == "matmul":
        m, n, k = work.sizes
        a, b, c = state(m, k), state(k, n), state(m, n)

        def product() -> None:
            c.assign(a @ b)

        return product
    if work.group == "attention":
        batch, heads, length, width, backward, causal = work.sizes
        q, k_, v, out, dq, dk, dv, dy = (state(batch, heads, length, width) for _ in range(8))

        def attend(q: Any, k: Any, v: Any) -> Any:
            return F.scaled_dot_product_attention(q, k, v, is_causal=bool(causal))

        def forward() -> None:
            out.assign(attend(q, k_, v))

        def both() -> None:
            grads = tn.grad(lambda *x: (attend(*x) * dy).sum(), argnums=(0, 1, 2))(q, k_, v)
            for to, g in zip((dq, dk, dv), grads, strict=True):
                to.assign(g)

        return both if backward else forward
    (elements,) = work.sizes
    rows = elements // 4096
    x, y, z = (state(rows, 4096) for _ in range(3))
    bodies = {
        "add": lambda: x + y,
        "softmax": lambda: F.softmax(x, -1),
        "layer_norm": lambda: F.layer_norm(x, (4096,)),
    }

    def body() -> None:
        z.assign(bodies[work.group]())

    return body


def _training(work: Work, tn: Any, nn: Any, F: Any, optim: Any) -> tuple[Any, list[np.ndarray]]:
    if work.group == "step":
        from benchmarks.engines import tenon_program

        case = CASES[work.name]
        return tenon_program(case, target="cuda"), case.arrays()
    batch, length, *_, vocabulary = work.sizes
    model = gpt_of(nn, F, work)
    adam = optim.Adam(model.parameters(), lr=1e-4)

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x).reshape(-1, vocabulary), y.reshape(-1))
        adam.minimize(loss)
        return loss

    specs = [tn.spec(batch, length, dtype="i64")] * 2
    return tn.compile(step, *specs, target="cuda", precision=work.dtype), _tokens(work)


def _tokens(work: Work) -> list[np.ndarray]:
    batch, length, *_, vocabulary = work.sizes
    rng = np.random.default_rng(0)
    return [rng.integers(0, vocabulary, (batch, length)) for _ in range(2)]


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


def gpt_of(nn: Any, F: Any, work: Work) -> Any:
    """The model of a piece of work, in Tenon's words or in PyTorch's."""
    _, *size = work.sizes
    return gpt(nn, F, GPTSize(*size))


# --- PyTorch -----------------------------------------------------------------------------------------------


def torch_runs(work: Work) -> dict[str, Run]:
    """PyTorch's ways to do ``work``: eager, and compiled with CUDA graphs where that is another thing."""
    import torch

    if work.group in ("step", "gpt"):
        return {name: _torch_training(torch, work, name == "compile") for name in ("eager", "compile")}
    body = _torch_kernel(torch, work)
    runs = {"eager": _torch_timed(torch, body)}
    if work.goal.rival == "copy":
        runs["compile"] = _torch_timed(torch, torch.compile(body, mode="max-autotune"))
    return runs


def _torch_timed(torch: Any, call: Callable[[], Any]) -> Run:
    def run(repeats: int) -> list[float]:
        call()
        torch.cuda.synchronize()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
        events[0].record()
        for event in events[1:]:
            call()
            event.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1e3 for a, b in zip(events, events[1:], strict=False)]

    return run


def _torch_kernel(torch: Any, work: Work) -> Callable[[], Any]:
    F = torch.nn.functional
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[work.dtype]

    def tensor(*shape: int, grad: bool = False) -> Any:
        return torch.randn(*shape, device="cuda", dtype=dtype, requires_grad=grad)

    if work.group == "matmul":
        m, n, k = work.sizes
        a, b = tensor(m, k), tensor(k, n)
        return lambda: a @ b
    if work.group == "attention":
        batch, heads, length, width, backward, causal = work.sizes
        q, k, v = (tensor(batch, heads, length, width, grad=bool(backward)) for _ in range(3))
        dy = tensor(batch, heads, length, width)

        def attend() -> Any:
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
                return F.scaled_dot_product_attention(q, k, v, is_causal=bool(causal))

        return (lambda: torch.autograd.grad(attend(), (q, k, v), dy)) if backward else attend
    (elements,) = work.sizes
    x, y = tensor(elements // 4096, 4096), tensor(elements // 4096, 4096)
    bodies = {"add": lambda: x + y, "softmax": lambda: F.softmax(x, -1), "layer_norm": lambda: F.layer_norm(x, (4096,))}
    return bodies[work.group]


def _torch_training(torch: Any, work: Work, compiled: bool) -> Run:
    nn, F = torch.nn, torch.nn.functional
    if work.group == "step":
        case = CASES[work.name]
        assert case.target is not None
        model, arrays = load(case.build(nn, F), torch.tensor), case.arrays()
        optimizer, rate, classes = getattr(torch.optim, case.optimizer), case.rate, case.target.below
    else:
        model, arrays = gpt_of(nn, F, work), _tokens(work)
        optimizer, rate, classes = torch.optim.Adam, 1e-4, work.sizes[-1]
    model = model.cuda()
    steps = optimizer(model.parameters(), lr=rate)

    def loss_of(*given: Any) -> Any:
        *inputs, target = given
        with torch.autocast("cuda", torch.bfloat16, enabled=work.dtype == "bf16"):
            return F.cross_entropy(model(*inputs).reshape(-1, classes), target.reshape(-1))

    loss_of = torch.compile(loss_of, mode="reduce-overhead") if compiled else loss_of

    def call() -> float:
        loss = loss_of(*(torch.from_numpy(a).cuda() for a in arrays))
        loss.backward()
        steps.step()
        steps.zero_grad(set_to_none=True)
        return loss.item()

    for _ in range(3):  # compiled, and captured, in the first few
        call()
    return _torch_timed(torch, call)

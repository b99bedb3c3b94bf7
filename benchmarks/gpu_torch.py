"""How each measurement of benchmarks/gpu_work.py is made by PyTorch, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu_engines import STEPS, Engine, arrays_of, gpt_of, kernel
from benchmarks.gpu_work import Work
from benchmarks.models import CASES, load


def engines(work: Work, device: str = "cuda") -> dict[str, Engine]:
    """PyTorch's ways to do ``work``: eager, and compiled with CUDA graphs where that is another thing."""
    import torch

    if work.is_step:
        return {name: _training(torch, work, name == "compile", device) for name in ("eager", "compile")}
    body = _kernel(torch, work, device)
    found = {"eager": Engine(lambda: _results(torch, body()), _timed(torch, body))}
    if work.goal.rival == "copy":
        compiled = torch.compile(body, mode="max-autotune")
        found["compile"] = Engine(lambda: _results(torch, compiled()), _timed(torch, compiled))
    return found


def _results(torch: Any, found: Any) -> list[np.ndarray]:
    """Tensors, or one, as float32."""
    tensors = [found] if isinstance(found, torch.Tensor) else found
    return [t.detach().float().cpu().numpy() for t in tensors]


def _timed(torch: Any, call: Callable[[], Any]) -> Callable[[int], list[float]]:
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


def _kernel(torch: Any, work: Work, device: str) -> Callable[[], Any]:
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[work.dtype]
    given = [torch.from_numpy(a.astype(np.float32)).to(device, dtype) for a in arrays_of(work)]
    compute = kernel(work, torch.nn.functional)
    if work.group != "attention":
        return lambda: compute(*given)
    *operands, dy = given
    backward = bool(work.sizes[4])
    for x in operands:
        x.requires_grad_(backward)

    def attend() -> Any:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return compute(*operands)

    return (lambda: torch.autograd.grad(attend(), operands, dy)) if backward else attend


def _training(torch: Any, work: Work, compiled: bool, device: str) -> Engine:
    nn, F = torch.nn, torch.nn.functional
    if work.group == "step":
        case = CASES[work.name]
        assert case.target is not None
        model = case.build(nn, F)
        optimizer, rate, classes = getattr(torch.optim, case.optimizer), case.rate, case.target.below
    else:
        model = gpt_of(nn, F, work)
        optimizer, rate, classes = torch.optim.Adam, 1e-4, work.sizes[-1]
    model, arrays = load(model, torch.from_numpy).to(device), arrays_of(work)
    steps = optimizer(model.parameters(), lr=rate)

    def loss_of(*given: Any) -> Any:
        *inputs, target = given
        with torch.autocast(device, torch.bfloat16, enabled=work.dtype == "bf16"):
            return F.cross_entropy(model(*inputs).reshape(-1, classes), target.reshape(-1))

    loss_of = torch.compile(loss_of, mode="reduce-overhead") if compiled else loss_of

    def call() -> float:
        loss = loss_of(*(torch.from_numpy(a).to(device) for a in arrays))
        loss.backward()
        steps.step()
        steps.zero_grad(set_to_none=True)
        return loss.item()

    return Engine(lambda: [np.asarray(call()) for _ in range(STEPS)], _timed(torch, call))

"""Kernels of convolutions of pictures, against the schedule's definition on NumPy; and which convolutions have one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from kernel_harness import elements, run

from engine import dims, dtypes, scheduled
from engine.buffers import Buffer
from engine.dtypes import DType
from engine.schedule import Access, Conv2d, KernelSpec, MaxPool2d, Stmt
from engine.scheduled import Memory
from runtime.cpu.conv_few import has_few_channels
from runtime.cpu.lower import lower

B = dims.dim("B")


@dataclass(frozen=True)
class Case:
    """A picture of ``size`` pixels and ``channels[0]`` planes, convolved into ``channels[1]``."""

    size: tuple[int, int]
    channels: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    dtype: DType = dtypes.f32
    pool: tuple[int, int] | None = None

    @property
    def out_size(self) -> tuple[int, int]:
        sizes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        h, w = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)
        return h, w

    @property
    def result(self) -> tuple[int, int]:
        (h, w), (down, across) = self.out_size, self.pool or (1, 1)
        return h // down, w // across


CASES = {
    "three planes": Case((28, 37), (3, 32)),
    "a panel and a half": Case((15, 20), (1, 48), kernel=(5, 2), stride=(1, 3), padding=(2, 0), dilation=(2, 1)),
    "wider than a task": Case((7, 300), (4, 16), padding=(3, 2)),
    "patches": Case((32, 32), (3, 64), kernel=(8, 8), stride=(8, 8), padding=(0, 0)),
    "f64": Case((9, 12), (2, 8), stride=(1, 1), dtype=dtypes.f64),
    "pooled": Case((28, 28), (1, 32), stride=(1, 1), pool=(2, 2)),
    "pooled, with pixels left": Case((15, 140), (3, 48), stride=(1, 1), pool=(1, 3)),
    "pooled in f64": Case((12, 9), (2, 8), stride=(1, 1), dtype=dtypes.f64, pool=(2, 1)),
}


def convolution(case: Case) -> KernelSpec:
    dtype, (inputs, outputs), (h, w) = case.dtype, case.channels, case.size
    core = Conv2d(
        Access("x", dtype, (inputs * h * w, w, 1, h * w)),
        Access("w", dtype, elements((outputs, inputs, *case.kernel))), case.size, case.out_size, inputs, outputs,
        case.kernel, case.stride, case.padding, case.dilation,
    )  # fmt: skip
    body = (
        Stmt("sum", "core", (0,), dtype), Stmt("scale", "load", (0,), dtype), Stmt("bias", "load", (1,), dtype),
        Stmt("scaled", "mul", ("sum", "scale"), dtype), Stmt("moved", "add", ("scaled", "bias"), dtype),
        Stmt("zero", "const", (0.0,), dtype), Stmt("value", "maximum", ("moved", "zero"), dtype),
        Stmt("stored", "store", (0, "value"), dtype),
    )  # fmt: skip
    numbers = Access("scale", dtype, (0, 0, 0, 1)), Access("bias", dtype, (0, 0, 0, 1))
    y = Access("y", dtype, elements((1, *case.result, outputs)))
    spec = KernelSpec("conv", (B, *case.result, outputs), numbers, (y,), body, core)
    if case.pool is None:
        return spec
    pool = MaxPool2d(body[:5], case.out_size, case.pool, case.pool, source=core)
    rest = Stmt("moved", "core", (0,), dtype), *body[5:]
    return replace(spec, body=rest, core=pool)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_few_channels(name: str) -> None:
    case = CASES[name]
    spec, rng, (inputs, outputs) = convolution(case), np.random.default_rng(0), case.channels
    lowered = lower(spec, {"w", "scale"})
    assert lowered.calls[0].reads == ("w", "scale")
    assert any(k.name.startswith("conv2d_few") for k in lowered.kernels)
    for n in (1, 3, 0):
        shapes = {
            "x": (n, inputs, *case.size), "w": (outputs, inputs, *case.kernel), "scale": (outputs,),
            "bias": (outputs,), "y": (n, *case.result, outputs),
        }  # fmt: skip
        arrays = {k: rng.standard_normal(s).astype(case.dtype.numpy) for k, s in shapes.items()}
        arrays["x"][:1, 0, 3, 5] = np.nan  # takes part in all windows that it is in
        buffers = [Buffer(k, "temp", case.dtype, a.size) for k, a in arrays.items()]
        memory = Memory(buffers, {"B": n}, {k: a.copy() for k, a in arrays.items()})
        scheduled.execute(spec, memory)
        for splits in (1, 3):
            arrays["y"].fill(np.nan)
            run(lowered, arrays, {"B": n}, splits)
            wanted = memory.arrays["y"].reshape(arrays["y"].shape)
            tolerance = 1e-12 if case.dtype == dtypes.f64 else 1e-4
            np.testing.assert_allclose(arrays["y"], wanted, rtol=tolerance, atol=tolerance)


def test_which_pools_it_takes() -> None:
    spec = convolution(CASES["pooled"])
    pool = spec.core
    assert isinstance(pool, MaxPool2d)
    assert has_few_channels(spec)
    assert not has_few_channels(replace(spec, core=replace(pool, stride=(1, 1))))
    assert not has_few_channels(replace(spec, core=replace(pool, padding=(1, 1))))
    assert not has_few_channels(replace(spec, core=replace(pool, in_size=(27, 28))))
    position = (*spec.body[:-1], Stmt("where", "core", (1,), dtypes.u8), spec.body[-1])
    assert not has_few_channels(replace(spec, body=position))
    assert not has_few_channels(convolution(replace(CASES["pooled"], pool=(5, 5))))


def test_which_convolutions_it_takes() -> None:
    spec = convolution(CASES["three planes"])
    core = spec.core
    assert isinstance(core, Conv2d)
    assert has_few_channels(spec)
    last = Access("x", dtypes.f32, elements((1, *core.in_size, core.in_channels)))
    assert not has_few_channels(replace(spec, core=replace(core, x=last)))
    assert not has_few_channels(convolution(replace(CASES["three planes"], channels=(5, 32))))
    assert not has_few_channels(convolution(replace(CASES["three planes"], channels=(3, 33))))
    residual = Access("bias", dtypes.f32, spec.writes[0].strides)
    assert not has_few_channels(replace(spec, reads=(spec.reads[0], residual)))
    rows = Access("y", dtypes.f32, (1, 1, 1, 1000))
    assert not has_few_channels(replace(spec, writes=(rows,)))

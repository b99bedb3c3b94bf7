"""Kernels of two convolutions, one of them depthwise, against the schedule's definition on NumPy; and which
convolutions make one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from kernel_harness import elements, run

import tenon as tn
from engine import dims, dtypes, scheduled
from engine.buffers import Buffer
from engine.dtypes import DType
from engine.program import Lowered
from engine.schedule import Access, Conv2d, ConvChain, KernelSpec, Stmt
from engine.scheduled import Memory
from runtime.cpu.lower import lower
from tenon import nn

B = dims.dim("B")


@dataclass(frozen=True)
class Case:
    """An image of ``size`` pixels, ``inputs`` channels wide, then ``channels``; the second convolution's window. What
    is added between the two is a residual, or with ``norm`` the same for all pixels of a channel."""

    size: tuple[int, int]
    inputs: int
    channels: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    channels_last: bool = True
    dtype: DType = dtypes.f32
    norm: bool = False

    @property
    def out_size(self) -> tuple[int, int]:
        sizes = zip(self.size, self.kernel, self.stride, self.padding, strict=True)
        h, w = ((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
        return h, w


WEIGHTS = {"mix", "windows", "residual", "bias"}
"""What stays from call to call: factors are taken into the weights then."""

CASES = {
    "small": Case((7, 7), 10, 64),
    "channels that fill no vector": Case((5, 9), 3, 20),
    "one vector and a half": Case((9, 6), 17, 24, padding=(0, 2)),
    "large, in bands": Case((45, 70), 4, 96, stride=(2, 2)),
    "wide window": Case((12, 11), 8, 48, kernel=(5, 4), stride=(2, 1), padding=(2, 3)),
    "row-major image": Case((8, 8), 5, 32, channels_last=False),
    "one pixel": Case((1, 1), 6, 40),
    "f64": Case((6, 7), 5, 24, dtype=dtypes.f64),
    "in registers": Case((7, 7), 10, 64, norm=True),
    "in registers, a panel and a half": Case((19, 13), 3, 48, padding=(0, 2), norm=True),
    "in registers, in strips": Case((45, 30), 4, 96, stride=(2, 2), norm=True),
    "in registers, rows that nobody reads": Case((70, 9), 5, 32, kernel=(1, 2), stride=(3, 3), norm=True),
    "in registers, f64": Case((6, 7), 5, 16, dtype=dtypes.f64, norm=True),
}


def chain(case: Case) -> KernelSpec:
    """A residual is added between the convolutions, and a bias after them; both go through a relu. With a norm both
    are factors."""
    dtype, (h, w), c = case.dtype, case.size, case.channels
    strides = elements((1, h, w, case.inputs))
    if not case.channels_last:
        n, channel, row, column = elements((1, case.inputs, h, w))
        strides = (n, row, column, channel)
    source = Conv2d(
        Access("x", dtype, strides), Access("mix", dtype, elements((c, case.inputs, 1, 1))), case.size, case.size,
        case.inputs, c, (1, 1),
    )  # fmt: skip
    taps = case.kernel[0] * case.kernel[1]
    last = Conv2d(
        Access("", dtype, (0, 0, 0, 0)), Access("windows", dtype, elements((1, 1, *case.kernel))), case.size,
        case.out_size, c, c, case.kernel, case.stride, case.padding, groups=c, w_group=taps,
    )  # fmt: skip

    def body(name: str, read: int) -> tuple[Stmt, ...]:
        joins = "mul" if case.norm else "add"
        return (
            Stmt(name, "core", (0,), dtype), Stmt(f"{name}_more", "load", (read,), dtype),
            Stmt(f"{name}_both", joins, (name, f"{name}_more"), dtype), Stmt(f"{name}_zero", "const", (0.0,), dtype),
            Stmt(f"{name}_relu", "maximum", (f"{name}_both", f"{name}_zero"), dtype),
        )  # fmt: skip

    residual = Access("residual", dtype, (0, 0, 0, 1) if case.norm else elements((1, h, w, c)))
    bias = Access("bias", dtype, (0, 0, 0, 1))
    y = Access("y", dtype, elements((1, *case.out_size, c)))
    stored = (*body("outer", 1), Stmt("stored", "store", (0, "outer_relu"), dtype))
    core = ConvChain(source, body("between", 0), last)
    return KernelSpec("chain", (B, *case.out_size, c), (residual, bias), (y,), stored, core)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n.startswith("in registers, ") else n for n in CASES]
)
def test_chain(name: str) -> None:
    case = CASES[name]
    spec, rng = chain(case), np.random.default_rng(0)
    lowered = lower(spec, WEIGHTS)
    assert sum(len(call.reads) for call in lowered.calls[:2]) == (4 if case.norm else 2)
    (made,) = (k.source for k in lowered.kernels if k.name.startswith("conv_chain"))
    assert ("_sums(" in made) == case.norm
    for n in (1, 3, 0):
        shapes = {
            "x": (n, *case.size, case.inputs), "mix": (case.channels, case.inputs),
            "windows": (case.channels, *case.kernel),
            "residual": (case.channels,) if case.norm else (n, *case.size, case.channels),
            "bias": (case.channels,), "y": (n, *case.out_size, case.channels),
        }  # fmt: skip
        compare(spec, lowered, {k: rng.standard_normal(s).astype(case.dtype.numpy) for k, s in shapes.items()}, n)


def compare(spec: KernelSpec, lowered: Lowered, arrays: dict[str, np.ndarray], n: int) -> None:
    """What the kernels make of ``n`` images is what the definition makes of them."""
    dtype = spec.writes[0].dtype
    buffers = [Buffer(k, "temp", dtype, a.size) for k, a in arrays.items()]
    memory = Memory(buffers, {"B": n}, {k: a.copy() for k, a in arrays.items()})
    scheduled.execute(spec, memory)
    for splits in (1, 3):
        arrays["y"].fill(np.nan)
        run(lowered, arrays, {"B": n}, splits)
        wanted = memory.arrays["y"].reshape(arrays["y"].shape)
        tolerance = 1e-12 if dtype == dtypes.f64 else 1e-5
        np.testing.assert_allclose(arrays["y"], wanted, rtol=tolerance, atol=tolerance)


SEPARABLE = {
    "small": Case((7, 9), 20, 24),
    "a panel and a half, in strips": Case((40, 37), 32, 48, stride=(2, 1)),
    "wide window, much padding": Case((12, 11), 16, 20, kernel=(5, 4), stride=(1, 2), padding=(2, 3)),
    "row-major image": Case((8, 8), 16, 16, channels_last=False),
    "f64": Case((6, 7), 5, 24, dtype=dtypes.f64),
    "wider than a task": Case((6, 150), 16, 8),
}


def separable(case: Case) -> KernelSpec:
    """A window over each of the inputs, then channels of single pixels. A row of numbers is added between them."""
    spec = chain(case)
    core, (dtype, inputs) = spec.core, (case.dtype, case.inputs)
    assert isinstance(core, ConvChain)
    taps = case.kernel[0] * case.kernel[1]
    window = Access("windows", dtype, elements((1, 1, *case.kernel)))
    source = replace(core.last, x=core.source.x, w=window, in_channels=inputs, out_channels=inputs, groups=inputs,
                     w_group=taps)  # fmt: skip
    last = replace(core.source, x=core.last.x, in_size=case.out_size, out_size=case.out_size)
    return replace(spec, core=ConvChain(source, core.inner, last))


@pytest.mark.slow
@pytest.mark.parametrize("name", SEPARABLE)
def test_separable(name: str) -> None:
    case = replace(SEPARABLE[name], norm=True)
    spec, rng = separable(case), np.random.default_rng(0)
    lowered = lower(spec, WEIGHTS if case.padding == (1, 1) else ())
    assert any(k.name.startswith("conv_separable") for k in lowered.kernels)
    for n in (1, 3, 0):
        shapes = {
            "x": (n, *case.size, case.inputs), "mix": (case.channels, case.inputs),
            "windows": (case.inputs, *case.kernel), "residual": (case.inputs,), "bias": (case.channels,),
            "y": (n, *case.out_size, case.channels),
        }  # fmt: skip
        compare(spec, lowered, {k: rng.standard_normal(s).astype(case.dtype.numpy) for k, s in shapes.items()}, n)


class Block(nn.Module):
    def __init__(self, groups: int = 12, kernel: int = 3, dilation: int = 1, keep: bool = False) -> None:
        super().__init__()
        self.widen = nn.Conv2d(4, 12, 1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.window = nn.Conv2d(12, 12, kernel, padding="same", dilation=dilation, groups=groups)
        self.keep = keep

    def forward(self, x):  # type: ignore[no-untyped-def]
        wide = self.norm(self.widen(x)).relu()
        y = self.window(wide)
        return y + wide if self.keep else y


def chains(module: nn.Module, **options: object) -> int:
    exe = tn.compile(module.eval(), tn.spec("B", 4, 9, 8), **options)
    return sum(isinstance(getattr(k, "core", None), ConvChain) for k in exe.stages["schedule"].kernels)


def test_pointwise_and_depthwise_are_one_kernel() -> None:
    module = Block()
    x = np.random.default_rng(1).standard_normal((2, 4, 9, 8)).astype(np.float32)
    exe = tn.compile(module.eval(), tn.spec("B", 4, 9, 8))
    plain = tn.compile(module.eval(), tn.spec("B", 4, 9, 8), level=0)
    np.testing.assert_allclose(exe(x), plain(x), rtol=1e-4, atol=1e-5)
    assert chains(module) == 1
    packs = [call for call in exe.program.prepare if call.label.startswith("pack")]
    assert sorted(len(call.reads) for call in packs) == [1, 2]


@pytest.mark.parametrize(
    "module",
    [Block(groups=3), Block(kernel=7), Block(dilation=2), Block(keep=True)],
    ids=["not depthwise", "too many taps", "dilated", "read elsewhere"],
)
def test_what_is_no_chain(module: Block) -> None:
    assert chains(module) == 0


class Separable(nn.Module):
    def __init__(self, channels: int = 12, outputs: int = 8, stride: int = 1) -> None:
        super().__init__()
        self.window = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.mix = nn.Conv2d(channels, outputs, 1, stride=stride)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.mix(self.norm(self.window(x)).relu())


@pytest.mark.slow
def test_depthwise_and_pointwise_are_one_kernel() -> None:
    module, spec = Separable(4).eval(), tn.spec("B", 4, 9, 8)
    x = np.random.default_rng(1).standard_normal((2, 4, 9, 8)).astype(np.float32)
    exe, plain = tn.compile(module, spec), tn.compile(module, spec, level=0)
    np.testing.assert_allclose(exe(x), plain(x), rtol=1e-4, atol=1e-5)
    assert chains(module) == 1
    assert chains(Separable(4, stride=2)) == 0
    assert chains(Separable(4, outputs=1 << 14)) == 0


def test_without_fusion_there_are_no_chains() -> None:
    assert chains(Block(), level=1) == 0

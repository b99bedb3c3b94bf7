"""Mean and variance that a convolution takes of what it makes, against a schedule run on NumPy and PyTorch's norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from compiled import check, program
from conv_cases import CASES, F32, B, Case, convolution
from graph_tools import trace
from kernel_harness import run

import tenon as tn
from engine import dtypes, scheduled
from engine.buffers import Buffer
from engine.graph import TensorType, Value, apply
from engine.schedule import Access, KernelSpec, Stmt
from runtime.cpu.conv_direct import lower_conv2d
from runtime.cpu.lower import lower
from tenon import nn

_OF_CHANNELS = (0, 0, 0, 1)
_BODY = (
    Stmt("v", "core", (0,), F32),
    Stmt("y", "store", (0, "v"), F32),
    Stmt("m", "reduce_mean", ("v",), F32),
    Stmt("s", "reduce_variance", ("v",), F32),
    Stmt("r", "load", (0,), F32),
    Stmt("d", "sub", ("m", "r"), F32),
    Stmt("k", "const", (0.25,), F32),
    Stmt("e", "mul", ("d", "k"), F32),
    Stmt("n", "add", ("r", "e"), F32),
    Stmt("mean", "store", (1, "m"), F32),
    Stmt("variance", "store", (2, "s"), F32),
    Stmt("running", "store", (3, "n"), F32),
)
"""A convolution, its mean and variance, and a running mean that moves by a quarter."""


def measured(case: Case) -> KernelSpec:
    channels = case.channels[1]
    writes = [Access(name, F32, _OF_CHANNELS) for name in ("mean", "variance", "running")]
    y = Access("y", F32, case.strides(case.out_size, channels))
    return KernelSpec("conv", (B, *case.out_size, channels), (Access("running", F32, _OF_CHANNELS),), (y, *writes),
                      _BODY, convolution(case), (0, 1, 2))  # fmt: skip


def arrays(case: Case, images: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    channels = case.channels[1]
    stored = case.image(rng, images, case.size, case.channels[0])[0]
    weights = (rng.standard_normal(case.weight_shape) / np.sqrt(np.prod(case.weight_shape[1:]))).astype(np.float32)
    return {
        "x": stored, "w": weights, "y": case.empty(images, case.out_size, channels)[0],
        "mean": np.full(channels, np.nan, "f4"), "variance": np.full(channels, np.nan, "f4"),
        "running": np.arange(channels, dtype="f4"),
    }  # fmt: skip


def expected(spec: KernelSpec, given: Mapping[str, np.ndarray], images: int) -> dict[str, np.ndarray]:
    buffers = [Buffer(name, "temp", dtypes.as_dtype(a.dtype), a.size) for name, a in given.items()]
    memory = scheduled.Memory(buffers, {"B": images}, given)
    scheduled.execute(spec, memory)
    return {name: memory.arrays[name].reshape(a.shape) for name, a in given.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["the CNN's second", "three channels, stride 2", "small, strided", "many channels", "wide", "rows", "four pixels"],
)
def test_moments_are_those_of_the_schedule(name: str) -> None:
    case = CASES[name]
    spec = measured(case)
    for images in (1, 3, 5, 70):
        given = arrays(case, images)
        wanted = expected(spec, given, images)
        for way in (lower, lower_conv2d):
            results = []
            for splits in (1, 2, 7):
                found = {k: a.copy() for k, a in given.items()}
                run(way(spec), found, {"B": images}, splits)
                results.append(found)
            for key in ("y", "mean", "variance", "running"):
                np.testing.assert_allclose(results[0][key], wanted[key], rtol=2e-5, atol=2e-5, err_msg=key)
                for other in results[1:]:
                    np.testing.assert_array_equal(other[key], results[0][key], err_msg=key)


@pytest.mark.slow
def test_statistics_alone_need_no_result() -> None:
    case = CASES["the CNN's second"]
    spec = measured(case)
    given = arrays(case, 5)
    wanted = expected(spec, given, 5)
    spec = replace(spec, writes=spec.writes[1:2], body=(*_BODY[:1], _BODY[2], Stmt("mean", "store", (0, "m"), F32)))
    run(lower(spec), given, {"B": 5}, 2)
    np.testing.assert_allclose(given["mean"], wanted["mean"], rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [False, True])
def test_under_a_condition_that_the_convolution_is_not_under_moments_are_a_reduction(guarded: bool) -> None:
    def moments(x: Value, w: Value, bias: Value, taken: Value) -> list[Value]:
        image = apply("conv2d", x, w, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1) + bias
        found = apply("moments", image, axes=(0, 2, 3))
        return [image, *(apply("merge", taken, v, bias) if guarded else v for v in found)]

    shapes = (("B", 8, 14, 14), (24, 8, 3, 3), (1, 24, 1, 1))
    types = [TensorType(tuple(B if n == "B" else n for n in shape), F32) for shape in shapes]
    graph = trace(moments, *types, TensorType((), dtypes.bool_))
    labels = [call.label for call in program(graph).main]
    assert any(label.endswith(" moments") for label in labels) != guarded
    rng = np.random.default_rng(0)
    arrays = {
        f"x{i}": rng.standard_normal([5 if n == "B" else n for n in s]).astype("f4") for i, s in enumerate(shapes)
    }
    check(graph, [arrays | {"x3": np.array(taken)} for taken in (True, False)])


class Net(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        return self.bn(self.conv(x)).relu()


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize(
    ("size", "channels", "kernel", "stride", "bias"),
    [(16, (8, 32), 3, 1, False), (33, (3, 40), 7, 2, False), (13, (9, 130), 3, 2, True), (12, (16, 64), 1, 1, False)],
)
def test_running_statistics_are_those_of_pytorch(size, channels, kernel, stride, bias, mean):  # type: ignore[no-untyped-def]
    """Where results lie far from zero too: the mean of all is ``mean``, their deviation 1."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    net = Net(*channels, kernel, stride, bias)
    ours = tn.compile(net.train(), tn.spec("B", channels[0], size, size))
    assert any(call.label.endswith(" moments") for call in ours.program.main) == (kernel > 1)
    theirs = torch.nn.ModuleDict({
        "conv": torch.nn.Conv2d(*channels, kernel, stride, kernel // 2, bias=bias),
        "bn": torch.nn.BatchNorm2d(channels[1]),
    }).double().train()  # fmt: skip
    weights = rng.standard_normal((channels[1], channels[0], kernel, kernel)) / np.sqrt(channels[0] * kernel**2)
    # One more input channel's worth of mean, by the middle tap alone: padding never meets it.
    weights[:, 0] = 0
    weights[:, 0, kernel // 2, kernel // 2] = 1
    state = {k: np.asarray(v) for k, v in net.state_dict().items()} | {"conv.weight": weights.astype("f4")}
    net.load_state_dict(state)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    for images in (2, 9):
        x = rng.standard_normal((images, channels[0], size, size)).astype("f4")
        x[:, 0] += mean
        y = np.asarray(ours(x))
        z = theirs["bn"](theirs["conv"](torch.tensor(x).double())).relu().detach().numpy()
        scale = max(mean * 2e-6, 2e-5)
        np.testing.assert_allclose(y, z, rtol=1e-4, atol=scale * 2)
        for name in ("running_mean", "running_var"):
            found, wanted = np.asarray(net.state_dict()[f"bn.{name}"]), getattr(theirs["bn"], name).numpy()
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=scale, err_msg=name)

"""The single operations that :mod:`benchmarks.sweeps` measures, and at which sizes: float32, in layouts of PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.models import Given


@dataclass(frozen=True)
class Op:
    """An operation of a kind that every engine knows, on inputs of these shapes; ``flops`` counts multiply-adds twice.

    ``bytes`` are those of inputs and result, each once.
    """

    name: str
    kind: str
    inputs: tuple[Given, ...]
    result: tuple[int, ...]
    flops: int = 0
    options: Mapping[str, object] = field(default_factory=dict)

    def arrays(self) -> list[np.ndarray]:
        return [given.array(seed) for seed, given in enumerate(self.inputs, 1)]

    @property
    def bytes(self) -> int:
        sizes = [int(np.prod(g.shape)) * (8 if g.below else 4) for g in self.inputs]
        return sum(sizes) + 4 * int(np.prod(self.result))


def _matmuls() -> Iterator[Op]:
    """``m x k`` by ``k x n``; the letters say which operand is read transposed, as BLAS has it."""
    for m, n, k in (
        (6, 512, 512), (32, 512, 512), (64, 3072, 768), (128, 128, 784), (128, 768, 3072), (256, 256, 256),
        (512, 512, 512), (1024, 256, 1024), (1024, 1024, 256), (1024, 1024, 1024), (2048, 2048, 2048), (4096, 64, 512),
    ):  # fmt: skip
        yield _matmul("NN", m, n, k)
    for m, n, k in ((128, 768, 768), (512, 512, 512), (1024, 1024, 1024)):
        yield _matmul("NT", m, n, k)
    for m, n, k in ((784, 128, 128), (512, 512, 512), (1024, 1024, 1024)):
        yield _matmul("TN", m, n, k)
    for b, m, n, k in ((32, 128, 128, 64), (64, 128, 64, 128)):
        yield _matmul("NN", m, n, k, b)


def _matmul(letters: str, m: int, n: int, k: int, batch: int = 0) -> Op:
    stack = (batch,) if batch else ()
    left = (k, m) if letters[0] == "T" else (m, k)
    right = (n, k) if letters[1] == "T" else (k, n)
    name = f"matmul:{letters}:{f'{batch}x' if batch else ''}{m}x{n}x{k}"
    inputs = (Given((*stack, *left)), Given((*stack, *right)))
    flops = 2 * m * n * k * max(batch, 1)
    return Op(name, "matmul", inputs, (*stack, m, n), flops, {"left": letters[0] == "T", "right": letters[1] == "T"})


LAYERS = {
    "vgg": (1, [(3, 64, 224, 3, 1), (64, 64, 224, 3, 1), (64, 128, 112, 3, 1), (128, 256, 56, 3, 1),
                (256, 512, 28, 3, 1), (512, 512, 14, 3, 1)]),
    "resnet50": (4, [(3, 64, 224, 7, 2), (64, 64, 56, 1, 1), (64, 64, 56, 3, 1), (64, 256, 56, 1, 1),
                     (256, 128, 56, 1, 1), (128, 128, 56, 3, 2), (128, 128, 28, 3, 1), (128, 512, 28, 1, 1),
                     (256, 512, 56, 1, 2), (256, 256, 14, 3, 1), (256, 1024, 14, 1, 1), (1024, 512, 14, 1, 1),
                     (512, 512, 7, 3, 1), (512, 2048, 7, 1, 1)]),
}  # fmt: skip
"""Layers of Simonyan and Zisserman (2014) and of He et al. (2015): the batch, and for each layer its input channels,
output channels, input height, kernel and stride."""

DEPTHWISE = ((32, 112, 3, 1), (144, 56, 3, 2), (192, 28, 3, 1), (576, 14, 3, 1), (960, 7, 3, 1))
"""Layers of Sandler et al. (2018): channels, input height, kernel and stride."""


GROUPED = ((128, 128, 56, 32, 1), (128, 128, 56, 64, 1), (256, 256, 56, 32, 2), (256, 256, 28, 32, 1),
           (64, 128, 56, 64, 1))  # fmt: skip
"""Layers in the manner of Xie et al. (2017), windows of 3x3: input channels, output channels, input height, groups and
stride. The last gives two channels for each of its own."""


def _convolutions() -> Iterator[Op]:
    for kind in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
        for net, (batch, layers) in LAYERS.items():
            for inputs, outputs, size, kernel, stride in layers:
                yield _convolution(kind, kind, net, batch, inputs, outputs, size, kernel, stride, 1)
    for kind in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
        for channels, size, kernel, stride in DEPTHWISE:
            family = kind.replace("conv2d", "depthwise")
            yield _convolution(family, kind, "mobile", 4, channels, channels, size, kernel, stride, channels)
        for inputs, outputs, size, groups, stride in GROUPED:
            family = kind.replace("conv2d", "grouped")
            yield _convolution(family, kind, f"g{groups}", 4, inputs, outputs, size, 3, stride, groups)


def _convolution(
    family: str, kind: str, net: str, n: int, c: int, o: int, size: int, kernel: int, stride: int, groups: int
) -> Op:
    out = (size + 2 * (kernel // 2) - kernel) // stride + 1
    x, w, y = (n, c, size, size), (o, c // groups, kernel, kernel), (n, o, out, out)
    shapes = {"conv2d": (x, w, y), "conv2d_input_grad": (y, w, x), "conv2d_weight_grad": (x, y, w)}[kind]
    options = {"stride": stride, "padding": kernel // 2, "groups": groups, "result": shapes[2]}
    flops = 2 * n * o * out * out * kernel * kernel * (c // groups)
    name = f"{family}:{net}:{c}-{o}x{size}k{kernel}s{stride}"
    return Op(name, kind, (Given(shapes[0]), Given(shapes[1])), shapes[2], flops, options)


def _loops() -> Iterator[Op]:
    for rows, columns in ((256, 64), (4096, 128), (1024, 1000), (256, 32768)):
        x = Given((rows, columns))
        size = f"{rows}x{columns}"
        yield Op(f"softmax:{size}", "softmax", (x,), x.shape)
        yield Op(f"softmax:grad:{size}", "softmax_grad", (x, x), x.shape)
        yield Op(f"cross_entropy:{size}", "cross_entropy", (x, Given((rows,), columns)), x.shape)
    for rows, columns in ((1024, 128), (4096, 256), (1024, 768), (512, 4096)):
        x, w = Given((rows, columns)), Given((columns,))
        yield Op(f"layer_norm:{rows}x{columns}", "layer_norm", (x, w, w), x.shape)
        yield Op(f"layer_norm:grad:{rows}x{columns}", "layer_norm_grad", (x, w, w, x), x.shape)
    for size in (1 << 14, 1 << 18, 1 << 22):
        x = Given((size,))
        for chain in ("multiply-add", "gelu", "tanh-sigmoid", "exp-log"):
            yield Op(f"chain:{chain}:{size}", "chain", (x, x), x.shape, options={"chain": chain})
    parameters = Given((10, 1_000_000))
    yield Op("adam:10M", "adam", (parameters, parameters), (5, *parameters.shape))  # p, m and v written, m and v read


OPS = {op.name: op for op in (*_matmuls(), *_convolutions(), *_loops())}

"""Convolution, pooling, padding and images beyond what PyTorch's parity shows: sizes of images that are not known yet,
errors that say what was wrong, representations, and graphs that do not grow with the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tenon as tn
from engine.errors import DTypeError, ShapeError, TenonError, UnsupportedError
from tenon import F, nn

rng = np.random.default_rng(5)
IMAGE, VOLUME = (2, 3, 8, 10), (2, 3, 5, 6, 7)
W2, W3 = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(4, 3, 3, 3, 3))
T2, T3 = W2.transpose(1, 0, 2, 3), W3.transpose(1, 0, 2, 3, 4)
GRID = rng.uniform(-1.3, 1.3, (2, 4, 5, 2))

FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "conv2d": (lambda x: F.conv2d(x, tn.tensor(W2), stride=2, padding=1), IMAGE),
    "conv2d same": (lambda x: F.conv2d(x, tn.tensor(W2), padding="same", dilation=2), IMAGE),
    "conv3d": (lambda x: F.conv3d(x, tn.tensor(W3), stride=2, padding=1), VOLUME),
    "conv_transpose2d": (lambda x: F.conv_transpose2d(x, tn.tensor(T2), stride=2, output_padding=1), IMAGE),
    "conv_transpose3d": (lambda x: F.conv_transpose3d(x, tn.tensor(T3), stride=2, padding=1), VOLUME),
    "unfold": (lambda x: F.unfold(x, 2, stride=2), IMAGE),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), IMAGE),
    "max_pool2d long": (lambda x: F.max_pool2d(x, (300, 1), 5), (1, 1, 310, 2)),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2, 1, 1), VOLUME),
    "max_unpool2d": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), IMAGE),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3), IMAGE),
    "avg_pool2d overlapping": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE),
    "lp_pool2d": (lambda x: F.lp_pool2d(x, 2, 2), IMAGE),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (1, None)), IMAGE),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, 1), IMAGE),
    **{f"pad {m}": (lambda x, m=m: F.pad(x, (1, 2, 3, 0), m), IMAGE) for m in ("reflect", "replicate", "circular")},
    **{
        f"interpolate {m} {s}": (lambda x, m=m, s=s: F.interpolate(x, scale_factor=s, mode=m), IMAGE)
        for m in ("nearest", "nearest-exact", "bilinear", "bicubic")
        for s in (2, 0.5, 1.3)
    },
    "interpolate to a size": (lambda x: F.interpolate(x, (7, 5), mode="bilinear"), IMAGE),
    "interpolate aligned": (lambda x: F.interpolate(x, (7, 1), mode="bicubic", align_corners=True), IMAGE),
    "interpolate like another": (lambda x: F.interpolate(x[:, :, ::2, ::2], x.shape[2:], mode="bilinear"), IMAGE),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2), IMAGE),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 3), IMAGE),
    **{f"grid_sample {p}": (lambda x, p=p: F.grid_sample(x, tn.tensor(GRID), padding_mode=p), IMAGE)
       for p in ("zeros", "border", "reflection")},
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_image_sizes_may_be_symbolic(name: str) -> None:
    function, shape = FUNCTIONS[name]
    x = rng.normal(size=shape)
    batch = shape[0] if name.startswith("grid_sample") else "B"
    space = ["D", "H", "W"][-(len(shape) - 2) :]

    def slope(x: Any) -> Any:
        return tn.grad(lambda x: (function(x) ** 2).sum())(x)

    for what in (function, slope):
        fixed, free = (
            tn.compile(what, tn.spec(*sizes, dtype="f64"), target="reference")(x)
            for sizes in (shape, (batch, shape[1], *space))
        )
        assert fixed.shape == free.shape
        np.testing.assert_allclose(free, fixed, rtol=1e-9, atol=1e-9)


def test_the_same_program_takes_images_of_any_size() -> None:
    def network(x: Any) -> Any:
        fine = F.conv2d(x, tn.tensor(W2), padding="same")
        return F.interpolate(F.avg_pool2d(fine, 2), scale_factor=2, mode="bilinear")

    program = tn.compile(network, tn.spec("B", 3, "H", "W", dtype="f64"), target="reference")
    for size in ((4, 6), (9, 5)):
        x = rng.normal(size=(1, 3, *size))
        expected = tn.compile(network, tn.spec(*x.shape, dtype="f64"), target="reference")(x)
        np.testing.assert_allclose(program(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("do", "error", "message"),
    [
        (lambda x: F.conv2d(x.long(), x.long()), DTypeError, "conv2d takes floating point tensors, not i64"),
        (lambda x: F.conv1d(x, x), ShapeError, r"conv1d takes \(N, C, L\) or \(C, L\), not shape \(2, 3, 8, 10\)"),
        (lambda x: F.conv2d(x, x[0]), ShapeError, r"conv2d: the weight must be \(O, C / groups, KH, KW\)"),
        (lambda x: F.conv2d(x, x[:, :2]), ShapeError, "conv2d: the input has 3 channels, and the weight expects 2"),
        (lambda x: F.conv2d(x, x, stride=(1, 2, 3)), ShapeError, "conv2d: stride must be an integer or 2 of them"),
        (lambda x: F.conv2d(x, x, padding="full"), TenonError, "padding must be numbers, \"same\" or \"valid\""),
        (lambda x: F.conv2d(x, x, padding="same", stride=2), TenonError, "needs a stride of 1"),
        (lambda x: F.conv3d(x.unsqueeze(4), tn.tensor(np.ones((2, 3, 9, 1, 1)))), ShapeError,
         "conv3d: a window of 9 does not fit an axis of 8"),
        (lambda x: F.conv_transpose2d(x, x), ShapeError, "the input has 3 channels, and the weight expects 2"),
        (lambda x: F.conv_transpose2d(x[:, :2], x, output_padding=1), ShapeError, "output_padding .* less than stride"),
        (lambda x: F.fold(x[0], 4, 3), ShapeError, r"fold: \(N, C \* 9, 4\) was expected for an image of \(4, 4\)"),
        (lambda x: F.max_pool3d(x, 9), ShapeError, "max_pool3d: a window of 9 does not fit an axis of 3"),
        (lambda x: F.max_pool2d(x, 3, padding=2), ShapeError, "padding between 0 and half the kernel"),
        (lambda x: F.max_pool2d(x > 0, 2), DTypeError, "max_pool2d takes numbers, not bool"),
        (lambda x: F.avg_pool2d(x.long(), 2), DTypeError, "avg_pool2d takes floating point tensors"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=0), ShapeError, "divisor_override must not be 0"),
        (lambda x: F.adaptive_avg_pool2d(x, 0), ShapeError, "output_size must be a positive integer"),
        (lambda x: F.max_unpool2d(x, x.long(), 2, output_size=(99, 99)), ShapeError, "output_size must be within"),
        (lambda x: F.pad(x, (1,)), ShapeError, "two numbers an axis"),
        (lambda x: F.pad(x, (1, 1), "mirror"), TenonError, "the mode must be one of constant, reflect"),
        (lambda x: F.pad(x, (10, 0), "reflect"), ShapeError, r"must have at least 11 elements to reflect 10"),
        (lambda x: F.pad(x, (11, 0), "circular"), ShapeError, "must have at least 11 elements to wrap 11 round"),
        (lambda x: F.interpolate(x, 2, mode="linear"), TenonError, "'linear' is no mode for shape .*bilinear, bicubic"),
        (lambda x: F.interpolate(x, 2, 2), TenonError, "either size or scale_factor"),
        (lambda x: F.interpolate(x, 2, mode="bilinear", antialias=True), UnsupportedError, "antialias"),
        (lambda x: F.interpolate(x, 2, align_corners=True), TenonError, "align_corners has no meaning"),
        (lambda x: F.interpolate(x.long(), 2, mode="bicubic"), DTypeError, "takes floating point tensors, not i64"),
        (lambda x: F.interpolate(x[:, :, :0], 2), ShapeError, "must have elements along each axis"),
        (lambda x: F.pixel_shuffle(x, 2), ShapeError, r"3 channels are no multiple of 2 \* 2"),
        (lambda x: F.pixel_unshuffle(x, 3), ShapeError, "8 x 10 does not divide by 3"),
        (lambda x: F.channel_shuffle(x, 2), ShapeError, "split into 2 groups"),
        (lambda x: F.grid_sample(x, x), ShapeError, "grid_sample takes"),
        (lambda x: F.grid_sample(x, x[..., :2], padding_mode="mirror"), TenonError, "padding_mode must be one of"),
        (lambda x: F.affine_grid(x[0], x.shape), ShapeError, r"affine_grid takes matrices \(N, 2, 3\)"),
        (lambda x: nn.Conv2d(3, 4, 3, padding_mode="mirror"), TenonError, "padding_mode must be one of zeros"),
        (lambda x: nn.ConvTranspose2d(3, 4, 3, stride=2)(x, (99, 99)), ShapeError, r"between \(17, 21\) and"),
        (lambda x: nn.ReflectionPad2d((1, 2)), ShapeError, "an integer or 4 of them"),
        (lambda x: nn.ReflectionPad1d(1)(x), ShapeError, r"ReflectionPad1d takes \(N, C, L\)"),
    ],
)  # fmt: skip
def test_errors_say_what_was_wrong(do: Callable[..., Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        do(tn.tensor(rng.normal(size=IMAGE)))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_graphs_do_not_grow_with_the_image(mode: str) -> None:
    def nodes(size: int) -> int:
        def resized(x: Any) -> Any:
            return F.adaptive_avg_pool2d(F.interpolate(x, (size, size), mode=mode), 3)

        return len(tn.compile(resized, tn.spec("B", 3, 7, 7), target="reference").stages["trace"].nodes)

    assert nodes(11) == nodes(64) <= 40


MODULES: list[Callable[[Any], Any]] = [
    lambda m: m.Conv1d(2, 4, 3, padding="same"),
    lambda m: m.Conv2d(2, 4, (3, 2), 2, 1, 2, 2, bias=False, padding_mode="reflect"),
    lambda m: m.ConvTranspose3d(2, 4, 3, 2, 1, 1, dilation=2),
    lambda m: m.Unfold(2, padding=1),
    lambda m: m.Fold((4, 5), 2),
    lambda m: m.MaxPool3d(2, ceil_mode=True),
    lambda m: m.MaxUnpool2d(2, 3),
    lambda m: m.AvgPool1d(3),
    lambda m: m.AvgPool2d(3, padding=1),
    lambda m: m.LPPool2d(2, 3),
    lambda m: m.AdaptiveAvgPool2d((None, 3)),
    lambda m: m.AdaptiveMaxPool1d(3),
    lambda m: m.ReflectionPad2d(2),
    lambda m: m.ConstantPad1d((1, 2), 3.5),
    lambda m: m.ZeroPad2d(1),
    lambda m: m.CircularPad3d(1),
    lambda m: m.Upsample(scale_factor=2, mode="bilinear"),
    lambda m: m.UpsamplingNearest2d(size=(4, 5)),
    lambda m: m.PixelShuffle(2),
    lambda m: m.PixelUnshuffle(2),
    lambda m: m.ChannelShuffle(2),
]


@pytest.mark.parametrize("make", MODULES)
def test_modules_read_as_in_pytorch(make: Callable[[Any], Any]) -> None:
    torch = pytest.importorskip("torch")
    assert repr(make(nn)) == repr(make(torch.nn))

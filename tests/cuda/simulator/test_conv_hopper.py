"""Convolutions by TMA and wgmma in the simulator beside the reference: windows, groups, edges; what a fault does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conv_cases import Case
from convolution_cases import BF16, F32, forward, input_gradient, weight_gradient
from cuda_harness import Case as Kernel
from cuda_harness import compare, reference, simulate

from engine.errors import TenonError
from engine.program import Lowered
from runtime.cuda import conv
from runtime.cuda.conv_hopper import hopper_convolution, hopper_weight_grad
from runtime.cuda.hopper import TILES, HopperTile
from runtime.cuda.hopper_single import EXACT_TILES, TURNED_TILES
from runtime.cuda.lower import lower

RAGGED = Case((5, 6), (24, 72), kernel=(3, 1), padding=(1, 0))
STRIDED = Case((11, 9), (72, 16), (3, 2), (2, 1), padding=(1, 1))
DILATED_GROUPS = Case((6, 5), (128, 32), (2, 2), dilation=(2, 3), padding=(2, 1), groups=2)
FEW_CHANNELS = Case((7, 5), (8, 16), padding=(2, 0))


def on_hopper(monkeypatch: pytest.MonkeyPatch, case: Kernel, tile: HopperTile, blocks: int = 2) -> Lowered:
    """The case lowered for Hopper with this tile, whether or not it pays at such a size."""
    monkeypatch.setattr(conv, "convolution_tile", lambda *given: tile)
    monkeypatch.setattr(conv, "hopper_convolution", lambda *given: hopper_convolution(*given, blocks))
    monkeypatch.setattr(conv, "weight_grad_way", lambda *given: (tile, 2))
    monkeypatch.setattr(conv, "hopper_weight_grad", lambda *given: hopper_weight_grad(*given, blocks))
    lowered = lower(case.spec, (), "sm_90a")
    assert any("_hopper_" in kernel.name for kernel in lowered.kernels)
    return lowered


def check(case: Kernel, lowered: Lowered, order: int) -> None:
    arrays = {name: a.copy() for name, a in case.arrays.items()}
    conflicts = simulate(lowered, arrays, case.values, order)
    compare(case, arrays, reference(case))
    names = {k.key: k.name for k in lowered.kernels}
    for call, counted in zip(lowered.calls, conflicts, strict=True):
        assert "_hopper_" not in names[call.kernel] or sum(counted.extra.values()) == 0


CASES = [
    (forward("ragged", RAGGED, BF16), 1), (forward("strided", STRIDED, BF16), 2),
    (forward("dilated groups", DILATED_GROUPS, BF16), 2), (forward("few channels", FEW_CHANNELS, BF16), 2),
    (input_gradient("ragged dx", RAGGED, BF16), 2), (input_gradient("dilated groups dx", DILATED_GROUPS, BF16), 2),
    (weight_gradient("ragged dw", RAGGED, BF16), 1), (weight_gradient("strided dw", STRIDED, BF16), 2),
    (weight_gradient("dilated groups dw", DILATED_GROUPS, BF16), 2),
    (weight_gradient("few channels dw", FEW_CHANNELS, BF16), 2),
]  # fmt: skip


@pytest.mark.parametrize("case, tile", CASES, ids=[case.name for case, _ in CASES])
def test_it_does_what_its_spec_says(case: Kernel, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    order = [c.name for c, _ in CASES].index(case.name) % 3
    check(case, on_hopper(monkeypatch, case, TILES[tile]), order)


@pytest.mark.parametrize("case, tile", [
    (forward("bf16", Case((4, 5), (10, 16)), BF16), TILES[2]),
    (forward("float32", Case((4, 5), (6, 16), (3, 1), padding=(1, 0)), F32), EXACT_TILES[1]),
    (input_gradient("dx", Case((4, 5), (12, 10), channels_last=False), BF16), TILES[2]),
], ids=lambda given: given.name if isinstance(given, Kernel) else "")  # fmt: skip
def test_channels_that_do_not_fill_chunks_are_padded(
    case: Kernel, tile: HopperTile, monkeypatch: pytest.MonkeyPatch
) -> None:
    lowered = on_hopper(monkeypatch, case, tile)
    assert len(lowered.calls) == 3  # copies of the image and of the weights
    check(case, lowered, 1)


@pytest.mark.parametrize("case, tile", [
    (weight_gradient("bf16", Case((4, 5), (10, 18)), BF16), TILES[2]),
    (weight_gradient("float32", Case((5, 3), (6, 9), (3, 1), (2, 1), (1, 0), channels_last=False), F32),
     EXACT_TILES[1]),
], ids=["bf16", "float32"])  # fmt: skip
def test_images_and_gradients_that_do_not_fill_chunks_are_padded(
    case: Kernel, tile: HopperTile, monkeypatch: pytest.MonkeyPatch
) -> None:
    lowered = on_hopper(monkeypatch, case, tile)
    assert [call.label for call in lowered.calls[:2]] == ["weight_grad image", "weight_grad gradient"]
    check(case, lowered, 1)


def test_only_the_gradient_is_padded_where_groups_fill_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    case = weight_gradient("groups", Case((4, 5), (128, 42), (1, 2), groups=2), BF16)
    lowered = on_hopper(monkeypatch, case, TILES[2])
    assert [call.label for call in lowered.calls].count("weight_grad gradient") == 1
    assert len(lowered.calls) == 3
    check(case, lowered, 2)


def test_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(forward("tf32", Case((5, 4), (36, 16)), F32), tolerance=4e-3)
    case = replace(case, spec=replace(case.spec, products="high"))
    check(case, on_hopper(monkeypatch, case, TILES[2]), 1)


FLOAT32 = [
    (forward("float32", Case((5, 4), (36, 16)), F32), EXACT_TILES[1]),
    (weight_gradient("float32 dw", Case((4, 5), (12, 40), (2, 1), padding=(1, 0)), F32), EXACT_TILES[1]),
    (weight_gradient("float32 groups dw", Case((6, 5), (64, 32), (2, 2), (1, 2), groups=2), F32), EXACT_TILES[0]),
]  # fmt: skip


@pytest.mark.parametrize("case, tile", FLOAT32, ids=[case.name for case, _ in FLOAT32])
def test_float32(case: Kernel, tile: HopperTile, monkeypatch: pytest.MonkeyPatch) -> None:
    check(case, on_hopper(monkeypatch, case, tile), 2)


def test_a_weight_gradient_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(weight_gradient("tf32 dw", Case((5, 4), (12, 40)), F32), tolerance=4e-3)
    case = replace(case, spec=replace(case.spec, products="high"))
    check(case, on_hopper(monkeypatch, case, TURNED_TILES[1]), 1)


def names(case: Kernel, **changed: object) -> list[str]:
    return [k.name.removesuffix("_kernel") for k in lower(replace(case.spec, **changed), (), "sm_90a").kernels]


def test_hopper_is_chosen_where_it_can_and_pays() -> None:
    large, odd = Case((56, 56), (64, 64)), Case((224, 224), (3, 64), (7, 7), (2, 2))
    assert "conv2d_hopper_bf16" in names(forward("", large, BF16))
    assert "conv2d_hopper_bf16" in names(input_gradient("", large, BF16))
    assert "conv_weight_grad_hopper_bf16" in names(weight_gradient("", large, BF16))
    assert "conv2d_bf16" in names(forward("", odd, BF16))
    for channels, kernel in ((126, "conv2d_hopper_bf16"), (36, "conv2d_hopper_bf16"), (12, "conv2d_bf16")):
        found = names(forward("", Case((28, 28), (channels, 256)), BF16))
        assert found == [*(["conv_image"] if "hopper" in kernel else []), "conv_weights", kernel]
    assert "conv_weight_grad_bf16" in names(weight_gradient("", odd, BF16))
    for channels, copied in (
        ((126, 256), ["weight_grad_image"]), ((256, 126), ["weight_grad_gradient"]),
        ((126, 126), ["weight_grad_image", "weight_grad_gradient"]), ((12, 256), None), ((18, 18), None),
    ):  # fmt: skip
        found = names(weight_gradient("", Case((28, 28), channels), BF16))
        kernel = "conv_weight_grad_hopper_bf16" if copied else "conv_weight_grad_bf16"
        assert found == [*(copied or ()), kernel, "weight_grad"]
    assert "conv2d_hopper_f32" in names(forward("", large, F32))
    assert "conv2d_hopper_f32" in names(forward("", large, F32), products="high")
    assert "conv2d_f32" in names(forward("", large, F32), products="medium")
    deep = Case((56, 56), (64, 256))
    for exactness, kernel in (("highest", "_hopper_f32"), ("high", "_hopper_f32"), ("medium", "_f32")):
        assert f"conv_weight_grad{kernel}" in names(weight_gradient("", deep, F32), products=exactness)


FAULTS = {
    "a stage is not waited for": ("        mbarrier_wait(full + 8 * slot, parity)", "        pass"),
    "a stage is filled too early": ("                mbarrier_wait(empty + 8 * slot, parity)", "                pass"),
    "the wrong tap": ("tap_row * dilation_h)", "(tap_row + 1) * dilation_h)"),
    "the wrong pixel": ("out_row * stride_h - pad_h", "out_row * stride_h"),
    "a channel too far": ("if from_channel >= inputs", "if from_channel > inputs"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = forward("dilated groups", DILATED_GROUPS, BF16)
    lowered = on_hopper(monkeypatch, case, TILES[0], 1)  # more stages than there are
    right, wrong = FAULTS[fault]
    kernel = lowered.kernels[-1]
    assert right in kernel.source
    broken = replace(kernel, source=kernel.source.replace(right, wrong))
    with pytest.raises((TenonError, AssertionError)):
        check(case, replace(lowered, kernels=(*lowered.kernels[:-1], broken)), 1)

"""Products and convolutions of sizes at which wgmma pays, where the GPU has it: what it makes of them is the CPU's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import tenon as tn
from engine import dtypes
from frontend import functional as F
from runtime.cuda.devices import properties

BF16 = dtypes.bf16.numpy
TOLERANCE, EXACT = 0.02, 1e-5
"""Of the greatest value: that of bfloat16's rounding, and of tf32's in long sums; that of float32's own."""


def image_gradients(x: tn.Tensor, w: tn.Tensor, **options: object) -> tuple[tn.Tensor, ...]:
    """A convolution and its two gradients."""

    def loss(x: tn.Tensor, w: tn.Tensor) -> tn.Tensor:
        return (F.conv2d(x, w, **options) ** 2).sum()

    return F.conv2d(x, w, **options), *tn.grad(loss, argnums=(0, 1))(x, w)


Case = tuple[Callable[..., object], tuple[tuple[int, ...], ...], str]
PRODUCTS: dict[str, Case] = {
    "a @ b": (lambda a, b: a @ b, ((1000, 520), (520, 1032)), "contract_hopper"),
    "a @ b.T": (lambda a, b: a @ b.T, ((1000, 520), (1032, 520)), "contract_hopper"),
    "a.T @ b": (lambda a, b: a.T @ b, ((4096, 520), (4096, 1032)), "contract_hopper"),
    "batches": (lambda a, b: a @ b, ((24, 200, 72), (24, 72, 328)), "contract_hopper"),
    "one b for all": (lambda a, b: a @ b.transpose(-1, -2), ((24, 200, 72), (328, 72)), "contract_hopper"),
    "rows that are not aligned": (lambda a, b: a @ b, ((2000, 1021), (1021, 2001)), "contract_hopper"),
}
CONVOLUTIONS: dict[str, Case] = {
    "3 x 3": (lambda x, w: image_gradients(x, w, padding=1), ((16, 48, 28, 30), (128, 48, 3, 3)), "conv2d_hopper"),
    "strided": (
        lambda x, w: image_gradients(x, w, padding=(1, 0), stride=2), ((32, 128, 29, 28), (128, 128, 3, 3)),
        "conv2d_hopper",
    ),
    "groups, dilated": (
        lambda x, w: image_gradients(x, w, padding=2, dilation=2, groups=2), ((16, 128, 28, 28), (128, 64, 3, 3)),
        "conv2d_hopper",
    ),
}  # fmt: skip


def arrays_of(shapes: tuple[tuple[int, ...], ...], dtype: np.dtype) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(dtype) for shape in shapes]


def check(case: Case, dtype: np.dtype, tolerance: float = TOLERANCE) -> None:
    function, shapes, kernel = case
    arrays = arrays_of(shapes, dtype)
    specs = [tn.spec(*a.shape, dtype="bf16" if dtype == BF16 else "f32") for a in arrays]
    expected = tn.compile(function, *specs)(*arrays)
    exe = tn.compile(function, *specs, target="cuda")
    if properties()[0].capability == (9, 0):
        assert any(k.name.startswith(kernel) for k in exe.program.kernels)
    found = exe(*arrays)
    for got, want in zip(*map(_flat, (found, expected)), strict=True):
        wide = want.astype(np.float32)
        np.testing.assert_allclose(got.astype(np.float32), wide, 0, tolerance * np.abs(wide).max())


def _flat(found: object) -> tuple[np.ndarray, ...]:
    return tuple(map(np.asarray, found)) if isinstance(found, (tuple, list)) else (np.asarray(found),)


@pytest.mark.parametrize("name", [*PRODUCTS, *CONVOLUTIONS])
def test_bfloat16(name: str) -> None:
    check((PRODUCTS | CONVOLUTIONS)[name], BF16)


@pytest.mark.parametrize("name", [*PRODUCTS, "3 x 3"])
def test_float32(name: str) -> None:
    check((PRODUCTS | CONVOLUTIONS)[name], np.dtype(np.float32), EXACT)


@pytest.fixture
def tf32() -> Iterator[None]:
    tn.set_float32_matmul_precision("high")
    yield
    tn.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("name", ["a @ b.T", "batches", "3 x 3"])
def test_tf32(name: str, tf32: None) -> None:
    check((PRODUCTS | CONVOLUTIONS)[name], np.dtype(np.float32))

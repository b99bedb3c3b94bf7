"""The functions of neural networks, with PyTorch's names, arguments and meanings. ``F`` in ``from tenon import F``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine import dtypes
from engine.dims import shape_text
from engine.errors import DTypeError, ShapeError, TenonError
from engine.ops.losses import check_reduction, class_axis
from frontend import creation, elementwise, shaping
from frontend.dispatch import call
from frontend.elementwise import *  # noqa: F403  (one function for every elementwise op record)
from frontend.reducing import logsumexp
from frontend.shaping import flatten
from frontend.sizes import pair_of, plain, plain_shape
from frontend.tensor import Operand, Tensor, as_tensor

Pair = int | Sequence[int]

__all__ = [
    *elementwise.FUNCTIONS,
    "conv2d", "cross_entropy", "dropout", "flatten", "l1_loss", "linear", "log_softmax", "logsumexp",
    "max_pool2d", "mse_loss", "nll_loss", "one_hot", "pad", "relu", "softmax",
]  # fmt: skip


def relu(input: Operand, inplace: bool = False) -> Tensor:  # type: ignore[no-redef]
    """max(x, 0); NaN stays. ``inplace`` changes nothing: the compiler reuses memory by itself."""
    return call("relu", input)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (..., in) with a weight of shape (out, in) gives (..., out)."""
    out = shaping.matmul(input, as_tensor(weight).T)
    return out if bias is None else out + bias


# --- convolution and pooling -----------------------------------------------------------------------------------


def _batched(name: str, x: Tensor) -> tuple[Tensor, bool]:
    """``x`` as (N, C, H, W), and whether it came without N."""
    x = as_tensor(x)
    if x.ndim not in (3, 4):
        raise ShapeError(f"{name} takes (N, C, H, W) or (C, H, W), not shape {shape_text(plain_shape(x.shape))}")
    return (x.unsqueeze(0), True) if x.ndim == 3 else (x, False)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional cross-correlation of (N, C, H, W), or (C, H, W), with a weight (O, C / groups, KH, KW).

    ``padding`` is a number of zeros on each side, "valid" (none), or "same" (the output as large as the input, which
    needs a stride of 1).
    """
    x, single = _batched("conv2d", input)
    strides, dilations = pair_of(stride, "conv2d: stride"), pair_of(dilation, "conv2d: dilation")
    if isinstance(padding, str):
        kernel = plain_shape(as_tensor(weight).shape[2:])
        x, pads = _padded_by_name(x, padding, kernel, strides, dilations)  # type: ignore[arg-type]
    else:
        pads = pair_of(padding, "conv2d: padding")
    out = call("conv2d", x, weight, stride=strides, padding=pads, dilation=dilations, groups=groups)
    if bias is not None:
        out = out + as_tensor(bias).reshape(-1, 1, 1)
    return out.squeeze(0) if single else out


def _padded_by_name(
    x: Tensor, padding: str, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """The input and the symmetric padding that ``"same"`` or ``"valid"`` stands for; what is uneven is padded first."""
    if padding == "valid":
        return x, (0, 0)
    if padding != "same":
        raise TenonError(f'conv2d: padding must be numbers, "same" or "valid", not {padding!r}')
    if stride != (1, 1):
        raise TenonError(f'conv2d: padding="same" needs a stride of 1, not {stride}')
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(t % 2 for t in total):
        x = pad(x, (0, total[1] % 2, 0, total[0] % 2))
    return x, (total[0] // 2, total[1] // 2)


def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window of (N, C, H, W) or (C, H, W); NaN wins. The stride is the window's size unless given.

    With ``return_indices`` also where each maximum was, counted through its plane (``row * W + column``, i64).
    """
    x, single = _batched("max_pool2d", input)
    kernel = pair_of(kernel_size, "max_pool2d: kernel_size")
    strides = kernel if stride is None else pair_of(stride, "max_pool2d: stride")
    pads, dilations = pair_of(padding, "max_pool2d: padding"), pair_of(dilation, "max_pool2d: dilation")
    out, position = call(
        "max_pool2d", x, kernel=kernel, stride=strides, padding=pads, dilation=dilations, ceil_mode=ceil_mode
    )
    if not return_indices:
        return out.squeeze(0) if single else out
    shape = plain_shape(out.shape)
    tap = position.long()
    row = call("iota", shape=shape, axis=2) * strides[0] - pads[0] + tap // kernel[1] * dilations[0]
    column = call("iota", shape=shape, axis=3) * strides[1] - pads[1] + tap % kernel[1] * dilations[1]
    indices = row * x.shape[3] + column
    return (out.squeeze(0), indices.squeeze(0)) if single else (out, indices)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """``input`` with ``value`` (0) around it. ``pad`` counts from the last axis: (left, right, top, bottom, ...);
    a negative number crops."""
    x = as_tensor(input)
    if mode != "constant":
        raise TenonError(f"pad: the mode must be 'constant', not {mode!r}")
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeError(f"pad: two numbers an axis are needed for at most {x.ndim} axes, not {tuple(pad)}")
    low, high = [0] * x.ndim, [0] * x.ndim
    for i in range(len(pad) // 2):
        low[-1 - i], high[-1 - i] = pad[2 * i], pad[2 * i + 1]
    if any(n < 0 for n in (*low, *high)):
        x = x[tuple(slice(max(0, -a), size - max(0, -b)) for a, b, size in zip(low, high, x.shape, strict=True))]
    grown = {"low": tuple(max(0, n) for n in low), "high": tuple(max(0, n) for n in high)}
    return call("pad", x, **grown, step=(1,) * x.ndim, value=0 if value is None else value)


# --- normalisation over classes, and dropout --------------------------------------------------------------------


def softmax(input: Tensor, dim: int, dtype: object = None) -> Tensor:
    """exp(x) / sum of exp(x) along ``dim``."""
    x = as_tensor(input, dtype)
    return x.softmax(dim)


def log_softmax(input: Tensor, dim: int, dtype: object = None) -> Tensor:
    """x - log of the sum of exp(x) along ``dim``."""
    x = as_tensor(input, dtype)
    return x.log_softmax(dim)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element zero with probability ``p``, the others divided by 1 - p; nothing when not training.

    The draws depend on the seed, the call and the element's index alone: they are the same at every optimisation
    level and thread count. ``inplace`` changes nothing.
    """
    if not 0 <= p <= 1:
        raise TenonError(f"dropout: p must lie between 0 and 1, not {p}")
    x = as_tensor(input)
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0
    drawn = dtypes.f64 if x.dtype == dtypes.f64 else dtypes.f32
    kept = creation.rand(x.shape, dtype=drawn) >= p
    return x * (kept.to(x.dtype) * (1 / (1 - p)))


# --- losses -----------------------------------------------------------------------------------------------------


def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """1 at each class index and 0 elsewhere (i64), classes along a new last axis. In a trace ``num_classes`` must be
    given; elsewhere it defaults to one more than the greatest index."""
    x = _classes("one_hot", input)
    if num_classes < 0:
        if x.is_symbolic:
            raise ShapeError("one_hot: num_classes is needed in a traced function, where the indices are not known")
        num_classes = int(x.max()) + 1 if x.numel() else 0
    x = call("check_index", x, limit=num_classes)
    shape = (*plain_shape(x.shape), num_classes)
    return (x.unsqueeze(-1) == call("iota", shape=shape, axis=x.ndim)).long()


def _classes(name: str, target: Tensor) -> Tensor:
    target = as_tensor(target)
    if not target.dtype.is_integer:
        raise DTypeError(f"{name} takes integer class indices, not {target.dtype}")
    return target.long()


def cross_entropy(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-log softmax(input)[target]: logits (C), (N, C) or (N, C, d1, ...) and integer classes (), (N) or (N, d1, ...).

    A class outside 0 .. C-1 fails the call, before any state is written.
    """
    x = as_tensor(input)
    if x.ndim == 0:
        raise ShapeError("cross_entropy: logits need an axis of classes, and are a scalar")
    classes = call("check_index", _classes("cross_entropy", target), limit=plain(x.shape[class_axis(x.ndim)]))
    return call("cross_entropy", x, classes, reduction=reduction)


def nll_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """-input[target], for log-probabilities (C), (N, C) or (N, C, d1, ...) and integer classes."""
    x = as_tensor(input)
    axis = class_axis(x.ndim)
    if x.ndim == 0:
        raise ShapeError("nll_loss: log-probabilities need an axis of classes, and are a scalar")
    classes = _classes("nll_loss", target)
    expected = (*x.shape[:axis], *x.shape[axis + 1 :])
    if classes.ndim != len(expected):
        raise ShapeError(
            f"nll_loss: input of shape {shape_text(plain_shape(x.shape))} needs classes of shape "
            f"{shape_text(plain_shape(expected))}, not {shape_text(plain_shape(classes.shape))}"
        )
    classes = call("check_index", classes, limit=plain(x.shape[axis]))
    chosen = call("iota", shape=plain_shape(x.shape), axis=axis) == classes.unsqueeze(axis)
    return _reduced(-call("where", chosen, x, 0.0).sum(axis), reduction, "nll_loss")


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The squared difference; the shapes must be equal."""
    x, y = _alike("mse_loss", input, target)
    return call("mse_loss", x, y, reduction=reduction)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The absolute difference; the shapes must be equal."""
    x, y = _alike("l1_loss", input, target)
    return _reduced(abs(x - y), reduction, "l1_loss")


def _alike(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both as tensors whose shapes agree. Between (N, 1) and (N) broadcasting would pair all with all."""
    x, y = as_tensor(input), as_tensor(target)
    a, b = plain_shape(x.shape), plain_shape(y.shape)
    if len(a) != len(b) or any((p == 1) != (q == 1) for p, q in zip(a, b, strict=True)):
        raise ShapeError(f"{name}: input of shape {shape_text(a)} and target of shape {shape_text(b)} must be alike")
    return x, y


def _reduced(each: Tensor, reduction: str, name: str) -> Tensor:
    check_reduction(reduction, name)
    if reduction == "none":
        return each
    return each.mean() if reduction == "mean" else each.sum()

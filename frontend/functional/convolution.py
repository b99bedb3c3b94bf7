"""Convolutions as functions, in one, two and three dimensions, their transposes, and images as columns of patches."""

from __future__ import annotations

from collections.abc import Sequence

from engine.dims import shape_text
from engine.errors import ShapeError, TenonError
from frontend.dispatch import call
from frontend.functional.spatial import AXES, Numbers, batched, numbers, padded
from frontend.sizes import plain, plain_shape, rely_on
from frontend.tensor import Tensor, as_tensor

__all__ = [
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "fold", "unfold",
]  # fmt: skip


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of (N, C, L), or (C, L), with a weight (O, C / groups, K): (N, O, OL).

    ``padding`` is as in :func:`conv2d`. Floats; raises ShapeError and DTypeError.

    PyTorch: torch.nn.functional.conv1d.
    """
    return _convolve("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional cross-correlation of (N, C, H, W), or (C, H, W), with a weight (O, C / groups, KH, KW).

    ``padding`` is a number of zeros on each side, "valid" (none), or "same" (the output as large as the input, which
    needs a stride of 1). See Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016). Floats;
    raises ShapeError and DTypeError.

    PyTorch: torch.nn.functional.conv2d.
    """
    return _convolve("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of (N, C, D, H, W), or (C, D, H, W), with a weight (O, C / groups, KD, KH, KW).

    ``padding`` is as in :func:`conv2d`. Floats; raises ShapeError and DTypeError.

    PyTorch: torch.nn.functional.conv3d.
    """
    return _convolve("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def _convolve(
    op: str,
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Numbers,
    padding: Numbers | str,
    dilation: Numbers,
    groups: int,
) -> Tensor:
    x, single = batched(op, input, rank)
    w = _checked_weight(op, rank, weight, f"(O, C / groups, {_kernel_axes(rank)})")
    channels, expected = x.shape[1], plain(w.shape[1]) * groups
    if isinstance(channels, int) and channels != expected:
        shapes = f"{shape_text(plain_shape(x.shape))} and {shape_text(plain_shape(w.shape))}"
        raise ShapeError(
            f"{op}: the input has {channels} channels, and the weight expects {expected}, in shapes {shapes} with "
            f"{groups} groups"
        )
    strides, dilations = numbers(stride, rank, f"{op}: stride"), numbers(dilation, rank, f"{op}: dilation")
    if isinstance(padding, str):
        x, pads = _padded_by_name(op, x, padding, w, strides, dilations)
    else:
        pads = numbers(padding, rank, f"{op}: padding")
    if rank == 1:
        out = _planar(x.unsqueeze(2), w.unsqueeze(2), bias, (1, *strides), (0, *pads), (1, *dilations), groups)
        out = out.squeeze(2)
    elif rank == 2:
        out = _planar(x, w, bias, strides, pads, dilations, groups)
    else:
        out = _of_volumes(op, x, w, bias, strides, pads, dilations, groups)
    return out.squeeze(0) if single else out


def _kernel_axes(rank: int) -> str:
    return "K" if rank == 1 else ", ".join(f"K{axis}" for axis in AXES[rank].split(", "))


def _checked_weight(op: str, rank: int, weight: Tensor, wanted: str) -> Tensor:
    w = as_tensor(weight)
    if w.ndim != rank + 2 or not all(isinstance(size, int) for size in w.shape):
        raise ShapeError(f"{op}: the weight must be {wanted} of known sizes, not {shape_text(plain_shape(w.shape))}")
    return w


def _padded_by_name(
    op: str, x: Tensor, padding: str, w: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[Tensor, tuple[int, ...]]:
    """The input and the symmetric padding that ``"same"`` or ``"valid"`` stands for; what is uneven is padded first."""
    if padding == "valid":
        return x, (0,) * len(stride)
    if padding != "same":
        raise TenonError(f'{op}: padding must be numbers, "same" or "valid", not {padding!r}')
    if set(stride) != {1}:
        raise TenonError(f'{op}: padding="same" needs a stride of 1, not {stride}')
    total = [d * (int(plain(k)) - 1) for k, d in zip(w.shape[2:], dilation, strict=True)]
    return padded(x, [0] * len(total), [t % 2 for t in total]), tuple(t // 2 for t in total)


def _planar(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    return _with_bias(call("conv2d", x, w, stride=stride, padding=padding, dilation=dilation, groups=groups), bias)


def _with_bias(image: Tensor, bias: Tensor | None) -> Tensor:
    return image if bias is None else image + as_tensor(bias).reshape(-1, 1, 1)


def _of_volumes(
    op: str,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """Each output plane is a two-dimensional convolution of the planes that its window meets, taken as channels."""
    depth, rest = w.shape[2], w.shape[3:]
    deep = padded(x, (padding[0], 0, 0), (padding[0], 0, 0))
    extent = dilation[0] * (depth - 1) + 1
    room = plain(deep.shape[2]) - extent
    rely_on([room], f"{op}: a window of {extent} does not fit an axis of {x.shape[2]} padded by {padding[0]}")
    near = call("window", deep, axis=2, size=depth, step=stride[0], dilation=dilation[0])
    n, c, d, h, wd = near.shape[:5]
    planes = near.permute(0, 2, 1, 5, 3, 4).reshape(n * d, c * depth, h, wd)
    kernel = w.reshape(w.shape[0], w.shape[1] * depth, *rest)
    out = _planar(planes, kernel, bias, stride[1:], padding[1:], dilation[1:], groups)
    return out.reshape(n, d, *out.shape[1:]).permute(0, 2, 1, 3, 4)


# --- transposed ------------------------------------------------------------------------------------------------------


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """The transpose of :func:`conv1d`: (N, C, L), or (C, L), and a weight (C, O / groups, K) give (N, O, OL); see
    :func:`conv_transpose2d`.

    PyTorch: torch.nn.functional.conv_transpose1d.
    """
    return _transposed(
        "conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )  # fmt: skip


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """The transpose of :func:`conv2d`, which is its gradient: (N, C, H, W), or (C, H, W), and a weight
    (C, O / groups, KH, KW) give (N, O, OH, OW).

    ``OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1``: of the sizes that a convolution
    would take to H, ``output_padding`` chooses one. Floats; raises ShapeError and DTypeError.

    PyTorch: torch.nn.functional.conv_transpose2d.
    """
    return _transposed(
        "conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )  # fmt: skip


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """The transpose of :func:`conv3d`: (N, C, D, H, W), or (C, D, H, W), and a weight (C, O / groups, KD, KH, KW) give
    (N, O, OD, OH, OW); see :func:`conv_transpose2d`.

    PyTorch: torch.nn.functional.conv_transpose3d.
    """
    return _transposed(
        "conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation
    )  # fmt: skip


def _transposed(
    op: str,
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Numbers,
    padding: Numbers,
    output_padding: Numbers,
    groups: int,
    dilation: Numbers,
) -> Tensor:
    x, single = batched(op, input, rank)
    w = _checked_weight(op, rank, weight, f"(C, O / groups, {_kernel_axes(rank)})")
    if isinstance(x.shape[1], int) and x.shape[1] != w.shape[0]:
        raise ShapeError(f"{op}: the input has {x.shape[1]} channels, and the weight expects {w.shape[0]}")
    if groups < 1 or w.shape[0] % groups:
        raise ShapeError(f"{op}: {w.shape[0]} channels do not split into {groups} groups")
    strides, dilations = numbers(stride, rank, f"{op}: stride"), numbers(dilation, rank, f"{op}: dilation")
    pads, more = numbers(padding, rank, f"{op}: padding"), numbers(output_padding, rank, f"{op}: output_padding")
    if any(not 0 <= m < max(s, d) for m, s, d in zip(more, strides, dilations, strict=True)):
        raise ShapeError(f"{op}: output_padding {more} must be less than stride {strides} or dilation {dilations}")
    # A whole stride of output padding is one more element of the input: a zero.
    x = padded(x, [0] * rank, [m // s for m, s in zip(more, strides, strict=True)])
    more = tuple(m % s for m, s in zip(more, strides, strict=True))
    if rank == 1:
        x, w, strides, pads, more, dilations = (
            x.unsqueeze(2), w.unsqueeze(2), (1, *strides), (0, *pads), (0, *more), (1, *dilations)
        )  # fmt: skip
    if rank == 3:
        out = _to_volumes(op, x, w, strides, pads, more, groups, dilations)
        out = out if bias is None else out + as_tensor(bias).reshape(-1, 1, 1, 1)
    else:
        out = _with_bias(_planar_transposed(op, x, w, strides, pads, more, groups, dilations), bias)
    out = out.squeeze(2) if rank == 1 else out
    return out.squeeze(0) if single else out


def _planar_transposed(
    op: str,
    x: Tensor,
    w: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    more: tuple[int, ...],
    groups: int,
    dilation: tuple[int, ...],
) -> Tensor:
    size = tuple(
        (plain(n) - 1) * s - 2 * p + d * (k - 1) + m + 1
        for n, k, s, p, m, d in zip(x.shape[2:], w.shape[2:], stride, padding, more, dilation, strict=True)
    )
    rely_on([n - 1 for n in size], f"{op}: an input of {shape_text(plain_shape(x.shape[2:]))} gives {shape_text(size)}")
    return call(
        "conv2d_input_grad", x, w, input_size=size, stride=stride, padding=padding, dilation=dilation, groups=groups
    )  # fmt: skip


def _to_volumes(
    op: str,
    x: Tensor,
    w: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    more: tuple[int, ...],
    groups: int,
    dilation: tuple[int, ...],
) -> Tensor:
    """Each input plane becomes the planes of its window, as channels, which are added where windows overlap."""
    n, c, d, h, wd = x.shape
    depth = w.shape[2]
    planes = x.permute(0, 2, 1, 3, 4).reshape(n * d, c, h, wd)
    kernel = w.reshape(w.shape[0], w.shape[1] * depth, *w.shape[3:])
    out = _planar_transposed(op, planes, kernel, stride[1:], padding[1:], more[1:], groups, dilation[1:])
    near = out.reshape(n, d, w.shape[1] * groups, depth, *out.shape[2:]).permute(0, 2, 1, 4, 5, 3)
    length = (d - 1) * stride[0] + dilation[0] * (depth - 1) + 1 + more[0]
    rely_on([plain(length) - 2 * padding[0] - 1], f"{op}: a depth of {d} gives {length - 2 * padding[0]}")
    full = call(
        "overlap_add", near, axis=2, size=depth, step=stride[0], dilation=dilation[0], length=plain(length)
    )  # fmt: skip
    return full[:, :, padding[0] : length - padding[0]]


# --- patches ---------------------------------------------------------------------------------------------------------


def unfold(
    input: Tensor, kernel_size: Numbers, dilation: Numbers = 1, padding: Numbers = 0, stride: Numbers = 1
) -> Tensor:
    """The patches that a window meets in (N, C, H, W), or (C, H, W), as columns: (N, C * KH * KW, OH * OW). Also called
    im2col. Raises ShapeError where the window does not fit.

    PyTorch: torch.nn.functional.unfold.
    """
    x, single = batched("unfold", input, 2)
    kernel, strides, pads, dilations = _patches("unfold", kernel_size, stride, padding, dilation)
    near = padded(x, pads, pads)
    for axis in (2, 3):
        near = call("window", near, axis=axis, size=kernel[axis - 2], step=strides[axis - 2],
                    dilation=dilations[axis - 2])  # fmt: skip
    n, c, oh, ow = near.shape[:4]
    out = near.permute(0, 1, 4, 5, 2, 3).reshape(n, c * kernel[0] * kernel[1], oh * ow)
    return out.squeeze(0) if single else out


def fold(
    input: Tensor,
    output_size: Numbers,
    kernel_size: Numbers,
    dilation: Numbers = 1,
    padding: Numbers = 0,
    stride: Numbers = 1,
) -> Tensor:
    """Columns of patches (N, C * KH * KW, L), or without N, put back into an image (N, C, *output_size), and added
    where they overlap: the transpose of :func:`unfold`. Also called col2im. Raises ShapeError.

    PyTorch: torch.nn.functional.fold.
    """
    x, single = batched("fold", input, 1)
    kernel, strides, pads, dilations = _patches("fold", kernel_size, stride, padding, dilation)
    size = numbers(output_size, 2, "fold: output_size")
    n, rows, columns = x.shape
    count = [
        (s + 2 * p - d * (k - 1) - 1) // step + 1
        for s, k, step, p, d in zip(size, kernel, strides, pads, dilations, strict=True)
    ]
    each = kernel[0] * kernel[1]
    if not isinstance(rows, int) or rows % each or min(count) < 1 or columns != count[0] * count[1]:
        expected = f"(N, C * {each}, {max(count[0], 0) * max(count[1], 0)})"
        raise ShapeError(f"fold: {expected} was expected for an image of {size}, not {tuple(x.shape)}")
    near = x.reshape(n, rows // each, *kernel, *count).permute(0, 1, 4, 5, 2, 3)
    for axis in (3, 2):
        i = axis - 2
        near = call("overlap_add", near, axis=axis, size=kernel[i], step=strides[i], dilation=dilations[i],
                    length=size[i] + 2 * pads[i])  # fmt: skip
    out = near[:, :, pads[0] : pads[0] + size[0], pads[1] : pads[1] + size[1]]
    return out.squeeze(0) if single else out


def _patches(op: str, kernel: Numbers, stride: Numbers, padding: Numbers, dilation: Numbers) -> list[Sequence[int]]:
    given = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    found = [numbers(value, 2, f"{op}: {name}") for name, value in given.items()]
    for (name, _), values in zip(given.items(), found, strict=True):
        least = 0 if name == "padding" else 1
        if min(values) < least:
            raise ShapeError(f"{op}: {name} must be at least {least}, not {values}")
    return found  # type: ignore[return-value]

"""The schedule: kernels in order over buffers, as plain data that any backend can lower.

A :class:`KernelSpec` is an iteration space, the buffers it reads and writes through strides, and a straight-line
scalar ``body``. Its ``core`` says where the body's ``core`` value comes from: nowhere (a loop kernel), a
contraction, a convolution, its weight gradient, or a pooling window; or that the kernel scatters, scans or sorts. So
one emitter of bodies serves fused elementwise loops, reductions, and the epilogues of every heavy kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import ClassVar

from engine.buffers import Buffer
from engine.cells import Cell
from engine.dims import Shape, Size
from engine.dtypes import DType
from engine.errors import SourceLocation
from engine.records import dataclass
from engine.user_kernel import UserKernel


@dataclass(frozen=True)
class Access:
    """How a kernel reads or writes a buffer: element ``offset + sum(index[a] * strides[a])``.

    ``strides`` has one entry an axis of the iteration space it belongs to, in elements; 0 broadcasts.
    ``chunk_stride`` is added once a chunk in a split reduction (see :class:`KernelSpec`).
    """

    buffer: str
    dtype: DType
    strides: tuple[Size, ...]
    offset: Size = 0
    chunk_stride: Size = 0


LOADS = frozenset({"load", "load_at"})
"""The statements whose first argument is the number of a read."""


@dataclass(frozen=True)
class Stmt:
    """``name = op(*args)`` on scalars of ``dtype`` at one point of the iteration space.

    ``op`` is a name of the scalar vocabulary, whose arguments have already been cast to one dtype, or one of

    - ``load``: args ``(i,)``, the value of ``reads[i]``
    - ``load_at``: args ``(i, index)``, sizes ``(stride,)``: the element of ``reads[i]`` that lies ``index * stride``
      further on
    - ``store``: args ``(i, value)``, into ``writes[i]``
    - ``core``: args ``(k,)``, output ``k`` of the core
    - ``const``: args ``(number,)``
    - ``cast``: args ``(value,)``, to ``dtype``, as NumPy's astype
    - ``index``: the i64 ``sum(index[a] * sizes[a])``
    - ``size``: the i64 ``sizes[0]``
    - ``reduce_sum``, ``reduce_max``, ``reduce_min``, ``reduce_prod``: args ``(value,)``, over the reduced axes
    - ``reduce_argmax``, ``reduce_argmin``: args ``(value, index)``: the index of the first extremum, NaN first
    - ``reduce_mean``, ``reduce_variance``: args ``(value,)``, the mean and the biased variance of a convolution's
      ``core`` over the reduced axes, as exact as if the mean were taken off before squaring
    - ``uniform``: args ``(seed, step, stream, index)``: a Philox 4x32-10 draw in [0, 1), see engine/random.py
    - ``check_index``: args ``(value, code)``, sizes ``(limit, first)``, ``first`` 0 where it is left out: report
      ``code`` unless ``first <= value < limit``
    """

    name: str
    op: str
    args: tuple[str | int | float | bool, ...]
    dtype: DType
    sizes: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Contraction:
    """``core[b..., m, n] = sum_k a[b..., m, k] * c[b..., k, n]``.

    The kernel's axes are ``(*batch, M, N)``. ``a.strides`` runs over ``(*batch, m, k)``, ``b.strides`` over
    ``(*batch, k, n)``; any stride may be anything, 0 included.
    """

    a: Access
    b: Access
    k: Size


class _Grouped:
    """What follows from a convolution's channels."""

    in_channels: int
    out_channels: int
    groups: int

    @property
    def group_inputs(self) -> int:
        return self.in_channels // self.groups

    @property
    def group_outputs(self) -> int:
        return self.out_channels // self.groups


@dataclass(frozen=True)
class Conv2d(_Grouped):
    """``core[n, oh, ow, oc] = sum over kh, kw, ic of x[n, ih, iw, ic] * w[oc, ic, kh, kw]`` (cross-correlation).

    ``ih = (oh * stride - padding + kh * dilation) / x_dilation`` where that division is exact and ``ih`` is inside
    ``in_size``; elsewhere x counts as zero. ``x_dilation`` above 1 makes this a transposed convolution, with
    which the input gradient of a strided convolution is written. ``flip`` reads the taps in reverse order.
    ``x.strides`` runs over ``(n, h, w, c)`` with any values, ``w.strides`` over ``(oc, ic, kh, kw)`` within one
    group, ``ic`` counting inside the group; ``w_group`` is w's stride from one group to the next. ``relaxed`` allows an
    algorithm that rounds more than the sum does.
    The kernel's axes are ``(N, OH, OW, OC)``, or the pooled ones where a MaxPool2d wraps this core.
    """

    x: Access
    w: Access
    in_size: tuple[Size, Size]
    out_size: tuple[Size, Size]
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    x_dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    w_group: Size = 0
    flip: bool = False
    relaxed: bool = False


@dataclass(frozen=True)
class ConvChain:
    """``last`` over the value of ``inner``, a body over the ``(N, H, W, C)`` of ``source``'s output with ``core``
    statements that read it: an image that never lies in memory. The value is the last statement's; ``last.x`` names no
    buffer, and only its dtype counts. The kernel's axes are those of ``last``.
    """

    source: Conv2d
    inner: tuple[Stmt, ...]
    last: Conv2d


@dataclass(frozen=True)
class ConvWeightGrad(_Grouped):
    """``core[kh, kw, ic, oc] = sum over n, oh, ow of x[n, ih, iw, ic] * dy[n, oh, ow, oc]``, as in Conv2d.

    The kernel's axes are ``(groups, KH, KW, IC, OC)`` with IC and OC inside a group. ``x.strides`` and
    ``dy.strides`` run over ``(n, h, w, c)``; a group's channels follow the previous group's.
    """

    x: Access
    dy: Access
    batch: Size
    in_size: tuple[Size, Size]
    out_size: tuple[Size, Size]
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class MaxPool2d:
    """``core 0``: the maximum of a window (NaN wins), ``core 1``: its first position ``kh * KW + kw`` as u8.

    What is pooled is the value of ``inner``, a body over ``(N, H, W, C)`` (or, where ``source`` is a convolution,
    over its output, with ``core`` statements that read it). The value is the last statement's. The kernel's axes are
    ``(N, OH, OW, C)``. Positions outside ``in_size`` never win.
    """

    inner: tuple[Stmt, ...]
    in_size: tuple[Size, Size]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    source: Conv2d | None = None


@dataclass(frozen=True)
class MaxPool2dGrad:
    """``core[n, h, w, c]``: the sum of ``inner`` over the windows whose stored position names ``(h, w)``.

    ``inner`` is a body over the pooled axes ``(N, OH, OW, C)``; its last statement is the gradient. ``position``
    reads the u8 positions over the same axes. The kernel's axes are ``(N, H, W, C)``.
    """

    inner: tuple[Stmt, ...]
    position: Access
    out_size: tuple[Size, Size]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class MaxPool2dGather:
    """``core[n, oh, ow, c]``: ``inner`` (a body over ``(N, H, W, C)``) at the stored position of each window.

    The gradient of MaxPool2dGrad. ``position.strides`` runs over the kernel's axes ``(N, OH, OW, C)``.
    """

    inner: tuple[Stmt, ...]
    position: Access
    in_size: tuple[Size, Size]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Scatter:
    """For every point of the kernel's axes, in row-major order: ``writes[0]`` at that point, ``reads[0] * stride``
    further on, is set to ``reads[1]``, or becomes its sum, product, maximum or minimum with it, as ``mode`` says.
    ``reads[0]`` is less than ``size``.

    The body is empty, as with all the cores of ``Along``.
    """

    mode: str
    stride: Size
    size: Size


@dataclass(frozen=True)
class Scan:
    """``writes[0]`` is ``h[i] = reads[0][i] * h[i-1] + reads[1][i]`` along ``axis``, from ``h[0] = reads[1][0]``; from
    the other end where ``reverse``."""

    axis: int
    reverse: bool


@dataclass(frozen=True)
class RunningExtremum:
    """``writes[0]`` is the greatest of ``reads[0]`` so far along ``axis``, or the least, ``writes[1]`` (i64) where it
    is: the last of equal ones. NaN wins."""

    axis: int
    greatest: bool


@dataclass(frozen=True)
class Sort:
    """``writes[0]`` is ``reads[0]`` in order along ``axis``, ``writes[1]`` (i64) where each element came from."""

    axis: int
    descending: bool


@dataclass(frozen=True)
class Custom:
    """``function``, which a user wrote, called with ``reads`` and then ``writes`` as arrays of ``shapes``, all of them
    C-contiguous, and with ``attrs`` by name."""

    function: UserKernel
    shapes: tuple[Shape, ...]
    attrs: tuple[tuple[str, object], ...]


@dataclass(frozen=True)
class Recurrence:
    """``cell`` along ``steps`` steps of ``batch`` examples, or with ``backward`` its gradient, as the ops of
    engine/ops/recurrent.py define it. ``reads`` and ``writes`` name those of the kernel, whose ``strides`` run over
    their own axes; the last axis of each is contiguous. ``hidden`` units make a state of ``width`` numbers."""

    cell: Cell
    backward: bool
    reverse: bool
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    steps: Size
    batch: Size
    hidden: int
    width: int


@dataclass(frozen=True)
class Attention:
    """Attention, or with ``backward`` its gradient, as the ops of engine/ops/attention.py define it. ``reads`` and
    ``writes`` name those of the kernel, whose ``strides`` run over their own axes, save that the mask is broadcast to
    (batch, heads, queries, keys) and the offset to (batch). The last axis of arrays with features is contiguous."""

    backward: bool
    causal: bool
    scale: float
    dropout: float
    stream: int
    empty: float
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    batch: Size
    heads: Size
    ratio: int
    queries: Size
    keys: Size
    features: int
    width: int


Along = Scatter | Scan | RunningExtremum | Sort | Recurrence | Attention | Custom
"""Cores that write their results themselves, and read elements other than those at the point that they write."""
PRODUCTS = (Contraction, Conv2d, ConvChain, ConvWeightGrad, MaxPool2d, Recurrence, Attention)
"""Cores that multiply matrices, or may hold one that does."""
Core = Contraction | Conv2d | ConvChain | ConvWeightGrad | MaxPool2d | MaxPool2dGrad | MaxPool2dGather | Along


def core_operands(core: Core | None) -> Iterator[Access]:
    """What a core reads in its own order, that of the convolutions in it included."""
    for part in vars(core).values() if core is not None else ():
        if isinstance(part, Access) and part.buffer:
            yield part
        elif isinstance(part, Conv2d):
            yield from core_operands(part)


@dataclass(frozen=True)
class KernelSpec:
    """One kernel: ``body`` at every point of ``axes``.

    ``axes`` are sizes, outermost first, in the order memory is best walked. ``reduced`` lists the axes that the
    body's ``reduce_*`` statements run over: all of them the last axes (rows: several reductions, and statements
    over the full space after them, are allowed; what depends on no reduced axis is computed once a row) or all
    of them the first (columns: several rounds too, where no position is looked for). A Conv2d may have its mean and
    variance taken over all axes but its channels; what depends on these varies along the channels alone.
    ``split`` cuts the first reduced axis into chunks of that many elements: every chunk reduces on its own and
    its writes move by ``chunk_stride``; a following kernel combines them. So sums depend on shapes, never on threads.

    Statements appear in dependence order. A write whose buffer is also read is in place: same strides, the read
    before the write. Where there is a ``guard``, a bool, the kernel runs only if it is true; if not, what it would
    have written is read by nobody. ``products`` tells a target with tensor cores how exact the core's products of
    float32 are, by the names of tn.set_float32_matmul_precision. ``nodes`` names the graph nodes fused here,
    ``location`` the user's first line.
    """

    name: str
    axes: tuple[Size, ...]
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    body: tuple[Stmt, ...]
    core: Core | None = None
    reduced: tuple[int, ...] = ()
    split: Size | None = None
    guard: Access | None = None
    products: str = "highest"
    nodes: tuple[str, ...] = ()
    location: SourceLocation | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Bundle:
    """Independent loop kernels run as one: every optimizer update of a step, whatever its size."""

    name: str
    parts: tuple[KernelSpec, ...]
    guard: ClassVar[Access | None] = None

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(n for p in self.parts for n in p.nodes)

    @property
    def location(self) -> SourceLocation | None:
        return self.parts[0].location


@dataclass(frozen=True)
class Loop:
    """``kernels``, in order, ``times`` times; its ``windows`` are buffers that move from one time to the next. Where
    there is a ``guard``, it loops only if that is true."""

    name: str
    times: Size
    windows: tuple[str, ...]
    kernels: tuple[KernelSpec | Bundle | Loop, ...]
    guard: Access | None = None
    nodes: tuple[str, ...] = ()
    location: SourceLocation | None = field(default=None, compare=False)


Item = KernelSpec | Bundle | Loop


@dataclass(frozen=True)
class Schedule:
    """Kernels in order and the buffers between them."""

    buffers: tuple[Buffer, ...]
    kernels: tuple[Item, ...]

    @property
    def specs(self) -> Iterator[KernelSpec | Bundle]:
        """The kernels, those in loops included."""
        yield from _specs(self.kernels)


def _specs(items: Iterable[Item]) -> Iterator[KernelSpec | Bundle]:
    for item in items:
        if isinstance(item, Loop):
            yield from _specs(item.kernels)
        else:
            yield item


@dataclass(frozen=True)
class Target:
    """What passes may know of a backend. ``claims`` names the composite ops it has kernels for (the others are
    decomposed), ``fuses`` whether kernels take bodies of more than one op, ``channels_last`` whether
    convolutions want their channels innermost, ``tensor_cores`` whether products take operands of 16 bits as they are,
    with sums in float32, and those of float32 as exact as asked for, ``chains`` whether it has kernels for a
    ConvChain, ``turns`` whether convolutions read and write images with rows along memory at little cost, ``cuts``
    whether long reductions are to be cut into chunks for it: else it shares them out itself. ``measures`` says that its
    convolutions take the mean and the variance of what they make."""

    name: str
    claims: frozenset[str]
    fuses: bool = True
    channels_last: bool = True
    tensor_cores: bool = False
    chains: bool = False
    turns: bool = False
    cuts: bool = True
    measures: bool = False

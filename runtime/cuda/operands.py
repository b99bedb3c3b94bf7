"""The two sides of a product as its kernels see them, and products in the form that suits kernels best."""

from __future__ import annotations

from dataclasses import replace

from engine.dims import Size, ceil_div
from engine.records import dataclass
from engine.schedule import Access, Contraction, KernelSpec
from runtime.axes import all_strides, groups, regroup, reordered

FEW = 16
"""Rows (of a) that the kernel for skinny products takes."""


@dataclass(frozen=True)
class Operand:
    """One side of the product: its strides over the batch axes, along its own axis and along k."""

    access: Access
    batch: tuple[Size, ...]
    stride: Size
    k_stride: Size

    @property
    def along_k(self) -> bool:
        """Whether its rows in shared memory have k along them."""
        return self.k_stride == 1 or self.stride != 1

    @property
    def gap(self) -> Size:
        """From one element to the next in a row of shared memory."""
        return self.k_stride if self.along_k else 1

    @property
    def steps(self) -> tuple[Size, ...]:
        """What the addresses of chunks are sums of multiples of."""
        inner = () if self.gap == 1 else (self.gap,)
        return (self.access.offset, *self.batch, self.stride if self.along_k else self.k_stride, *inner)


def operands(core: Contraction) -> tuple[Operand, Operand]:
    """The sides a and b of ``core``."""
    *a_batch, a_m, a_k = core.a.strides
    *b_batch, b_k, b_n = core.b.strides
    return Operand(core.a, tuple(a_batch), a_m, a_k), Operand(core.b, tuple(b_batch), b_n, b_k)


def touched(spec: KernelSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The buffers that a product reads, and those that it writes."""
    core = spec.core
    assert isinstance(core, Contraction)
    reads = dict.fromkeys([core.a.buffer, core.b.buffer, *(access.buffer for access in spec.reads)])
    return tuple(reads), tuple(dict.fromkeys(access.buffer for access in spec.writes))


def nonzero(size: Size) -> Size:
    """1 where ``size``, which is not negative, is not zero."""
    return ceil_div(size, size + 1)


def simplified(spec: KernelSpec) -> KernelSpec:
    """``spec`` with as few batch axes as possible, turned over where that makes few rows of few columns, or
    puts results side by side that are written side by side."""
    spec = _folded(spec)
    core = spec.core
    assert isinstance(core, Contraction)
    m, n = len(spec.axes) - 2, len(spec.axes) - 1
    down = sum(access.strides[m] == 1 for access in spec.writes)
    across = sum(access.strides[n] == 1 for access in spec.writes)
    if _is_few(spec.axes[m]) or (down <= across and not _is_few(spec.axes[n])):
        return spec
    turned = Contraction(_swapped(core.b), _swapped(core.a), core.k)
    return replace(reordered(spec, (*range(m), n, m)), core=turned)


def _is_few(size: Size) -> bool:
    return isinstance(size, int) and size <= FEW


def _swapped(access: Access) -> Access:
    *batch, first, second = access.strides
    return replace(access, strides=(*batch, second, first))


def _folded(spec: KernelSpec) -> KernelSpec:
    """``spec`` with neighbouring batch axes as one where all that it touches lies so, and batches of rows as rows."""
    core = spec.core
    assert isinstance(core, Contraction)
    m, n = len(spec.axes) - 2, len(spec.axes) - 1
    a_outer = core.a.strides[:-1]
    b_outer = (*core.b.strides[:-2], 0)
    kept = groups(spec.axes[:n], [*(s[:n] for s in all_strides(spec)), a_outer, b_outer])
    if not kept or kept[-1][-1] != m:
        kept.append((m,))
    batch = [group[-1] for group in kept[:-1]]
    folded = Contraction(
        replace(core.a, strides=(*(a_outer[axis] for axis in (*batch, m)), core.a.strides[-1])),
        replace(core.b, strides=(*(b_outer[axis] for axis in batch), *core.b.strides[-2:])),
        core.k,
    )
    return replace(regroup(spec, [*kept, (n,)]), core=folded)

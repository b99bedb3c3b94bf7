"""Cut a long reduction into chunks that run in parallel, and a kernel that combines them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine import dims
from engine.bodies import compact, following, needed
from engine.dims import Size
from engine.dtypes import DType
from engine.schedule import Access, KernelSpec, Stmt
from passes.views import dense

Partial = Callable[[str, DType, Size], str]
"""Makes a temporary buffer for partial results, named like the first argument, of a dtype and a number of elements."""


def split_reduction(spec: KernelSpec, chunk: Size, partial: Partial) -> list[KernelSpec]:
    """Cut a long reduction in two kernels: chunks that reduce on their own, and one that combines them.

    The sums then depend on the shapes alone. What follows the reduction moves to the second kernel; ``spec`` has one
    round of reductions (see KernelSpec), and nothing after it varies along the reduced axes.
    """
    kept = [i for i in range(len(spec.axes)) if i not in spec.reduced]
    sizes = (dims.ceil_div(spec.axes[spec.reduced[0]], chunk), *(spec.axes[i] for i in kept))
    layout = dense("", sizes).strides
    rounds = [s for s in spec.body if s.op.startswith("reduce_")]
    results = {s.name for s in rounds}
    after = following(results, spec.body)
    first = [s for s in spec.body if s.name not in after]
    second: list[Stmt] = []
    writes = list(spec.writes)
    reads = [_of_kept(r, kept) for r in spec.reads]
    for k, s in enumerate(rounds):
        buffer = partial(f"{s.name}_partial{k}", s.dtype, dims.product(sizes))
        along: list[Size] = [0] * len(spec.axes)
        for i, stride in zip(kept, layout[1:], strict=True):
            along[i] = stride
        first.append(Stmt(f"{s.name}_store", "store", (len(writes), s.name), s.dtype))
        writes.append(Access(buffer, s.dtype, tuple(along), chunk_stride=layout[0]))
        second.append(Stmt(f"{s.name}_part", "load", (len(reads),), s.dtype))
        second.append(replace(s, args=(f"{s.name}_part",)))
        reads.append(Access(buffer, s.dtype, layout))
    wanted = after | needed(after, spec.body, results)
    second += [_index_of_kept(s, kept) for s in spec.body if s.name in wanted]
    chunks = replace(spec, name=f"{spec.name}_partial", writes=tuple(writes), body=tuple(first), split=chunk)
    combine = replace(
        spec,
        axes=sizes,
        reads=tuple(reads),
        writes=tuple(_of_kept(w, kept) for w in spec.writes),
        body=tuple(second),
        reduced=(0,),
    )
    return [compact(chunks), compact(combine)]


def _of_kept(access: Access, kept: list[int]) -> Access:
    """An access that runs over the chunks, along which it does not move, and the axes that are kept."""
    return replace(access, strides=(0, *(access.strides[i] for i in kept)))


def _index_of_kept(s: Stmt, kept: list[int]) -> Stmt:
    return replace(s, sizes=(0, *(s.sizes[i] for i in kept))) if s.op == "index" else s

"""Which kernels run as one: the elementwise updates at the end of a training step, whatever their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from engine.schedule import Along, Bundle, Item, KernelSpec, Loop, Schedule, core_operands


def bundle_updates(kernels: Sequence[KernelSpec | Loop], state: AbstractSet[str]) -> list[Item]:
    """Join the elementwise kernels that write only ``state`` and touch nothing of each other's, and that may as well
    run last: the optimizer's updates."""
    parts: list[KernelSpec] = []
    rest: list[Item] = []
    later_reads: set[str] = set()
    later_writes: set[str] = set()
    for kernel in reversed(kernels):
        if isinstance(kernel, Loop):  # what it touches, it touches by windows: nothing behind it may move before it
            rest.insert(0, kernel)
            for spec in Schedule((), (kernel,)).specs:
                assert isinstance(spec, KernelSpec)
                later_reads |= {r.buffer for r in spec.reads} | core_buffers(spec)
                later_writes |= {w.buffer for w in spec.writes}
            continue
        reads = {r.buffer for r in kernel.reads} | core_buffers(kernel)
        writes = {w.buffer for w in kernel.writes}
        plain = kernel.core is None and not kernel.reduced and kernel.guard is None
        update = plain and bool(writes) and writes <= state
        movable = not writes & (later_reads | later_writes) and not reads & later_writes
        if update and movable and not any(_touch(kernel, p) for p in parts):
            parts.insert(0, kernel)
            continue
        rest.insert(0, kernel)
        later_reads |= reads
        later_writes |= writes
    if len(parts) < 2:
        return list(kernels)
    return [*rest, Bundle(f"update_{parts[0].name}", tuple(parts))]


def core_buffers(kernel: KernelSpec) -> set[str]:
    """The buffers of which a kernel's core reads other elements than those at the point that is being written."""
    core = kernel.core
    found = {a.buffer for a in core_operands(core)}
    if isinstance(core, Along):
        return found | {r.buffer for r in kernel.reads}
    inner = [s.args[0] for s in getattr(core, "inner", ()) if s.op == "load"]
    elsewhere = [s.args[0] for s in kernel.body if s.op == "load_at"]
    return found | {kernel.reads[int(i)].buffer for i in (*inner, *elsewhere)}


def _touch(a: KernelSpec, b: KernelSpec) -> bool:
    """Whether one writes what the other reads or writes."""
    writes_a, writes_b = {w.buffer for w in a.writes}, {w.buffer for w in b.writes}
    reads_a, reads_b = {r.buffer for r in a.reads}, {r.buffer for r in b.reads}
    return bool(writes_a & (reads_b | writes_b) or writes_b & reads_a)

"""Generated lines as the source of a CPU kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from engine.program import Kernel
from runtime.emit import ArgTable, function_source, kernel_name, key_of


def kernel(name: str, lines: Sequence[str], table: ArgTable, comment: str = "",
           modules: Mapping[str, Iterable[str]] | None = None) -> Kernel:  # fmt: skip
    """The Kernel whose function body is the prologue of ``table`` and then ``lines``; ``comment`` and ``modules`` are
    as for :func:`runtime.emit.function_source`."""
    name = kernel_name(name)
    lines = [*table.prologue(), *lines]
    source = function_source(name, "args, lo, hi, scratch", lines, "runtime.cpu", comment, modules)
    return Kernel(name, key_of(source), source)

"""Generated lines as the source of a GPU kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from engine.program import Kernel
from runtime.emit import ArgTable, function_source, kernel_name, key_of


def kernel(name: str, lines: Sequence[str], table: ArgTable, threads: int, shared: int = 0, comment: str = "",
           modules: Mapping[str, Iterable[str]] | None = None) -> Kernel:  # fmt: skip
    """The Kernel that runs ``lines`` in every of the ``threads`` threads of a block, with ``shared`` bytes of dynamic
    shared memory.

    Its parameters are the slots of ``table``, by name. Lines may use ``cuda`` for thread numbers and barriers; what
    they call is imported from ``modules`` (module name to what it provides), from NumPy (types), and from
    runtime.cuda.mathlib and runtime.cuda.intrinsics.
    """
    name = kernel_name(name)
    lines = ["if skipped(guard, error):", "    return", *lines]
    parameters = ", ".join(["guard", "error", *table.names])
    known = {**(modules or {}), "runtime.cuda.toolkit": ["cuda"]}
    source = function_source(name, parameters, lines, "runtime.cuda", comment, known)
    return Kernel(name, key_of(source, threads, shared), source, threads=threads, shared=shared)

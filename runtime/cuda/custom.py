"""Lowering a user's kernel: its source as it is, and a GPU kernel that calls it on arrays.

One that fills a range of its outputs is called by a thread for each entry of their first axis, one for teams by a block
for each. Any other is one piece of work by contract, and called by a single thread: what it writes may depend on all
that it has written before, and nothing says on what.
"""

from __future__ import annotations

from dataclasses import replace

from engine import dims
from engine.dims import Size
from engine.program import Kernel, Lowered
from engine.schedule import Custom, KernelSpec
from engine.user_kernel import meet
from runtime.emit import ArgTable, call, indent, key_of
from runtime.tasks import typical
from runtime.user_kernels import arguments, indexes, wrapper_name

_THREADS = 128
_MOST_TEAM = 512


def lower_custom(spec: KernelSpec, core: Custom) -> Lowered:
    """One call of as many threads as the user's function has parts."""
    table = ArgTable()
    user = core.function
    arrays, attrs = arguments(spec, core, table)
    parts: Size = core.shapes[len(spec.reads)][0] if user.ranged else 1
    bounds = ["part", "part + 1"] if user.ranged else []
    threads, blocks = _THREADS, dims.ceil_div(parts, _THREADS)
    thread = "_tenon.cuda.threadIdx.x"
    part = f"_tenon.cuda.blockIdx.x * {threads} + {thread}"
    if user.team:
        threads, blocks, part = _team(core.shapes[-1][-1]), parts, "_tenon.cuda.blockIdx.x"
        bounds += [thread, str(threads)]
    name = wrapper_name(spec, core)
    count = table.size(parts)
    words = {meet.__name__: "_tenon.meet"} if user.team else {}
    source = "\n".join([
        "import runtime.cuda.arrays as _tenon",
        "",
        user.source,
        "",
        *(f"{f} = {words.get(f, f'_tenon.compiled({f})')}" for f in user.functions),
        "",
        f"def {name}({', '.join(['guard', 'error', *table.names])}):",
        *indent([
            "if _tenon.skipped(guard, error):",
            "    return",
            f"part = {part}",
            f"if part < {count}:",
            f"    {user.functions[-1]}({', '.join([*arrays, *bounds, *attrs])})",
        ]),
        "",
    ])  # fmt: skip
    code = Kernel(name, key_of(source, threads), source, threads=threads)
    return Lowered((replace(call(spec, code, table, blocks), indexed=indexes(spec)),), (code,))


def _team(work: Size) -> int:
    """Threads that share an entry with so much to do side by side: whole warps."""
    return min(_MOST_TEAM, max(32, 1 << (typical(work) - 1).bit_length()))

"""Independent elementwise kernels run as one: the updates of all parameters in a single parallel step.

Parts that compile to the same code share it. A table tells for each part where its tasks begin, which code it runs
and where its own arguments are; a range of tasks then visits the parts that it meets.
"""

from __future__ import annotations

from engine.dims import Size
from engine.errors import UnsupportedError
from engine.program import Arg, Block, Call, Lowered
from engine.schedule import Bundle
from runtime.axes import collapse
from runtime.cpu.emit import kernel
from runtime.cpu.loops import loop_lines, partition
from runtime.emit import ArgTable, goes_by_index, indent, loop

_ENTRY = 3  # slots of a part: first task, code, arguments


def lower_bundle(bundle: Bundle) -> Lowered:
    """One kernel and one call for all parts. Raises UnsupportedError for a part that reduces or has a core."""
    codes: dict[tuple[str, ...], int] = {}
    entries: list[Arg] = []
    begin: Size = 0
    for part in bundle.parts:
        if part.core is not None or part.reduced:
            raise UnsupportedError(f"only elementwise kernels can be bundled; {part.name} of {bundle.name} is not one")
        flat = collapse(part)
        table = ArgTable()
        cut = partition(flat.axes)
        body = loop_lines(flat, table, cut, "task_lo", "task_hi")
        code = codes.setdefault((*table.prologue("block"), *body), len(codes))
        entries += [begin, code, Block(table.args)]
        begin = begin + cut.tasks
    table = ArgTable()
    parts, count = table.block((*entries, begin)), table.size(len(bundle.parts))
    made = kernel(bundle.name, _dispatch(parts, count, [list(lines) for lines in codes]), table)
    reads = tuple(dict.fromkeys(a.buffer for p in bundle.parts for a in p.reads))
    writes = tuple(dict.fromkeys(a.buffer for p in bundle.parts for a in p.writes))
    indexed = any(goes_by_index(p) for p in bundle.parts)
    step = Call(made.key, bundle.name, table.args, begin, reads, writes, 0, bundle.nodes, indexed)
    return Lowered((step,), (made,))


def _dispatch(parts: str, count: str, codes: list[list[str]]) -> list[str]:
    """Lines that run, for every part, those of its tasks that lie in lo..hi."""
    run = [f"block = slot({parts}, part * {_ENTRY} + 2)"]
    if len(codes) == 1:
        run += codes[0]
    else:
        run.append(f"code = slot({parts}, part * {_ENTRY} + 1)")
        for number, lines in enumerate(codes):
            run += [f"{'if' if number == 0 else 'elif'} code == {number}:", *indent(lines)]
    return loop("part", "0", count, [
        f"begin = slot({parts}, part * {_ENTRY})",
        "task_lo = max(lo - begin, 0)",
        f"task_hi = min(hi, slot({parts}, (part + 1) * {_ENTRY})) - begin",
        "if task_lo < task_hi:",
        *indent(run),
    ])  # fmt: skip

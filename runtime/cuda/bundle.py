"""Independent elementwise kernels run as one: the updates of all parameters in a single launch.

Blocks are dealt to the parts in order. What the parts are given stands in a table in the GPU's memory: first the block
at which each begins, among which a block finds its part by bisection, then a row for each part, its addresses and
sizes, which get the names that the parts' common code has for them. So there may be any number of parts, and the source
does not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine import dims
from engine.dims import Size
from engine.errors import UnsupportedError
from engine.program import Block, BoxMap, Call, Lowered, Pointer
from engine.records import dataclass
from engine.schedule import Bundle, KernelSpec
from runtime.axes import collapse
from runtime.cuda.emit import kernel
from runtime.cuda.loops import THREADS, Points
from runtime.emit import ArgTable, goes_by_index, indent

_BLOCK_UNITS = 4 * THREADS


@dataclass(frozen=True)
class _Part:
    """A part: its arguments, under the names that ``code`` has for them, and the blocks that it takes."""

    spec: KernelSpec
    names: tuple[str, ...]
    args: tuple[Pointer | Size, ...]
    code: tuple[str, ...]
    blocks: Size


def lower_bundle(bundle: Bundle) -> Lowered:
    """One kernel and one call for all parts. Raises UnsupportedError for a part that reduces or has a core."""
    parts = [_part(bundle, spec) for spec in bundle.parts]
    codes = list(dict.fromkeys((part.names, part.code) for part in parts))
    width = 1 + max(len(part.args) for part in parts)
    begins: list[Size] = []
    rows: list[Pointer | Size] = []
    blocks: Size = 0
    for part in parts:
        begins.append(blocks)
        blocks = blocks + part.blocks
        rows += [codes.index((part.names, part.code)), *part.args, *[0] * (width - 1 - len(part.args))]
    table = ArgTable()
    table.declare(table=Block((*begins, *rows)), parts=len(parts))
    lines = [
        "part, end = 0, parts",
        "while end - part > 1:",
        "    middle = (part + end) >> 1",
        "    if load_i64(table, middle, 0) <= cuda.blockIdx.x:",
        "        part = middle",
        "    else:",
        "        end = middle",
        "block = cuda.blockIdx.x - load_i64(table, part, 0)",
        f"row = parts + part * {width}",
        *_chosen(codes),
    ]
    made = kernel(bundle.name, lines, table, THREADS)
    specs = [part.spec for part in parts]
    reads = tuple(dict.fromkeys(a.buffer for s in specs for a in s.reads))
    writes = tuple(dict.fromkeys(a.buffer for s in specs for a in s.writes))
    nodes = tuple(n for s in specs for n in s.nodes)
    indexed = any(goes_by_index(s) for s in specs)
    return Lowered((Call(made.key, bundle.name, table.args, blocks, reads, writes, 0, nodes, indexed),), (made,))


def _part(bundle: Bundle, spec: KernelSpec) -> _Part:
    if spec.core is not None or spec.reduced:
        raise UnsupportedError(f"only elementwise kernels can be bundled; {spec.name} of {bundle.name} is not one")
    table = ArgTable()
    points = Points(collapse(spec), table)
    run = points.run()
    last = f"min(first_unit + {_BLOCK_UNITS}, {table.size(points.units)})"
    code = (
        f"first_unit = block * {_BLOCK_UNITS}",
        *(f"for unit in range(first_unit + cuda.threadIdx.x, {last}, {THREADS}):", *indent(run)),
    )
    args = tuple(a for a in table.args if not isinstance(a, (Block, BoxMap)))
    return _Part(spec, table.names, args, code, dims.ceil_div(points.units, _BLOCK_UNITS))


def _chosen(codes: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]) -> list[str]:
    """Lines that run the code which ``row`` names, with what stands behind it."""
    branches = []
    for names, code in codes:
        branches.append([*(f"{name} = load_i64(table, row + {i}, 0)" for i, name in enumerate(names, 1)), *code])
    if len(codes) == 1:
        return branches[0]
    lines = ["code = load_i64(table, row, 0)"]
    for number, branch in enumerate(branches):
        lines += [f"{'elif' if number else 'if'} code == {number}:", *indent(branch)]
    return lines

"""Independent elementwise kernels run as one: the updates of all parameters in a single launch.

Blocks are dealt to the parts in order. A block finds its part by bisection over where parts begin, which are arguments,
and gives the part's addresses and sizes the names that the parts' common code has for them.
"""

from __future__ import annotations

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
_MOST_ARGS = 480
"""Slots of one call: parts that need more make several."""


@dataclass(frozen=True)
class _Part:
    """A part: its arguments, under the names that ``code`` has for them, and the blocks that it takes."""

    spec: KernelSpec
    names: tuple[str, ...]
    args: tuple[Pointer | Size, ...]
    code: tuple[str, ...]
    blocks: Size


def lower_bundle(bundle: Bundle) -> Lowered:
    """One kernel and one call for all parts, or for as many as fit its arguments. Raises UnsupportedError for a part
    that reduces or has a core."""
    parts = [_part(bundle, spec) for spec in bundle.parts]
    groups: list[list[_Part]] = [[]]
    for part in parts:
        if sum(len(p.args) + 1 for p in groups[-1]) + len(part.args) + 1 > _MOST_ARGS:
            groups.append([])
        groups[-1].append(part)
    made = [_lower_parts(bundle, group) for group in groups]
    kernels = {k.key: k for lowered in made for k in lowered.kernels}
    return Lowered(tuple(c for lowered in made for c in lowered.calls), tuple(kernels.values()))


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


def _lower_parts(bundle: Bundle, parts: list[_Part]) -> Lowered:
    table = ArgTable()
    codes: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
    begin: Size = 0
    branches = []
    for number, part in enumerate(parts):
        which = codes.setdefault((part.names, part.code), len(codes))
        given = [f"part{number}_{name}" for name in part.names]
        table.declare(**{f"begin{number}": begin}, **dict(zip(given, part.args, strict=True)))
        branches.append([
            f"block = cuda.blockIdx.x - begin{number}",
            *([f"{', '.join(part.names)} = {', '.join(given)}"] if given else []),
            f"code = {which}",
        ])  # fmt: skip
        begin = begin + part.blocks
    lines = _bisected(branches, 0)
    if len(codes) == 1:
        lines += next(iter(codes))[1]
    else:
        for (_, code), number in codes.items():
            lines += [f"{'elif' if number else 'if'} code == {number}:", *indent(code)]
    made = kernel(bundle.name, lines, table, THREADS)
    specs = [part.spec for part in parts]
    reads = tuple(dict.fromkeys(a.buffer for s in specs for a in s.reads))
    writes = tuple(dict.fromkeys(a.buffer for s in specs for a in s.writes))
    nodes = tuple(n for s in specs for n in s.nodes)
    indexed = any(goes_by_index(s) for s in specs)
    return Lowered((Call(made.key, bundle.name, table.args, begin, reads, writes, 0, nodes, indexed),), (made,))


def _bisected(branches: list[list[str]], first: int) -> list[str]:
    """Lines that run the branch of the part, from number ``first`` on, to which this block belongs."""
    if len(branches) == 1:
        return branches[0]
    half = len(branches) // 2
    return [
        f"if cuda.blockIdx.x < begin{first + half}:",
        *indent(_bisected(branches[:half], first)),
        "else:",
        *indent(_bisected(branches[half:], first + half)),
    ]

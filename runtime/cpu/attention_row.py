"""Lowering attention of a single query a head, as when a text is continued token by token: no products of matrices.

A task is one head of queries. Each key gives one product of vectors, each value is added once; what counts is to read
both once, in order. The numbers of features are part of the source, so that these loops become straight vector code.
"""

from __future__ import annotations

from engine import dtypes
from engine.dims import product
from engine.program import Lowered
from engine.schedule import Attention, KernelSpec
from runtime.cpu.attention_tiles import Blocks
from runtime.cpu.tiles import dot_name
from runtime.emit import indent, loop, total
from runtime.tasks import coordinates

KEYS = 256
"""Keys of a block, whose scores stay in the first-level cache."""
TOGETHER = 4
"""Values that are added at once."""


def lower_attention_row(spec: KernelSpec, core: Attention) -> Lowered:
    """The call for ``spec``, whose core is ``core``: one query a head, forward."""
    b = Blocks(spec, core, 1, KEYS)
    inf, zero = b.number(float("inf")), b.zero()
    features, width = str(core.features), str(core.width)
    dot = dot_name(b.dtype, core.features)
    b.modules = {"runtime.cpu.dot": {dot: None}}
    b.pieces = {"query": core.features, "weights": KEYS, "result": core.width}
    block = [
        f"here = minimum({KEYS}, limit - j0)",
        f"k_row = k_head + j0 * {b.step('k')}",
        *loop("j", "0", "here", [
            b.put("weights", "j", f"{dot}(query, k_row, {b.scope('query')}, {b.table.scope(b.arrays['k'].buffer)})"),
            f"k_row += {b.step('k')}",
        ]),
        *_masked(b),
        "y = peak",
        *loop("j", "0", "here", [f"y = running_maximum(y, {b.get('weights', 'j')})"]),
        f"base = select(y == -{inf}, {zero}, y)",
        "x = peak - base",
        f"grown = {b.exponential('x')}",
        "peak = y",
        f"part = {zero}",
        *loop("j", "0", "here", [
            f"x = {b.get('weights', 'j')} - base",
            f"raised = {b.exponential('x')}",
            "part += raised",
            b.put("weights", "j", b.kept("raised")),
        ]),
        "sum = sum * grown + part",
        *loop("e", "0", width, [b.put("result", "e", f"{b.get('result', 'e')} * grown")]),
        f"v_row = v_head + j0 * {b.step('v')}",
        f"whole = here & {-TOGETHER}",
        f"for j in range(0, whole, {TOGETHER}):",
        *indent(_added(b, width, TOGETHER)),
        "for j in range(whole, here):",
        *indent(_added(b, width, 1)),
    ]  # fmt: skip
    empty = f"sum == {zero}"
    space = {"b": core.batch, "h": core.heads}
    body = [
        *coordinates(b.table, "task", space),
        "first = 0",
        "c = 0",
        "i = 0",
        "group = quotient(h, ratio)",
        *(f"{name}_head = {b.place(name, b='b', h='group')}" for name in "kv"),
        *b.shift(),
        "limit = minimum(keys, maximum(0, 1 + shift))" if core.causal else "limit = keys",
        f"row = {b.place('q', b='b', h='h')}",
        *loop("e", "0", features, [b.put("query", "e", f"{b.read('q', 'row', 'e')} * {b.number(core.scale)}")]),
        *loop("e", "0", width, [b.put("result", "e", zero)]),
        f"peak = -{inf}",
        f"sum = {zero}",
        f"for j0 in range(0, limit, {KEYS}):",
        *indent(block),
    ]
    if "out" in core.writes:
        value = f"select({empty}, {b.number(core.empty)}, {b.get('result', 'e')} / sum)"
        body += [f"row = {b.place('out', b='b', h='h')}", *loop("e", "0", width, [b.write("out", "row", "e", value)])]
    if "lse" in core.writes:
        body += [
            f"row = {b.place('lse', b='b', h='h')}",
            b.write("lse", "row", "0", f"select({empty}, {inf}, peak + log(sum))"),
        ]
    return b.lowered(body, product(space.values()), b.drawing())


def _masked(b: Blocks) -> list[str]:
    """The scores of a block behind the mask. What is beyond the query's last key is not reached at all."""
    if "mask" not in b.arrays:
        return []
    access = b.arrays["mask"]
    by_key = access.strides[3] != 0
    here = b.read("mask", "mask_at", "j * mask_j" if by_key else "0")
    score = b.get("weights", "j")
    new = f"select({here}, {score}, {b.number(float('-inf'))})" if access.dtype == dtypes.bool_ else f"{score} + {here}"
    j_at = {"j": "j0"} if by_key else {}
    return [f"mask_at = {b.place('mask', b='b', h='h', **j_at)}", *loop("j", "0", "here", [b.put("weights", "j", new)])]


def _added(b: Blocks, width: str, count: int) -> list[str]:
    """``count`` values, times their weights, added to the result."""
    rows = [f"v_row + {n} * {b.step('v')}" if n else "v_row" for n in range(count)]
    terms = [f"w{n} * {b.read('v', row, 'e')}" for n, row in enumerate(rows)]
    return [
        *(f"w{n} = {b.get('weights', f'j + {n}' if n else 'j')}" for n in range(count)),
        *loop("e", "0", width, [b.put("result", "e", total(b.get("result", "e"), *terms))]),
        f"v_row += {count} * {b.step('v')}",
    ]

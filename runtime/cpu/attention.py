"""Lowering attention: online softmax over blocks of keys, and its gradient, with no more scores than fit the cache.

A task of the forward kernel is a block of queries of one head. It walks the keys in blocks, keeps each query's maximum
and sum so far, and scales what it has when a maximum grows. A task of the backward kernel is a head of keys with all
the heads of queries that share it: it makes the weights again from the saved logarithms, block by block, and adds up
each gradient in one fixed order. Results depend on neither the number of threads nor the size of the batch.
"""

from __future__ import annotations

from engine.dims import ceil_div, product
from engine.program import Lowered
from engine.schedule import Attention, KernelSpec
from runtime.choices import pick
from runtime.cpu.attention_row import lower_attention_row
from runtime.cpu.attention_tiles import Blocks
from runtime.emit import indent, loop
from runtime.tasks import coordinates

FORWARD = (64, 128)
"""Queries and keys of a block, forward."""
BACKWARD = (64, 64)


def lower_attention(spec: KernelSpec, core: Attention) -> Lowered:
    """The call for ``spec``, whose core is ``core``."""
    if core.backward:
        return _backward(spec, core)
    return lower_attention_row(spec, core) if core.queries == 1 else _forward(spec, core)


def _forward(spec: KernelSpec, core: Attention) -> Lowered:
    queries, keys = FORWARD
    tried = {str(n): n for n in (queries, queries // 2, 2 * queries)}  # how keys are cut decides how sums are rounded
    b = Blocks(spec, core, pick("queries", tried), keys)
    wide, size, inf = b.wide, b.size, b.number(float("inf"))
    deepest = b.queries + b.tile.rows
    b.pieces = {
        "q_panels": b.queries * core.features, "v_panels": b.keys * b.width,
        "scores": b.queries * b.keys + b.tile.rows * wide, "result": deepest * b.width,
        "peak": b.queries, "sums": b.queries, "growth": b.queries, "top": wide, "part": wide,
    }  # fmt: skip
    b.tables = {"key_rows": b.keys + b.tile.rows, "score_rows": deepest}

    def lanes(*lines: str) -> list[str]:
        return loop("i", "0", str(wide), list(lines))

    score = b.get("scores", f"j * {wide} + i", "block")
    top, peak, total = b.get("top", "i"), b.get("peak", "c + i"), b.get("sums", "c + i")
    softmax = [
        *lanes(b.put("top", "i", peak)),
        *loop("j", "0", "seen", lanes(f"x = {score}", f"y = {top}", b.put("top", "i", "select(x > y, x, y)"))),
        *lanes(
            f"y = {top}",
            f"base = select(y == -{inf}, {b.zero()}, y)",
            f"x = {peak} - base",
            f"grown = {b.exponential('x')}",
            b.put("growth", "c + i", "grown"),
            b.put("sums", "c + i", f"{total} * grown"),
            b.put("peak", "c + i", "y"),
            b.put("top", "i", "base"),
            b.put("part", "i", b.zero()),
        ),
        *loop("j", "0", "seen", lanes(
            f"x = {score} - {top}",
            f"raised = {b.exponential('x')}",
            b.put("part", "i", f"{b.get('part', 'i')} + raised"),
            b.put("scores", f"j * {wide} + i", b.kept("raised"), "block"),
        )),
        *lanes(b.put("sums", "c + i", f"{total} + {b.get('part', 'i')}")),
    ]  # fmt: skip
    block = [
        f"here = minimum({b.keys}, limit - j0)",
        *b.addresses("key_rows", "k", f"k_head + j0 * {b.step('k')}"),
        *b.straight("v", f"v_head + j0 * {b.step('v')}", "v_panels", "width", "here", "here"),
        f"for c in range(0, rows, {wide}):",
        *indent([
            f"seen = {b.seen(f'c + {wide}')}",
            f"block = scores + c * {b.keys * size}",
            *b.against_keys("key_rows", f"q_panels + c * features * {size}", "features", "block"),
            *b.masked(),
            *softmax,
            *(_zeros(b, "scores", "block") if core.causal else []),
        ]),
        "if j0 > 0:",
        *indent(loop("r", "0", "rows", [
            f"row = result + r * {b.width * size}",
            f"grown = {b.get('growth', 'r')}",
            *loop("e", "0", str(b.width), [b.put("result", "e", f"{b.get('result', 'e', 'row')} * grown", "row")]),
        ])),
        *b.by_queries("score_rows", "v_panels", "width", "result", b.width, "j0"),
    ]  # fmt: skip
    b.table.declare(query_blocks=ceil_div(core.queries, b.queries))
    space = {"b": core.batch, "h": core.heads, "number": ceil_div(core.queries, b.queries)}
    body = [
        *coordinates(b.table, "task", space),
        f"first = number * {b.queries}",
        f"rows = minimum({b.queries}, queries - first)",
        "group = quotient(h, ratio)",
        *(f"{name}_head = {b.place(name, b='b', h='group')}" for name in "kv"),
        f"q_head = {b.place('q', b='b', h='h', i='first')}",
        *b.shift(),
        "limit = minimum(keys, maximum(0, first + rows + shift))" if core.causal else "limit = keys",
        *b.turned("q", "q_head", "q_panels", "features", core.scale),
        *loop("i", "0", str(b.queries), [b.put("peak", "i", f"-{inf}"), b.put("sums", "i", b.zero())]),
        f"for j0 in range(0, limit, {b.keys}):",
        *indent(block),
        *loop("r", "0", "rows", _finish(b, core, inf)),
    ]
    once = [*b.drawing(), *b.query_table("score_rows", "scores")]
    return b.lowered(body, product(space.values()), once)


def _finish(b: Blocks, core: Attention, inf: str) -> list[str]:
    """One query's results, from what has been added up."""
    lines = [f"row = result + r * {b.width * b.size}", f"total = {b.get('sums', 'r')}"]
    empty = f"total == {b.zero()}"
    if "out" in core.writes:
        result = f"{b.get('result', 'e', 'row')} * inverse"
        lines += [
            f"inverse = {b.number(1.0)} / total",
            f"at = {b.place('out', b='b', h='h', i='(first + r)')}",
            *loop("e", "0", "width", [
                b.write("out", "at", "e", f"select({empty}, {b.number(core.empty)}, {result})")]),
        ]  # fmt: skip
    if "lse" in core.writes:
        lines += [
            f"at = {b.place('lse', b='b', h='h', i='(first + r)')}",
            b.write("lse", "at", "0", f"select({empty}, {inf}, {b.get('peak', 'r')} + log(total))"),
        ]
    return lines


def _zeros(b: Blocks, piece: str, pointer: str) -> list[str]:
    """What panel c does not see is zero as far as tiles that reach beyond it may read."""
    inner = loop("i", "0", str(b.wide), [b.put(piece, f"j * {b.wide} + i", b.zero(), pointer)])
    return loop("j", "seen", f"minimum(here, seen + {b.beyond})", inner)


def _backward(spec: KernelSpec, core: Attention) -> Lowered:
    b = Blocks(spec, core, *BACKWARD)
    wide, size, inf = b.wide, b.size, b.number(float("inf"))
    tall, deep = b.queries + b.tile.rows, b.keys + b.tile.rows
    panels = b.queries // wide
    b.pieces = {
        "q_panels": b.queries * core.features, "g_panels": b.queries * core.width,
        "q_rows": b.queries * b.features, "g_rows": b.queries * b.width, "k_rows": b.keys * b.features,
        "scores": b.queries * b.keys + b.tile.rows * wide, "slopes": b.queries * b.keys + b.tile.rows * wide,
        "k_sums": deep * b.features, "v_sums": deep * b.width, "q_part": tall * b.features,
        "logs": b.queries, "deltas": b.queries,
    }  # fmt: skip
    heights = (b.tile.rows, b.tile.rows // 2)
    b.tables = {"key_rows": deep, "value_rows": deep, "slope_rows": tall}
    b.tables |= {f"{piece}_by_{n}": deep * panels for piece in ("scores", "slopes") for n in heights}

    score, slope = (b.get(piece, f"j * {wide} + i", at) for piece, at in (("scores", "block"), ("slopes", "incline")))
    weights = [
        f"x = {score} - {b.get('logs', 'c + i')}",
        f"p = {b.exponential('x')}",
        f"kept = {b.kept('p')}",
        f"d = {b.kept(slope)}",
        b.put("scores", f"j * {wide} + i", "kept", "block"),
        b.put("slopes", f"j * {wide} + i", f"p * (d - {b.get('deltas', 'c + i')})", "incline"),
    ]
    if "seed" in b.arrays:
        factor = b.kept(b.number(1.0))
        weights[2:4] = [f"factor = {factor}", "kept = p * factor", f"d = {slope} * factor"]
    pair = [
        f"rows = minimum({b.queries}, queries - first)",
        f"filled = (quotient(rows + {wide - 1}, {wide})) * {wide}",
        *(f"{name}_head = {b.place(name, b='b', h='h', i='first')}" for name in "qg"),
        *b.turned("q", "q_head", "q_panels", "features", core.scale),
        *b.turned("g", "g_head", "g_panels", "width"),
        *b.straight("q", "q_head", "q_rows", "features", "rows", str(b.queries), "filled"),
        *b.straight("g", "g_head", "g_rows", "width", "rows", str(b.queries), "filled"),
        *loop("r", "0", "rows", [
            b.put(piece, "r", b.read(name, b.place(name, b="b", h="h", i="(first + r)"), "0"))
            for piece, name in (("logs", "lse"), ("deltas", "delta"))
        ]),
        *loop("r", "rows", "filled", [b.put("logs", "r", inf), b.put("deltas", "r", b.zero())]),
        f"for c in range(0, rows, {wide}):",
        *indent([
            f"seen = {b.seen(f'c + {wide}')}",
            f"block = scores + c * {b.keys * size}",
            f"incline = slopes + c * {b.keys * size}",
            *b.against_keys("key_rows", f"q_panels + c * features * {size}", "features", "block"),
            *b.against_keys("value_rows", f"g_panels + c * width * {size}", "width", "incline"),
            *b.masked(),
            *loop("j", "0", "seen", loop("i", "0", str(wide), weights)),
            *(_zeros(b, "scores", "block") + _zeros(b, "slopes", "incline") if core.causal else []),
        ]),
        *_by_keys(b, "scores", "g_rows", "width", b.width, "v_sums"),
        *_by_keys(b, "slopes", "q_rows", "features", b.features, "k_sums"),
        *b.by_queries("slope_rows", "k_rows", "features", "q_part", b.features, "0"),
        *_add_queries(b, core),
    ]  # fmt: skip
    start = "maximum(0, j0 - shift) * minimum(j0, 1)" if core.causal else "0"
    block = [
        f"here = minimum({b.keys}, keys - j0)",
        *b.addresses("key_rows", "k", f"k_head + j0 * {b.step('k')}"),
        *b.addresses("value_rows", "v", f"v_head + j0 * {b.step('v')}"),
        *b.straight("k", f"k_head + j0 * {b.step('k')}", "k_rows", "features", "here", "here"),
        *loop("e", "0", f"here * {b.features}", [b.put("k_sums", "e", b.zero())]),
        *loop("e", "0", f"here * {b.width}", [b.put("v_sums", "e", b.zero())]),
        "for head in range(ratio):",
        "    h = group * ratio + head",
        f"    for first in range({start}, queries, {b.queries}):",
        *indent(pair, 2),
        *_write_keys(b, core),
    ]
    space = {"b": core.batch, "group": core.heads // core.ratio}
    body = [
        *coordinates(b.table, "task", space),
        *(f"{name}_head = {b.place(name, b='b', h='group')}" for name in "kv"),
        *b.shift(),
        f"for j0 in range(0, maximum(1, keys), {b.keys}):",  # once without keys, for the queries' zeros
        *indent(block),
    ]
    once = [*b.drawing(), *b.query_table("slope_rows", "slopes")]
    for piece in ("scores", "slopes"):
        for n in heights:
            once += _key_table(b, f"{piece}_by_{n}", piece, n, panels)
    return b.lowered(body, product(space.values()), once)


def _key_table(b: Blocks, table: str, piece: str, height: int, panels: int) -> list[str]:
    """A table of the scores of ``height`` neighbouring keys, panel by panel, for every such tile of the block."""
    address = f"{piece} + (t * {b.keys * b.wide} + (r + i) * {b.wide}) * {b.size}"
    entry = b.entry(table, f"r * {panels} + t * {height} + i", address)
    inner = loop("t", "0", str(panels), loop("i", "0", str(height), [entry]))
    return [f"for r in range(0, {b.keys}, {height}):", *indent(inner)]


def _by_keys(b: Blocks, piece: str, packed: str, features: str, step: int, out: str) -> list[str]:
    """Adds each key's scores times packed rows of queries (or of gradients) to the sums ``out``."""
    wide, size, panels, columns = b.wide, b.size, b.queries // b.wide, b.columns[features]
    names, heights = b.tiles(True, columns)
    lines = [
        f"begin = {f'quotient(maximum(0, r - (first + shift - j0)), {wide})' if b.core.causal else '0'}",
        f"for c in range(0, {features}, {columns}):",
    ]
    calls = [
        f"{name}(quotient(filled, {wide}) - begin, {wide}, {size}, {piece}_by_{n} + (r * {panels} + begin * {n}) * 8, "
        f"{packed} + (c * {b.queries} + begin * {wide * columns}) * {size}, {columns * size}, "
        f"{out} + (r * {step} + c) * {size}, {step * size}, 1)"
        for name, n in zip(names, heights, strict=True)
    ]
    lines += indent([f"if here - r > {heights[1]}:", *indent([calls[0]]), "else:", *indent([calls[1]])])
    return [f"for r in range(0, here, {heights[0]}):", *indent(lines)]


def _add_queries(b: Blocks, core: Attention) -> list[str]:
    """What this block of keys adds to the gradient of a block of queries."""
    if "dq" not in core.writes:
        return []
    part = f"{b.get('q_part', 'e', 'row')} * {b.number(core.scale)}"
    return loop("r", "0", "rows", [
        f"row = q_part + r * {b.features * b.size}",
        f"at = {b.place('dq', b='b', h='h', i='(first + r)')}",
        "if j0 == 0:",
        *indent(loop("e", "0", "features", [b.write("dq", "at", "e", part)])),
        "else:",
        *indent(loop("e", "0", "features", [b.write("dq", "at", "e", f"{b.read('dq', 'at', 'e')} + {part}")])),
    ])  # fmt: skip


def _write_keys(b: Blocks, core: Attention) -> list[str]:
    """The gradients of a block of keys and values."""
    lines = []
    for name, piece, size, step, factor in (("dk", "k_sums", "features", b.features, core.scale),
                                            ("dv", "v_sums", "width", b.width, 1.0)):  # fmt: skip
        if name not in core.writes:
            continue
        value = b.get(piece, "e", "row") + (f" * {b.number(factor)}" if factor != 1 else "")
        lines += loop("r", "0", "here", [
            f"row = {piece} + r * {step * b.size}",
            f"at = {b.place(name, b='b', h='group', i='(j0 + r)')}",
            *loop("e", "0", size, [b.write(name, "at", "e", value)]),
        ])  # fmt: skip
    return lines

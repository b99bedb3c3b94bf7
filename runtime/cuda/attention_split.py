"""Attention of a single query a head, as when a text is continued token by token, along a long cache of keys.

There is one row of scores a head, and what counts is to read keys and values once, with all of the GPU. So the own
rows of a tile are the heads that share keys, the keys are cut into parts, and each block, of one warp, takes a part. A
second kernel puts the parts of a head together, in order.
"""

from __future__ import annotations

from dataclasses import replace

from engine.buffers import Buffer
from engine.dims import ceil_div, product
from engine.dtypes import f32
from engine.program import Lowered, Pointer, joined
from engine.schedule import Attention, KernelSpec
from runtime.attention_arrays import Arrays
from runtime.cuda.attention_forward import logarithm, row_total, weighted_sums
from runtime.cuda.attention_tiles import WORDS, Tiles, planned
from runtime.cuda.emit import kernel
from runtime.emit import call, indent, loop
from runtime.tasks import coordinates

PART = 256
"""Keys of a part."""
WARPS = 4
"""Heads that a block of the second kernel puts together."""


class _Heads(Tiles):
    """Tiles whose own rows are the heads of queries that share one of keys."""

    def step(self, name: str) -> str:
        if name != "q":
            return super().step(name)
        return f"q_h * {self.size}" if self.arrays["q"].strides[1] != 0 else "0"

    def each_row(self, lines: list[str]) -> list[str]:
        return super().each_row(["h = group * ratio + minimum(own, ratio - 1)", *lines])


def lower_attention_split(spec: KernelSpec, core: Attention) -> Lowered:
    """The calls for ``spec``, whose core is ``core``, forward and of one query."""
    parts = ceil_div(core.keys, PART)
    rows = core.batch * core.heads
    sums = Buffer(f"{spec.name}.sums", "temp", f32, rows * parts * core.width)
    logs = Buffer(f"{spec.name}.logs", "temp", f32, rows * parts)
    first, second = _parts(spec, core, sums, logs), _together(spec, core, sums, logs)
    return replace(joined([first, second]), buffers=(sums, logs))


def _parts(spec: KernelSpec, core: Attention, sums: Buffer, logs: Buffer) -> Lowered:
    """Each part's weighted mean of values, and the logarithm of its sum of exponentials."""
    t = planned(spec, core, "q", "kv", 1, min(core.ratio, 16), core.keys, _Heads)
    heads = core.heads // core.ratio
    space = {"b": core.batch, "group": heads, "tile": ceil_div(core.ratio, t.own), "part": ceil_div(core.keys, PART)}
    t.table.declare(parts=space["part"], part_sums=Pointer(sums.name), part_logs=Pointer(logs.name))
    row = "((b * heads + h) * parts + part)"
    across = t.width // 8
    lines = [
        *coordinates(t.table, "block", space),
        f"first = tile * {t.own}",
        f"q_head = {t.place('q', b='b', h='(group * ratio)')}",
        *(f"{n}_head = {t.place(n, b='b', h='group')}" for n in "kv"),
        *t.shift(),
        f"start = part * {PART}",
        f"limit = minimum(start + {PART}, {'minimum(keys, shift + 1)' if core.causal else 'keys'})",
        f"blocks = quotient(maximum(0, limit - start) + {t.columns - 1}, {t.columns})",
        *t.copied("q", "first", "ratio"),
        *weighted_sums(t, "0", "start", "limit"),
        *t.each_row([
            *row_total(t),
            "if own < ratio:",
            "    if lane & 3 == 0:",
            f"        store_f32(part_logs, {row}, {logarithm(t, '-inf')}, {t.table.scope(logs.name)})",
            *indent(loop("n", "0", str(across), loop("x", "0", "2", [
                "e = n * 8 + (lane & 3) * 2 + x",
                f"if e < {core.width}:",
                f"    value = result[(m * {across} + n) * 4 + 2 * half + x] * sums[t]",
                f"    store_f32(part_sums, {row} * {core.width} + e, value, {t.table.scope(sums.name)})",
            ]))),
        ]),
    ]  # fmt: skip
    made = t.lowered("parts", lines, product(space.values()))
    (found,) = made.calls
    return Lowered((replace(found, writes=(sums.name, logs.name)),), made.kernels)


def _together(spec: KernelSpec, core: Attention, sums: Buffer, logs: Buffer) -> Lowered:
    """Each head's result from its parts: a warp a head."""
    a = Arrays(spec, core)
    a.table.declare(parts=ceil_div(core.keys, PART), rows=core.batch * core.heads)
    a.table.declare(part_sums=Pointer(sums.name), part_logs=Pointer(logs.name))
    log = f"load_f32(part_logs, row * parts + part, {a.table.scope(logs.name)})"
    mean = f"load_f32(part_sums, (row * parts + part) * {core.width} + e, {a.table.scope(sums.name)})"
    lines = [
        f"row = cuda.blockIdx.x * {WARPS} + (cuda.threadIdx.x >> 5)",
        "lane = cuda.threadIdx.x & 31",
        "if row < rows:",
        *indent([
            *coordinates(a.table, "row", {"b": core.batch, "h": core.heads}),
            "top = -float32(inf)",
            *loop("part", "0", "parts", [f"top = maximum(top, {log})"]),
            "base = select(top == -float32(inf), float32(0.0), top)",
            "total = float32(0.0)",
            *loop("part", "0", "parts", [f"total += exp({log} - base)"]),
            "empty = total == float32(0.0)",
        ]),
    ]  # fmt: skip
    if "out" in core.writes:
        value = f"select(empty, {a.number(core.empty)}, sum / total)"
        lines += indent([
            f"at = {a.place('out', b='b', h='h')}",
            f"for e in range(lane, {core.width}, 32):",
            "    sum = float32(0.0)",
            *indent(loop("part", "0", "parts", [f"sum += exp({log} - base) * {mean}"])),
            f"    {a.write('out', 'at', 'e', value)}",
        ])  # fmt: skip
    if "lse" in core.writes:
        value = "select(empty, float32(inf), base + log(total))"
        lines += indent(["if lane == 0:", f"    {a.write('lse', a.place('lse', b='b', h='h'), '0', value)}"])
    code = kernel(f"{spec.name}_together", lines, a.table, threads=32 * WARPS, modules=WORDS)
    found = call(spec, code, a.table, ceil_div(core.batch * core.heads, WARPS))
    return Lowered((replace(found, reads=(sums.name, logs.name)),), (code,))

"""Attention of any dtype, number of features and length: a warp a row, plain multiply-adds in registers.

Each lane has a key of its own (in the gradient of keys and values: a query), whose score it computes alone; then all
lanes together add the rows of 32 keys, each with features of its own. What a warp walks through comes in a fixed order,
so results do not depend on what runs when.
"""

from __future__ import annotations

from engine import dtypes
from engine.dims import Size, ceil_div, product
from engine.program import Lowered, joined
from engine.schedule import Attention, KernelSpec
from runtime.attention_arrays import Arrays
from runtime.cuda.attention_tiles import WORDS
from runtime.cuda.emit import kernel
from runtime.emit import call, computed_type, indent, loop
from runtime.tasks import coordinates

WARPS = 4
"""Warps, and so rows, of a block."""


def lower_attention_rows(spec: KernelSpec, core: Attention) -> Lowered:
    """The calls for ``spec``, whose core is ``core``: one forward; backward one for the queries' gradient, and one for
    those of keys and values."""
    if not core.backward:
        return _forward(spec, core)
    made = [_by_query(spec, core)] if "dq" in core.writes else []
    made += [_by_key(spec, core)] if {"dk", "dv"} & {*core.writes} else []
    return joined(made)


class _Rows(Arrays):
    """The source of one kernel. ``space`` numbers the rows, of which each warp has one."""

    def lowered(self, kind: str, space: dict[str, Size], body: list[str]) -> Lowered:
        rows = product(space.values())
        self.table.declare(rows=rows)
        lines = [
            *self.drawing(),
            "lane = cuda.threadIdx.x & 31",
            f"row = cuda.blockIdx.x * {WARPS} + (cuda.threadIdx.x >> 5)",
            "if row < rows:",
            *indent([*coordinates(self.table, "row", space), *body]),
        ]
        code = kernel(f"{self.spec.name}_{kind}", lines, self.table, threads=32 * WARPS, modules=WORDS)
        return Lowered((call(self.spec, code, self.table, ceil_div(rows, WARPS)),), (code,))

    def sums(self, name: str, size: int) -> list[str]:
        """Registers for a row of ``size`` numbers, spread over the lanes."""
        count = -(-size // 32)
        array = f"{name} = cuda.local.array({count}, {computed_type(self.dtype)})"
        return [array, *loop("e", "0", str(count), [f"{name}[e] = {self.zero()}"])]

    def combined(self, name: str, operation: str) -> list[str]:
        """Combines the numbers ``name`` of all lanes."""
        other = f"shfl_bfly_{self.dtype.computed}({name}, {{}})"
        return [f"{name} = {operation.format(name, other.format(step))}" for step in (16, 8, 4, 2, 1)]

    def each(self, size: int, line: str) -> list[str]:
        """``line`` for every feature ``c`` of this lane, the ``e``-th it has."""
        inside = [line] if size % 32 == 0 else [f"if c < {size}:", f"    {line}"]
        return loop("e", "0", str(-(-size // 32)), ["c = lane + 32 * e", *inside])

    def dot(self, name: str, a: tuple[str, str], b: tuple[str, str], size: int) -> list[str]:
        """The product of two rows, each an array and an address."""
        term = f"{self.read(*a, 'e')} * {self.read(*b, 'e')}"
        return [f"{name} = {self.zero()}", *loop("e", "0", str(size), [f"{name} += {term}"])]

    def score(self) -> list[str]:
        """The score of query i and key j, whose rows are ``q_row`` and ``k_row``."""
        lines = [
            *self.dot("score", ("q", "q_row"), ("k", "k_row"), self.core.features),
            f"score = score * {self.number(self.core.scale)}",
        ]
        if "mask" not in self.arrays:
            return lines
        mask = self.read("mask", self.place("mask", b="b", h="h", i="i", j="j"), "0")
        if self.arrays["mask"].dtype != dtypes.bool_:
            return [*lines, f"score = score + {mask}"]
        return [*lines, f"score = select({mask}, score, {self.number(float('-inf'))})"]

    def of_lane(self, value: str) -> str:
        """``value`` of lane ``n``."""
        return f"shfl_idx_{self.dtype.computed}({value}, n)"

    def slope(self) -> list[str]:
        """The weight ``p`` of query i and key j, the same after dropout, ``kept``, and the gradient of their score,
        ``slope``; from ``score``, ``lse`` and ``delta``."""
        lines = [
            "p = exp(score - lse)",
            *self.dot("d", ("g", "g_row"), ("v", "v_row"), self.core.width),
        ]
        if "seed" not in self.arrays:
            return [*lines, "kept = p", "slope = p * (d - delta)"]
        factor = self.dropped(self.number(1.0), "i", "j")
        return [*lines, f"factor = {factor}", "kept = p * factor", "slope = p * (d * factor - delta)"]

    def by_lane(self, first: str, last: str, add: list[str]) -> list[str]:
        """``add`` for each row ``n`` of 32 from ``first``, as far as ``last``."""
        return loop("n", "0", f"minimum(32, {last} - {first})", add)

    def heads(self, b: str, h: str, group: str, names: str) -> list[str]:
        """Where the heads of these arrays begin."""
        shared = {"k": group, "v": group, "dk": group, "dv": group}
        return [f"{n}_head = {self.place(n, b=b, h=shared.get(n, h))}" for n in names.split()]


def _forward(spec: KernelSpec, core: Attention) -> Lowered:
    r = _Rows(spec, core)
    inf, zero = r.number(float("inf")), r.zero()
    block = [
        "j = j0 + lane",
        f"score = -{inf}",
        "if j < limit:",
        *indent([f"k_row = k_head + j * {r.step('k')}", *r.score()]),
        "top = maximum(peak, score)",
        *r.combined("top", "maximum({}, {})"),
        f"base = select(top == -{inf}, {zero}, top)",
        "grown = exp(peak - base)",
        "p = exp(score - base)",
        "peak = top",
        "sum = sum * grown + p",
        f"kept = {r.dropped('p', 'i', 'j')}",
        *r.each(core.width, "result[e] = result[e] * grown"),
        *r.by_lane("j0", "limit", [
            f"weight = {r.of_lane('kept')}",
            f"v_row = v_head + (j0 + n) * {r.step('v')}",
            *r.each(core.width, f"result[e] += weight * {r.read('v', 'v_row', 'c')}"),
        ]),
    ]  # fmt: skip
    body = [
        "group = quotient(h, ratio)",
        *r.heads("b", "h", "group", "k v"),
        f"q_row = {r.place('q', b='b', h='h', i='i')}",
        *r.shift(),
        "limit = minimum(keys, maximum(0, i + 1 + shift))" if core.causal else "limit = keys",
        *r.sums("result", core.width),
        f"peak = -{inf}",
        f"sum = {zero}",
        *["for j0 in range(0, limit, 32):", *indent(block)],
        *r.combined("sum", "{} + {}"),
        f"empty = sum == {zero}",
    ]
    if "out" in core.writes:
        value = f"select(empty, {r.number(core.empty)}, result[e] / sum)"
        body += [f"at = {r.place('out', b='b', h='h', i='i')}", *r.each(core.width, r.write("out", "at", "c", value))]
    if "lse" in core.writes:
        value = f"select(empty, {inf}, peak + log(sum))"
        body += ["if lane == 0:", f"    {r.write('lse', r.place('lse', b='b', h='h', i='i'), '0', value)}"]
    return r.lowered("rows", {"b": core.batch, "h": core.heads, "i": core.queries}, body)


def _by_query(spec: KernelSpec, core: Attention) -> Lowered:
    """The gradient of the queries."""
    r = _Rows(spec, core)
    block = [
        "j = j0 + lane",
        f"slope = {r.zero()}",
        "if j < limit:",
        *indent([
            f"k_row = k_head + j * {r.step('k')}",
            f"v_row = v_head + j * {r.step('v')}",
            *r.score(), *r.slope(),
        ]),
        *r.by_lane("j0", "limit", [
            f"weight = {r.of_lane('slope')}",
            f"k_row = k_head + (j0 + n) * {r.step('k')}",
            *r.each(core.features, f"dq[e] += weight * {r.read('k', 'k_row', 'c')}"),
        ]),
    ]  # fmt: skip
    body = [
        "group = quotient(h, ratio)",
        *r.heads("b", "h", "group", "k v"),
        *(f"{n}_row = {r.place(n, b='b', h='h', i='i')}" for n in "qg"),
        *(f"{n} = {r.read(n, r.place(n, b='b', h='h', i='i'), '0')}" for n in ("lse", "delta")),
        *r.shift(),
        "limit = minimum(keys, maximum(0, i + 1 + shift))" if core.causal else "limit = keys",
        *r.sums("dq", core.features),
        *["for j0 in range(0, limit, 32):", *indent(block)],
        f"at = {r.place('dq', b='b', h='h', i='i')}",
        *r.each(core.features, r.write("dq", "at", "c", f"dq[e] * {r.number(core.scale)}")),
    ]
    return r.lowered("rows_by_query", {"b": core.batch, "h": core.heads, "i": core.queries}, body)


def _by_key(spec: KernelSpec, core: Attention) -> Lowered:
    """The gradients of keys and values."""
    r = _Rows(spec, core)
    wanted = [n for n in ("dk", "dv") if n in core.writes]
    sizes = {"dk": core.features, "dv": core.width}
    scales = {"dk": f" * {r.number(core.scale)}", "dv": ""}
    add = {
        "dk": ("q", "slope", core.features),
        "dv": ("g", "kept", core.width),
    }
    block = [
        "i = i0 + lane",
        f"slope = {r.zero()}",
        f"kept = {r.zero()}",
        "if i < queries:",
        *indent([
            *(f"{n}_row = {n}_head + i * {r.step(n)}" for n in "qg"),
            *(f"{n} = {r.read(n, r.place(n, b='b', h='h', i='i'), '0')}" for n in ("lse", "delta")),
            *r.score(), *r.slope(),
        ]),
        *r.by_lane("i0", "queries", [
            line for d in wanted for n, weight, size in (add[d],) for line in (
                f"weight = {r.of_lane(weight)}",
                f"{n}_row = {n}_head + (i0 + n) * {r.step(n)}",
                *r.each(size, f"{d}[e] += weight * {r.read(n, f'{n}_row', 'c')}"),
            )
        ]),
    ]  # fmt: skip
    body = [
        *(f"{n}_row = {r.place(n, b='b', h='group', i='j')}" for n in "kv"),
        *r.shift(),
        *(line for d in wanted for line in r.sums(d, sizes[d])),
        "for h in range(group * ratio, group * ratio + ratio):",
        *indent(
            [
                *r.heads("b", "h", "group", "q g"),
                f"for i0 in range({'maximum(0, j - shift)' if core.causal else '0'}, queries, 32):",
                *indent(block),
            ]
        ),
        *(
            line
            for d in wanted
            for line in (
                f"at = {r.place(d, b='b', h='group', i='j')}",
                *r.each(sizes[d], r.write(d, "at", "c", f"{d}[e]{scales[d]}")),
            )
        ),
    ]
    return r.lowered("rows_by_key", {"b": core.batch, "group": core.heads // core.ratio, "j": core.keys}, body)

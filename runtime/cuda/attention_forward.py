"""Attention forward on tensor cores, as FlashAttention-2 does it: a block owns queries; keys and values stream by.

Source: Dao (2023), "FlashAttention-2: faster attention with better parallelism and work partitioning".
"""

from __future__ import annotations

from engine.dims import ceil_div, product
from engine.program import Lowered
from engine.schedule import Attention, KernelSpec
from runtime.cuda.attention_tiles import LN_2, Tiles, planned
from runtime.emit import loop, total
from runtime.tasks import coordinates

HELD = 32
"""Registers that a thread may fill with its part of the queries, where they need not be loaded again for every tile."""


def lower_attention_forward(spec: KernelSpec, core: Attention) -> Lowered:
    """The call for ``spec``, whose core is ``core``."""
    roomy = spec.reads[0].dtype.itemsize == 2 and max(core.features, core.width) <= 128 and "seed" not in core.reads
    t = planned(spec, core, "q", "kv", 2 if roomy else 1, core.queries, core.keys)
    space = {"b": core.batch, "h": core.heads, "tile": ceil_div(core.queries, t.own)}
    t.table.declare(tiles=space["tile"])
    lines = [
        *coordinates(t.table, "block", space),
        "group = quotient(h, ratio)",
        f"q_head = {t.place('q', b='b', h='h')}",
        *(f"{n}_head = {t.place(n, b='b', h='group')}" for n in "kv"),
        f"first = (tiles - 1 - tile) * {t.own}" if core.causal else f"first = tile * {t.own}",  # the longest first
        *t.shift(),
        f"limit = minimum(keys, maximum(0, first + {t.own} + shift))" if core.causal else "limit = keys",
        f"blocks = quotient(limit + {t.columns - 1}, {t.columns})",
        *t.copied("q", "first", "queries"),
        *weighted_sums(t, "own", "0", "minimum(keys, first + shift + 1)" if core.causal else "keys"),
        *t.each_row([*row_total(t, core.empty), *(write_lse(t) if "lse" in core.writes else [])]),
    ]
    if "out" in core.writes:
        lines += t.written("out", "queries", t.place("out", b="b", h="h"), "result[{}] * sums[t]")
    return t.lowered("tiles", lines, product(space.values()))


def weighted_sums(t: Tiles, i: str, start: str, whole: str) -> list[str]:
    """Lines that walk ``blocks`` tiles of keys from ``start`` on, for the own rows, which have query ``i``: ``result``
    is then the sum of values times exponentials of scores less their maximum ``peak``, ``sums`` this lane's part of the
    sum of exponentials. All own rows see the keys before ``whole``."""
    per_step, steps = 4 * t.high, t.features // t.depth
    held, hold = "", []
    if t.narrow and per_step * steps <= HELD:
        held = "held"
        hold = [
            f"held = cuda.local.array({per_step * steps}, uint32)",
            *loop("k", "0", str(steps), t.left("q", "held", f"k * {per_step} + ")),
        ]
    tile = [
        *t.scores("s", "q", "k", held),
        *t.masked(i, "other", f"begin + {t.columns} > {whole}"),
        *softmax(t, i),
        *scaled(t),
        *t.add("result", "s", "v"),
    ]
    return [
        *t.at_left("q"),
        *t.at_right("k"),
        *t.at_down("v"),
        *t.registers(s=t.scored, result=t.summed("v"), peak=2 * t.high, sums=2 * t.high, grown=2 * t.high),
        *t.fragments(),
        *nothing(t),
        *t.walk(lambda n: [f"begin = {total(start, f'{n} * {t.columns}')}"], ["k", "v"], "limit", tile, hold),
    ]


def nothing(t: Tiles) -> list[str]:
    """Lines that begin sums: no key has been seen."""
    return [
        *loop("e", "0", str(t.summed("v")), ["result[e] = float32(0.0)"]),
        *loop("t", "0", str(2 * t.high), ["peak[t] = -float32(inf)", "sums[t] = float32(0.0)"]),
    ]


def softmax(t: Tiles, i: str) -> list[str]:
    """Scores become weights beside the new maximum, on whose account results so far are to be ``grown`` times as large.
    Scores and sums are float32."""
    return t.each_row([
        "top = peak[t]",
        *t.each_other([t.register, "top = maximum(top, s[o])"]),
        *t.over_lanes("top", "maximum({}, {})"),
        f"base = select(top == -float32(inf), float32(0.0), {t.score('top')})",
        f"grown[t] = ex2({t.score('peak[t]')} - base)",
        "peak[t] = top",
        "sums[t] = sums[t] * grown[t]",
        *t.each_other([
            t.register,
            f"weight = ex2({t.score('s[o]')} - base)",
            "sums[t] += weight",
            f"s[o] = {t.dropped('weight', i, 'other')}",
        ]),
    ])  # fmt: skip


def scaled(t: Tiles) -> list[str]:
    """Lines that scale what has been summed to the new maximum."""
    across = t.width // 8
    return t.each_row(loop("n", "0", str(across), loop("x", "0", "2", [
        f"o = (m * {across} + n) * 4 + 2 * half + x",
        "result[o] = result[o] * grown[t]",
    ])))  # fmt: skip


def row_total(t: Tiles, nothing: float = 0.0) -> list[str]:
    """For one own row: sets ``total`` to the sum of exponentials, ``empty`` where there are none, ``sums[t]`` to the
    factor of the result, which is ``nothing`` then."""
    return [
        "total = sums[t]",
        *t.over_lanes("total", "{} + {}"),
        "empty = total == float32(0.0)",
        f"sums[t] = select(empty, float32({nothing}), float32(1.0) / total)",
    ]


def logarithm(t: Tiles, empty: str) -> str:
    """The logarithm of a row's sum of exponentials, behind :func:`row_total`; ``empty`` where it is of none."""
    return f"select(empty, float32({empty}), {t.score('peak[t]')} * float32({LN_2!r}) + log(total))"


def write_lse(t: Tiles) -> list[str]:
    return [
        "if own < queries and (lane & 3) == 0:",
        f"    {t.write('lse', t.place('lse', b='b', h='h', i='own'), '0', logarithm(t, 'inf'))}",
    ]

"""The gradient of attention on tensor cores, in two kernels that make the weights again from the saved logarithms.

In one a block owns queries and adds up their gradient while keys and values stream by; in the other it owns keys and
values, and queries with their gradients stream by, for every head that shares the keys. So each sum has one block that
adds it up in one order: no atomics, and the same result every time.
"""

from __future__ import annotations

from engine.dims import ceil_div, product
from engine.program import Lowered, joined
from engine.schedule import Attention, KernelSpec
from runtime.cuda.attention_tiles import LOG2_E, Tiles, planned
from runtime.emit import loop
from runtime.tasks import coordinates

BOTH = 128
"""The most features with which the sums for keys and values both fit a warp's registers."""


def lower_attention_backward(spec: KernelSpec, core: Attention) -> Lowered:
    """The calls for ``spec``, whose core is ``core``: one for each kernel whose results somebody reads."""
    made = [_by_query(spec, core)] if "dq" in core.writes else []
    wanted = tuple(n for n in ("dk", "dv") if n in core.writes)
    if max(core.features, core.width) > BOTH:
        made += [_by_key(spec, core, (name,)) for name in wanted]
    elif wanted:
        made.append(_by_key(spec, core, wanted))
    return joined(made)


def zeros(t: Tiles, **sums: str) -> list[str]:
    """Registers for sums of rows of these arrays."""
    lines = t.registers(**{name: t.summed(array) for name, array in sums.items()})
    for name, array in sums.items():
        lines += loop("e", "0", str(t.summed(array)), [f"{name}[e] = float32(0.0)"])
    return lines


def _by_query(spec: KernelSpec, core: Attention) -> Lowered:
    """The gradient of the queries."""
    t = planned(spec, core, "qg", "kv", 1, core.queries, core.keys)
    space = {"b": core.batch, "h": core.heads, "tile": ceil_div(core.queries, t.own)}
    t.table.declare(tiles=space["tile"])
    rows = t.each_row([
        "logs[t] = float32(inf)",
        "deltas[t] = float32(0.0)",
        "if own < queries:",
        f"    logs[t] = {t.read('lse', t.place('lse', b='b', h='h', i='own'), '0')} * float32({LOG2_E!r})",
        f"    deltas[t] = {t.read('delta', t.place('delta', b='b', h='h', i='own'), '0')}",
    ])  # fmt: skip
    slopes = t.each_row(t.each_other([
        t.register,
        f"weight = ex2({t.score('s[o]')} - logs[t])",
        f"d[o] = weight * ({t.dropped('d[o]', 'own', 'other')} - deltas[t])",
    ]))  # fmt: skip
    edge = f"begin + {t.columns} > " + ("minimum(keys, first + shift + 1)" if core.causal else "keys")
    tile = [
        *t.scores("s", "q", "k"),
        *t.scores("d", "g", "v"),
        *t.masked("own", "other", edge),
        *slopes,
        *t.add("dq", "d", "k"),
    ]
    lines = [
        *coordinates(t.table, "block", space),
        "group = quotient(h, ratio)",
        *(f"{n}_head = {t.place(n, b='b', h='h')}" for n in "qg"),
        *(f"{n}_head = {t.place(n, b='b', h='group')}" for n in "kv"),
        f"first = (tiles - 1 - tile) * {t.own}" if core.causal else f"first = tile * {t.own}",  # the longest first
        *t.shift(),
        f"limit = minimum(keys, maximum(0, first + {t.own} + shift))" if core.causal else "limit = keys",
        f"blocks = quotient(limit + {t.columns - 1}, {t.columns})",
        *(line for n in "qg" for line in t.at_left(n)),
        *(line for n in "kv" for line in t.at_right(n)),
        *t.at_down("k"),
        *t.registers(s=t.scored, d=t.scored, logs=2 * t.high, deltas=2 * t.high),
        *t.fragments(),
        *zeros(t, dq="q"),
        *rows,
        *(line for n in "qg" for line in t.copied(n, "first", "queries")),
        *t.walk(lambda n: [f"begin = {n} * {t.columns}"], ["k", "v"], "limit", tile),
        *t.written("dq", "queries", t.place("dq", b="b", h="h"), f"dq[{{}}] * {t.scale}"),
    ]
    return t.lowered("by_query", lines, product(space.values()))


def _by_key(spec: KernelSpec, core: Attention, wanted: tuple[str, ...]) -> Lowered:
    """The gradients of keys and values, or one of them."""
    t = planned(spec, core, "kv", "qg", 1, core.keys, core.queries)
    space = {"b": core.batch, "group": core.heads // core.ratio, "tile": ceil_div(core.keys, t.own)}

    def place(number: str) -> list[str]:
        head, inside = ["h = group"], number
        if core.ratio > 1:
            head = [f"turn = quotient({number}, maximum(tiles, 1))", "h = group * ratio + turn"]
            inside = f"({number} - turn * tiles)"
        return [
            *head,
            f"begin = start + {inside} * {t.columns}",
            *(f"{n}_head = {t.place(n, b='b', h='h')}" for n in "qg"),
        ]

    weights = t.each_other([
        "at = stage * " + str(t.columns * 4) + " + (n * 8 + (lane & 3) * 2 + x) * 4",
        f"log = ld_shared_f32(lse_tile + at) * float32({LOG2_E!r})",
        "delta = ld_shared_f32(delta_tile + at)",
        *t.each_row([
            t.register,
            f"weight = ex2({t.score('s[o]')} - log)",
            f"factor = {t.dropped('float32(1.0)', 'other', 'own')}",
            "s[o] = weight * factor",
            *(["d[o] = weight * (d[o] * factor - delta)"] if "dk" in wanted else []),
        ]),
    ])  # fmt: skip
    tile = [
        *t.scores("s", "k", "q"),
        *(t.scores("d", "v", "g") if "dk" in wanted else []),
        *t.masked("other", "own", f"first + {t.own} > begin + shift + 1" if core.causal else ""),
        *weights,
        *(t.add("dv", "s", "g") if "dv" in wanted else []),
        *(t.add("dk", "d", "q") if "dk" in wanted else []),
    ]
    sums = {"dk": "q", "dv": "g"}
    lines = [
        *coordinates(t.table, "block", space),
        *(f"{n}_head = {t.place(n, b='b', h='group')}" for n in "kv"),
        f"first = tile * {t.own}",
        *t.shift(),
        f"start = maximum(0, first - shift) // {t.columns} * {t.columns}" if core.causal else "start = 0",
        f"tiles = quotient(maximum(0, queries - start) + {t.columns - 1}, {t.columns})",
        "blocks = tiles * ratio",
        *(line for n in "kv" for line in t.at_left(n)),
        *(line for n in "qg" for line in t.at_right(n)),
        *(line for n in wanted for line in t.at_down(sums[n])),
        *t.registers(s=t.scored, d=t.scored),
        *t.fragments(),
        *zeros(t, **{n: sums[n] for n in wanted}),
        *(line for n in "kv" for line in t.copied(n, "first", "keys")),
        *t.walk(place, ["q", "g", "lse", "delta"], "queries", tile),
        *(line for n in wanted for line in t.written(
            n, "keys", t.place(n, b="b", h="group"), f"{n}[{{}}]" + (f" * {t.scale}" if n == "dk" else "")
        )),
    ]  # fmt: skip
    kind = "by_key" if len(wanted) == 2 else f"by_key_{wanted[0]}"
    return t.lowered(kind, lines, product(space.values()))

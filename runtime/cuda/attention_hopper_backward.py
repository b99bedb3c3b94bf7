"""The gradient of attention by wgmma and TMA (sm_90a), in two kernels as on other GPUs: one owns queries, one owns keys
and values, and each makes the weights again from the saved logarithms and adds up its sums alone."""

from __future__ import annotations

from engine.dims import ceil_div
from engine.dtypes import f32
from engine.program import Lowered, joined
from engine.schedule import Attention, KernelSpec
from runtime.cuda.attention_backward import zeros
from runtime.cuda.attention_hopper_single import hopper_tiles
from runtime.cuda.attention_tiles import LOG2_E
from runtime.cuda.hopper import BOX
from runtime.cuda.hopper_single import BOX as SQUARE


def lower_hopper_backward(spec: KernelSpec, core: Attention) -> Lowered:
    """The calls for ``spec``, which :func:`~runtime.cuda.attention_hopper.takes` says can be these: one for each kernel
    whose results somebody reads."""
    made = [_by_query(spec, core)] if "dq" in core.writes else []
    wanted = tuple(n for n in ("dk", "dv") if n in core.writes)
    if spec.reads[0].dtype == f32 and max(core.features, core.width) > BOX:  # shared memory has room for one of the two
        return joined([*made, *(_by_key(spec, core, (name,)) for name in wanted)])
    return joined([*made, _by_key(spec, core, wanted)] if wanted else made)


def _columns(spec: KernelSpec, core: Attention, most: int) -> int:
    """Streamed rows of a tile, at most ``most``: scores, their gradients and sums share the registers with what masks
    and draws for dropout take, which is unrolled for each score. Of float32 there is a box of them, whose rows and
    columns lie alike whether it is turned over or not."""
    if spec.reads[0].dtype == f32:
        return SQUARE
    wide, masked = max(core.features, core.width) > BOX, "mask" in core.reads
    if "seed" in core.reads or (masked and wide):
        return 32
    return 64 if masked or wide else most


def _by_query(spec: KernelSpec, core: Attention) -> Lowered:
    """The gradient of the queries."""
    t = hopper_tiles(spec, core, _columns(spec, core, 128), 2)
    t.tiles("qg", "kv", "k")
    space, place = t.by_query()
    begin = f"begin = number * {t.columns}"
    fetch = t.fetched_all("qg", "h", [begin], "kv", "group")
    rows = t.each_row([
        "inside = own < queries",
        "at = select(inside, own, 0)",
        f"log = {t.read('lse', t.place('lse', b='b', h='h', i='at'), '0')} * float32({LOG2_E!r})",
        "logs[t] = select(inside, log, float32(inf))",
        f"deltas[t] = {t.read('delta', t.place('delta', b='b', h='h', i='at'), '0')}",
    ])  # fmt: skip
    whole = "minimum(keys, first + (warp >> 2) * 64 + shift + 1)" if core.causal else "keys"
    slopes = t.each_row(t.each_other([
        t.register,
        f"weight = ex2({t.score('s[o]')} - logs[t])",
        f"d[o] = weight * ({t.dropped('d[o]', 'own', 'other')} - deltas[t])",
    ]))  # fmt: skip
    tile = [
        begin,
        *t.scored_by("s", "q", "k"),
        *t.there("v"),
        *t.scored_by("d", "g", "v"),
        f"wgmma_wait_for(s, {t.columns}, 1)",
        *t.masked("own", "other", f"begin + {t.columns} > {whole}"),
        f"wgmma_wait_for(d, {t.columns}, 0)",
        *t.arrive("empty_v + 8 * slot"),
        *slopes,
        *t.packed("words", "d"),
        *t.added("dq", "words", "k", "slot"),
        f"wgmma_wait_for(dq, {t.filled('k')}, 0)",
        *t.arrive("empty_k + 8 * slot"),
    ]
    before = [
        *t.registers(s=t.scored, d=t.scored, dq=t.summed("q"), logs=2, deltas=2),
        *t.weights("words"),
    ]
    work = [
        *zeros(t, dq="q"),
        *rows,
        *t.walked("qg", "k", tile),
        *t.written("dq", "queries", t.place("dq", b="b", h="h"), f"dq[{{}}] * {t.scale}"),
    ]
    return t.warpgroups("by_query", space, place, fetch, (before, work))


def _by_key(spec: KernelSpec, core: Attention, wanted: tuple[str, ...]) -> Lowered:
    """The gradients of keys and values, or one of them."""
    sums = {"dk": "q", "dv": "g"}
    t = hopper_tiles(spec, core, _columns(spec, core, 64), 2)
    own, scored = ("kv", "qg") if "dk" in wanted else ("k", "q")
    t.tiles(own, scored, "".join(sums[n] for n in wanted))
    space = {"b": core.batch, "group": core.heads // core.ratio, "tile": ceil_div(core.keys, t.own)}
    place = [
        f"first = tile * {t.own}",
        *t.shift(),
        f"start = maximum(0, first - shift) // {t.columns} * {t.columns}" if core.causal else "start = 0",
        f"tiles = quotient(maximum(0, queries - start) + {t.columns - 1}, {t.columns})",
        "blocks = tiles * ratio",
    ]
    of_tile = [
        "turned_head = quotient(number, tiles)",
        "h = group * ratio + turned_head",
        f"begin = start + (number - turned_head * tiles) * {t.columns}",
    ]
    fetch = t.fetched_all(own, "group", of_tile, "qg", "h")
    slopes = ["d[o] = weight * (d[o] * factor - delta)"] if "dk" in wanted else []
    weights = [
        "mine = begin + (lane & 3) * 2",
        "left = queries - mine",
        *(f"{n}_at = {t.place(n, b='b', h='h', i='mine')}" for n in ("lse", "delta")),
        *t.each_other([
            "log = float32(inf)",
            "delta = float32(0.0)",
            "if n * 8 + x < left:",
            f"    log = {t.read('lse', 'lse_at', t.along('lse', '(n * 8 + x)'))} * float32({LOG2_E!r})",
            f"    delta = {t.read('delta', 'delta_at', t.along('delta', '(n * 8 + x)'))}",
            *t.each_row([
                t.register,
                f"weight = ex2({t.score('s[o]')} - log)",
                f"factor = {t.dropped('float32(1.0)', 'other', 'own')}",
                "s[o] = weight * factor",
                *slopes,
            ]),
        ]),
    ]  # fmt: skip
    words = {"dk": ("slopes", "d"), "dv": ("words", "s")}
    tile = [
        *of_tile,
        *t.scored_by("s", "k", "q"),
        *t.there("g"),
        *(t.scored_by("d", "v", "g") if "dk" in wanted else []),
        f"wgmma_wait_for(s, {t.columns}, {int('dk' in wanted)})",
        *t.masked("other", "own", f"first + {t.own} > begin + shift + 1" if core.causal else ""),
        *([f"wgmma_wait_for(d, {t.columns}, 0)"] if "dk" in wanted else []),
        *weights,
        *(line for n in wanted for line in t.packed(*words[n])),
        *(line for n in wanted for line in t.added(n, words[n][0], sums[n], "slot")),
        *(f"wgmma_wait_for({n}, {t.filled(n)}, {i})" for i, n in zip((1, 0)[-len(wanted) :], wanted, strict=True)),
        *t.arrive("empty_q + 8 * slot", "empty_g + 8 * slot"),
    ]
    before = [
        *t.registers(s=t.scored, d=t.scored, **{n: t.summed(n) for n in wanted}),
        *t.weights(*(words[n][0] for n in wanted)),
    ]
    work = [
        *zeros(t, **{n: sums[n] for n in wanted}),
        *t.walked(own, "q", tile),
        *(line for n in wanted for line in t.written(
            n, "keys", t.place(n, b="b", h="group"), f"{n}[{{}}]" + (f" * {t.scale}" if n == "dk" else "")
        )),
    ]  # fmt: skip
    kind = "by_key" if len(wanted) == 2 else f"by_key_{wanted[0]}"
    return t.warpgroups(kind, space, place, fetch, (before, work))

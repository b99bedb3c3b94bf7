"""Attention forward by wgmma and TMA (sm_90a): while a tile's scores become weights, the weights of the tile before
are multiplied with its values."""

from __future__ import annotations

from engine.dtypes import f32
from engine.program import Lowered
from engine.schedule import Attention, KernelSpec
from runtime.cuda.attention_forward import nothing, row_total, scaled, softmax, write_lse
from runtime.cuda.attention_hopper import HopperTiles
from runtime.cuda.attention_hopper_single import hopper_tiles
from runtime.emit import indent


def lower_hopper_forward(spec: KernelSpec, core: Attention) -> Lowered:
    """The call for ``spec``, which :func:`~runtime.cuda.attention_hopper.takes` says can be one."""
    t = hopper_tiles(spec, core, _columns(spec, core), 2)
    t.tiles("q", "k", "v")
    space, place = t.by_query()
    fetch = t.fetched_all("q", "h", [f"begin = number * {t.columns}"], "kv", "group")
    return t.warpgroups("forward", space, place, fetch, _multiply(t))


def _columns(spec: KernelSpec, core: Attention) -> int:
    """Keys of a tile. Sums, scores and weights share the registers with what masks and draws for dropout take, which
    is unrolled for each score. float32 takes twice as much of all of it, and twice that with lower parts."""
    widest, masked = max(core.features, core.width), "mask" in core.reads
    if "seed" in core.reads:
        return 32
    if spec.reads[0].dtype == f32:
        most = 32 if masked else 64
        return 64 if widest <= (most if spec.products == "highest" else 2 * most) else 32
    return 64 if masked or widest > 128 else 128


def _multiply(t: HopperTiles) -> tuple[list[str], list[str]]:
    before = [
        *t.registers(s=t.scored, result=t.summed("v"), peak=2, sums=2, grown=2),
        *t.weights("words"),
    ]
    whole = "minimum(keys, first + (warp >> 2) * 64 + shift + 1)" if t.core.causal else "keys"
    weights = [*t.masked("own", "other", f"begin + {t.columns} > {whole}"), *softmax(t, "own")]
    walk = [
        *t.own_there("q"),
        *t.there("k"),
        *t.scored_by("s", "q", "k"),
        f"wgmma_wait_for(s, {t.columns}, 0)",
        *t.arrive("empty_k + 8 * slot"),
        "begin = 0",
        *weights,
        *t.packed("words", "s"),
        "for number in range(1, blocks):",
        *indent([
            "last, last_parity = slot, parity",
            *t.next(),
            *t.there("k"),
            *t.scored_by("s", "q", "k"),
            *t.there("v", "last", "last_parity"),
            *t.added("result", "words", "v", "last"),
            f"wgmma_wait_for(s, {t.columns}, 1)",
            *t.arrive("empty_k + 8 * slot"),
            f"begin = number * {t.columns}",
            *weights,
            f"wgmma_wait_for(result, {t.filled('v')}, 0)",
            *t.arrive("empty_v + 8 * last"),
            *scaled(t),
            *t.packed("words", "s"),
        ]),
        *t.arrive("empty_q"),
        *t.there("v"),
        *t.added("result", "words", "v", "slot"),
        f"wgmma_wait_for(result, {t.filled('v')}, 0)",
        *t.arrive("empty_v + 8 * slot"),
        *t.next(),
    ]  # fmt: skip
    rows = [*row_total(t, t.core.empty), *(write_lse(t) if "lse" in t.core.writes else [])]
    work = [*nothing(t), "if blocks > 0:", *indent(walk), *t.each_row(rows)]
    if "out" in t.core.writes:
        work += t.written("out", "queries", t.place("out", b="b", h="h"), "result[{}] * sums[t]")
    return before, work

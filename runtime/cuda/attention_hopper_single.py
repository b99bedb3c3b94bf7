"""What the kernels of attention of float32 on Hopper do otherwise: idle warps make of a tile what wgmma can multiply.

wgmma takes numbers of 4 bytes from shared memory with k along their rows only. For scores k runs along the features,
as rows lie; for sums of rows it runs along the positions. So the warps beside the one that fetches turn such tiles
over, box by box, where they lie or (if scores need them too) at another place. Where products are to be as exact as
float32's own, they write down lower parts too, as runtime/cuda/hopper_single.py does for products. A third mbarrier
says when a tile is ``ready``.

Left operands are split in registers: weights when they have been made, own rows once for all tiles, or where their
features are too many for that again for each, a few steps at a time. What tensor cores read of a number in shared
memory is its upper part.

A lane has columns 2t and 2t + 1 of eight scores where a left operand of tf32 has t and t + 4. The order of k is free as
long as both operands have the same, so of eight positions the even ones come first in rows that are turned over.
"""

from __future__ import annotations

from engine import dtypes
from engine.schedule import Attention, KernelSpec
from runtime.cuda.assembler import SHARED_LIMIT
from runtime.cuda.attention_hopper import HopperTiles, units
from runtime.cuda.hopper import ROW_BYTES, SWIZZLED
from runtime.cuda.hopper_single import BOX, BOX_BYTES, PREPARING
from runtime.cuda.products import lower_part
from runtime.emit import indent, loop

_ROOM = SHARED_LIMIT["sm_90a"] - 1024
"""Bytes for tiles in shared memory, beside which there are mbarriers."""
_FRAGMENT = 4
"""Registers of a lane for a step of a left operand."""
_HELD = 32
"""Registers of a lane that lower parts of own rows may take, to be there for all tiles."""
_RING = 2
"""Steps whose parts there is room for otherwise."""
_ORDER = (0, 2, 1, 3)
"""Which of four scores that lie together they are."""


class HopperSingleTiles(HopperTiles):
    """Tiles of float32. The parts of a streamed one are, as far as there are such: as it came, the lower parts of that,
    turned over, the lower parts of that. A tile that makes no scores is turned over where it came."""

    traded = (88, 208)
    """As many as it takes to turn tiles over; there is room for what the others keep all the same."""
    traded_more = (104, 200)
    """The same where rows of more than two boxes are turned over to another place."""

    def tiles(self, own: str, scored: str, added: str) -> None:
        self.scoring, self.adding = scored, added
        taken = [self._bytes(n, self.own) for n in own]
        streamed = [self._bytes(n, self.columns) * self.parts(n in scored, n in added) for n in {*scored, *added}]
        if sum(taken) + self.stages * sum(streamed) > _ROOM:
            self.stages = 1
        if any(self.filled(n) > 2 * BOX for n in {*scored} & {*added}):
            self.traded = self.traded_more
        super().tiles(own, scored, added)

    def _bytes(self, name: str, rows: int) -> int:
        return rows * ROW_BYTES * -(-self.filled(name) // BOX)

    def parts(self, scored: bool, added: bool) -> int:
        return (scored + added) * (1 + self.exact) if scored or added else 1

    def turned(self, name: str) -> int:
        """Where a tile has what is turned over, in bytes."""
        return self.boxes[name].bytes * (1 + self.exact) if name in self.scoring else 0

    def in_place(self, name: str) -> bool:
        """Whether a tile is turned over where it came."""
        return name in self.adding and name not in self.scoring

    def prepares(self, name: str) -> bool:
        """Whether a tile has to be prepared."""
        return name in self.adding or (self.exact and name in self.scoring)

    # -- copies

    def fetched_rows(self, name: str) -> int:
        return BOX if self.in_place(name) else super().fetched_rows(name)

    def loads(self, name: str, load: str) -> list[str]:
        if not self.in_place(name):
            return super().loads(name, load)
        boxes = self.boxes[name]
        further = f" + (row * {boxes.across} + box) * {BOX_BYTES}"
        inside = loop("box", "0", str(boxes.across), [load.format(further, f"box * {BOX}", f" + row * {BOX}")])
        return loop("row", "0", str(boxes.rows // BOX), inside)

    def phases(self, name: str) -> dict[str, int]:
        return super().phases(name) | ({"ready": PREPARING} if self.prepares(name) else {})

    def own_there(self, own: str) -> list[str]:
        steps = {n: str(self.filled(n) // self.depth) for n in own}
        held = [line for n in own for line in loop("k", "0", steps[n], self._own_parts(n))]
        return [*super().own_there(own), *(held if self.exact and self.holds() else [])]

    def there(self, name: str, slot: str = "slot", parity: str = "parity") -> list[str]:
        ready = [f"mbarrier_wait(ready_{name} + 8 * {slot}, {parity})"] if self.prepares(name) else []
        return [*super().there(name, slot, parity), *ready]

    # -- preparing

    def beside(self, place: list[str]) -> list[str]:
        work = [line for name in dict.fromkeys(self.scoring + self.adding) for line in self._prepared(name)]
        return [
            "elif thread >= 32:",
            "    lane = thread & 31",
            "    words = cuda.local.array(16, uint32)",
            *["    lower = cuda.local.array(4, uint32)"] * self.exact,
            "    parity = 0",
            *indent(units(place, loop("number", "0", "blocks", [*work, *self.next()]))),
        ]

    def _prepared(self, name: str) -> list[str]:
        """Lines that make the further parts of the tile of the array ``name`` in stage ``slot``."""
        if not self.prepares(name):
            return []
        return [
            f"mbarrier_wait(full_{name} + 8 * slot, parity)",
            f"came = {name}_tile + slot * {self.boxes[name].stage}",
            *(self._lower_parts(name) if self.exact and name in self.scoring else []),
            *(self._turn(name) if name in self.adding else []),
            "fence_proxy_async()",
            "cuda.syncwarp()",
            "if lane == 0:",
            f"    mbarrier_arrive(ready_{name} + 8 * slot)",
        ]

    def _lower_parts(self, name: str) -> list[str]:
        """Lines that write down the lower parts of a tile as it came."""
        size = self.boxes[name].bytes
        return [
            f"for at in range(came + 16 * (thread - 32), came + {size}, {16 * 32 * PREPARING}):",
            "    words[0], words[1], words[2], words[3] = ld_shared_v4_u32(at)",
            *indent(_stored_lower(f"at + {size}", "e")),
        ]

    def _turn(self, name: str) -> list[str]:
        """Lines that turn a tile over, half a box at a time. A lane has a square of four by four: of the chunk
        ``across`` of four features, and of the positions from ``8 * eight`` on the even or the odd ones, which become
        chunk ``2 * eight + odd`` of four features' rows. The half that a warp reads is the half that it writes: with
        eighths (i, j) of positions and features it has (j, i). Eight lanes have eight chunks of both, so that neither
        their loads nor their stores meet in a bank."""
        boxes, turned = self.boxes[name], self.turned(name)
        place = "box" + (f" + {turned}" if turned else "")
        lines = [
            f"source = box + (8 * eight + odd) * {ROW_BYTES} + (across ^ odd) * 16",
            "for i in range(4):",
            f"    at = (source ^ 32 * i) + {2 * ROW_BYTES} * i",
            "    words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = ld_shared_v4_u32(at)",
            "cuda.syncwarp()",
            f"target = {place} + 4 * across * {ROW_BYTES} + (2 * eight + odd ^ 4 * (across & 1)) * 16",
            "for i in range(4):",
            f"    at = (target ^ 16 * i) + {ROW_BYTES} * i",
            "    st_shared_v4_u32(at, words[i], words[4 + i], words[8 + i], words[12 + i])",
            *(indent(_stored_lower(f"at + {boxes.bytes}", "4 * e + i")) if self.exact else []),
        ]
        return [
            "odd = lane & 1",
            f"for half in range((thread >> 5) - 1, {2 * boxes.bytes // BOX_BYTES}, {PREPARING}):",
            f"    box = came + (half >> 1) * {BOX_BYTES}",
            "    across = (lane >> 1 & 3) * 2 + (lane >> 3 & 1)",
            "    eight = across >> 1 ^ ((half & 1) * 2 + (lane >> 4))",
            *indent(lines),
        ]

    # -- products

    def holds(self) -> bool:
        """Whether registers have room for the lower parts of all own rows, which are then made once."""
        return sum(self.filled(n) // 2 for n in self.owned) <= _HELD

    def own_registers(self) -> list[str]:
        lines = [f"{n}_at = {SWIZZLED} | {n}_rows >> 4" for n in self.owned]
        if not self.exact:
            return lines
        row = f"((warp & 3) * 16 + (lane & 15)) * {ROW_BYTES}"
        lines += [f"{n}_row = {n}_rows + {row} + (lane >> 4 ^ lane & 7) * 16" for n in self.owned]
        if self.holds():
            return [*lines, *(f"{n}_low = cuda.local.array({self.filled(n) // 2}, uint32)" for n in self.owned)]
        return [*lines, *(f"step_{part} = cuda.local.array({_RING * _FRAGMENT}, uint32)" for part in ("high", "low"))]

    def _fragment(self, own: str, part: str = "low") -> list[str]:
        """The registers with a part of step ``k`` of own rows: those of a few steps, of whichever array, where they
        are not held. Arrays have even numbers of steps."""
        name, step = (f"{own}_{part}", "k") if self.holds() else (f"step_{part}", f"(k % {_RING})")
        return [f"{name}[{_FRAGMENT} * {step} + {i}]" for i in range(_FRAGMENT)]

    def _own_parts(self, own: str) -> list[str]:
        """Lines that fill the registers with parts of a warpgroup's own rows, for step ``k``."""
        at = f"({own}_row ^ (k & 3) * 32) + (k >> 2) * {self.boxes[own].box}"
        low = self._fragment(own)
        lines = [f"{', '.join(low)} = ldmatrix_x4({at})"]
        for register, high in zip(low, self._fragment(own, "high"), strict=True):
            lines += [*lower_part(register, register), *([] if self.holds() else [f"{high} = upper"])]
        return lines

    def scored_by(self, out: str, own: str, streamed: str) -> list[str]:
        """As it is done for others. Where lower parts are there for all tiles, what is small is added up first, which
        rounds finer; else a step takes all of its left operand from registers."""
        mine, other, columns = self.boxes[own], self.boxes[streamed], self.columns
        steps, small = str(self.filled(own) // self.depth), f"right + {other.bytes >> 4}"
        left = f"left = {own}_at + (k >> 2) * {mine.box >> 4} + (k & 3) * 2"
        right = f"right = tile_at + (k >> 2) * {other.box >> 4} + (k & 3) * 2"
        first = f"tile_at = {SWIZZLED} | {streamed}_tile + slot * {other.stage} >> 4"
        if not self.exact:
            lines = loop("k", "0", steps, [left, right, f"wgmma_tf32({out}, {columns}, left, right, k)"])
            return [first, "wgmma_fence()", *lines, "wgmma_commit()"]
        low = ", ".join(self._fragment(own))
        begun = f"wgmma_tf32_registers({out}, {columns}, {low}, right, k)"
        if self.holds():
            return [
                first,
                "wgmma_fence()",
                *loop("k", "0", steps, [left, right, begun, f"wgmma_tf32({out}, {columns}, left, {small}, 1)"]),
                *loop("k", "0", steps, [left, right, f"wgmma_tf32({out}, {columns}, left, right, 1)"]),
                "wgmma_commit()",
            ]
        high = ", ".join(self._fragment(own, "high"))
        return [
            first,
            *loop("k", "0", steps, [
                f"wgmma_wait({_RING - 1})",  # the products of as many steps before have read their registers
                *self._own_parts(own),
                "wgmma_fence()",
                right,
                begun,
                *(f"wgmma_tf32_registers({out}, {columns}, {high}, {b}, 1)" for b in (small, "right")),
                "wgmma_commit()",
            ]),
        ]  # fmt: skip

    def added(self, out: str, weights: str, streamed: str, slot: str) -> list[str]:
        boxes, turned = self.boxes[streamed], self.turned(streamed)
        tile = f"{streamed}_tile + {slot} * {boxes.stage}" + (f" + {turned}" if turned else "")
        words, lower = (", ".join(f"{w}[4 * k + {i}]" for i in range(_FRAGMENT)) for w in (weights, f"{weights}_low"))
        product = f"wgmma_tf32_registers({out}, {self.filled(streamed)}, {{}}, right{{}}, 1)"
        terms = [(lower, ""), (words, f" + {boxes.bytes >> 4}"), (words, "")] if self.exact else [(words, "")]
        return [
            f"tile_at = {SWIZZLED} | {tile} >> 4",
            "wgmma_fence()",
            *loop("k", "0", str(self.columns // self.depth), [
                f"right = tile_at + (k >> 2) * {boxes.across * BOX_BYTES >> 4} + (k & 3) * 2",
                *(product.format(*term) for term in terms),
            ]),
            "wgmma_commit()",
        ]  # fmt: skip

    def weights(self, *names: str) -> list[str]:
        made = [n for name in names for n in (name, *[f"{name}_low"] * self.exact)]
        return [f"{name} = cuda.local.array({self.columns // 2}, uint32)" for name in made]

    def packed(self, words: str, weights: str) -> list[str]:
        """Lines that make left operands of the weights that lie where scores do."""
        lines = []
        for i, e in enumerate(_ORDER):
            word, weight = f"{words}[4 * n + {i}]", f"{weights}[4 * n + {e}]"
            if self.exact:
                lines += [*lower_part(f"float_bits({weight})", f"{words}_low[4 * n + {i}]"), f"{word} = upper"]
            else:
                lines.append(f"{word} = to_tf32({weight})")
        return loop("n", "0", str(self.across), lines)


def _stored_lower(at: str, word: str) -> list[str]:
    """Lines that write down the lower parts of four ``words``, whose numbers ``word`` says for ``e``."""
    return [
        "for e in range(4):",
        *indent(lower_part(f"words[{word}]", "lower[e]")),
        f"st_shared_v4_u32({at}, lower[0], lower[1], lower[2], lower[3])",
    ]


def hopper_tiles(spec: KernelSpec, core: Attention, columns: int, stages: int) -> HopperTiles:
    """The tiles for operands of ``spec``'s dtype."""
    make = HopperSingleTiles if spec.reads[0].dtype == dtypes.f32 else HopperTiles
    return make(spec, core, columns, stages)

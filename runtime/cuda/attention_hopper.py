"""What the kernels of attention on Hopper (sm_90a) share: the copy engine fetches, two warpgroups multiply.

A block has three warpgroups. One thread of the first asks for boxes of the tiles, as long as stages are free; the other
two own 64 rows each. They make scores with a streamed tile by wgmma, both operands in shared memory, and turn them into
weights in registers, which are then the left operand of the next product: a lane has of 16 rows a warp what it has with
mma, so all that :class:`~runtime.cuda.attention_tiles.Tiles` does with registers is done here as it is there.

Tiles lie in shared memory as boxes of 64 features (of float32, for which runtime/cuda/attention_hopper_single.py has
more, 32), rows of 128 bytes, swizzled as wgmma reads them; what an array has not is zero. They change hands by
mbarriers: ``full`` is over when all bytes have arrived, ``empty`` when both warpgroups have multiplied. There are as
many blocks as processors, each takes one unit of work after another, and while one unit's result is written, the next
one's tiles are being fetched.

Source: Shah, Bikshandi, Zhang, Thakkar, Ramani and Dao (2024), "FlashAttention-3: fast and accurate attention with
asynchrony and low-precision".
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.dims import Size, ceil_div, product
from engine.program import BoxMap, Lowered, Pointer
from engine.schedule import Attention, KernelSpec
from runtime.cuda.attention_tiles import WORDS, Tiles
from runtime.cuda.emit import kernel
from runtime.cuda.hopper import FEW_REGISTERS, GROUP_ROWS, MANY_REGISTERS, ROW_BYTES, SWIZZLED, THREADS, is_multiplied
from runtime.cuda.operands import nonzero
from runtime.cuda.tiles import PROCESSORS
from runtime.emit import call, indent, loop, times
from runtime.tasks import coordinates, typical

GROUPS = THREADS // 128 - 1
"""Warpgroups that multiply: each owns 64 rows."""
WIDEST, WIDEST_WITH_MORE = 256, 128
"""The most features whose sums fit registers: beside scores, and beside what masks, dropout or gradients take too."""
MANY = 256
"""Queries and keys that there are where nobody says how many."""

_STEP = "(k >> 2) * {} + (k & 3) * 32"
"""Where step ``k`` begins in rows of boxes of so many bytes."""

MODULES = {
    "runtime.cuda.ptx": (*WORDS["runtime.cuda.ptx"], "ld_shared_v4_u32", "st_shared_v4_u32"),
    "runtime.cuda.ptx_hopper": (
        "fence_mbarrier_init", "fence_proxy_async", "fence_tensor_map", "mbarrier_arrive", "mbarrier_arrive_expect",
        "mbarrier_init", "mbarrier_wait", "setmaxnreg_dec", "setmaxnreg_inc", "tma_load_4d", "wgmma_bf16",
        "wgmma_bf16_registers", "wgmma_commit", "wgmma_f16", "wgmma_f16_registers", "wgmma_fence", "wgmma_tf32",
        "wgmma_tf32_registers", "wgmma_wait", "wgmma_wait_for",
    ),
}  # fmt: skip


def takes(spec: KernelSpec, core: Attention) -> bool:
    """Whether these kernels serve a spec: operands that wgmma multiplies as exactly as asked for, and that TMA takes,
    which wants rows of aligned chunks; and more rows than one warpgroup owns. Gradients of float32 by one product of
    tf32 do not: their threads would lack a register."""
    t = Tiles(spec, core, 1, 1, 16)
    fetched = [n for n in ("q", "k", "v", "g") if n in t.arrays]
    more = core.backward or {"mask", "seed"} & set(core.reads) or not t.narrow
    widest = WIDEST_WITH_MORE if more else WIDEST
    owned = [core.queries, core.keys] if core.backward else [core.queries]
    fits = max(core.features, core.width) <= widest and all(typical(n, MANY) > GROUP_ROWS for n in owned)
    multiplied = is_multiplied(t.dtype, spec.products) and (t.narrow or t.exact or not core.backward)
    return multiplied and fits and all(map(t.aligned, fetched))


@dataclass(frozen=True)
class Boxes:
    """``rows`` of ``across`` boxes side by side at byte ``start`` of shared memory, ``copies`` times, each of them in
    ``parts``, of which the first is fetched."""

    rows: int
    across: int
    start: int
    copies: int
    parts: int = 1

    @property
    def box(self) -> int:
        return self.rows * ROW_BYTES

    @property
    def bytes(self) -> int:
        return self.box * self.across

    @property
    def stage(self) -> int:
        """Bytes of a copy."""
        return self.bytes * self.parts


class HopperTiles(Tiles):
    """The source of one kernel: a block owns 128 rows, ``columns`` streamed ones are a tile, ``stages`` of them under
    way."""

    traded: tuple[int, int] = (FEW_REGISTERS, MANY_REGISTERS)
    """Registers of the threads that fetch and of those that multiply."""

    def __init__(self, spec: KernelSpec, core: Attention, columns: int, stages: int):
        super().__init__(spec, core, 1, 4 * GROUPS, columns)
        self.threads, self.stages = THREADS, stages
        self.boxes: dict[str, Boxes] = {}

    def by_query(self) -> tuple[dict[str, Size], list[str]]:
        """The tasks of a kernel whose blocks own queries, and lines that set where a task is and how many tiles of keys
        it sees."""
        core, own = self.core, self.own
        space: dict[str, Size] = {"b": core.batch, "h": core.heads, "tile": ceil_div(core.queries, own)}
        self.table.declare(tiles=space["tile"])
        return space, [
            "group = quotient(h, ratio)",
            f"first = (tiles - 1 - tile) * {own}" if core.causal else f"first = tile * {own}",  # the longest first
            *self.shift(),
            f"limit = minimum(keys, maximum(0, first + {own} + shift))" if core.causal else "limit = keys",
            f"blocks = quotient(limit + {self.columns - 1}, {self.columns})",
        ]

    # -- memory

    def tiles(self, own: str, scored: str, added: str) -> None:
        """Shared memory for tiles of the arrays ``own`` and of those that stream by, and maps of all. Of the latter
        ``scored`` make scores with own rows, and rows of ``added`` are what sums consist of."""
        element = ROW_BYTES // self.size
        for name in dict.fromkeys(own + scored + added):
            rows, copies = (self.own, 1) if name in own else (self.columns, self.stages)
            parts = self.parts(name in scored, name in added)
            boxes = Boxes(rows, -(-self.filled(name) // element), self.shared, copies, parts)
            self.boxes[name] = boxes
            self.shared += boxes.stage * copies
            access, few = self.arrays[name], name in "kv"
            heads = self.core.heads // self.core.ratio if few else self.core.heads
            shape = (self.core.batch, heads, self.core.keys if few else self.core.queries, self.given(name))
            at = Pointer(access.buffer, access.offset * self.size)
            strides = tuple(s * self.size for s in access.strides[:3])
            box = BoxMap(at, shape, strides, self.size, (1, 1, self.fetched_rows(name), element))
            self.table.declare(**{f"{name}_map": box})

    def parts(self, scored: bool, added: bool) -> int:
        """How often shared memory has a streamed tile, made into what it is multiplied as."""
        return 1

    def fetched_rows(self, name: str) -> int:
        """Rows of a box as it is fetched."""
        return self.boxes[name].rows

    def along(self, name: str, positions: str) -> str:
        """So many positions of an array further, in elements."""
        stride = self.arrays[name].strides[-1]
        return positions if stride == 1 else times(positions, f"{name}_i" if stride != 0 else "0")

    def barriers(self) -> tuple[list[str], list[str]]:
        """Lines that name the mbarriers of all tiles, behind these in shared memory, and that make them."""
        at, names, made = self.shared, [], []
        for name, boxes in self.boxes.items():
            for kind, arrivals in self.phases(name).items():
                names.append(f"{kind}_{name} = shared + {at}")
                made += loop("i", "0", str(boxes.copies), [f"mbarrier_init({kind}_{name} + 8 * i, {arrivals})"])
                at += 8 * boxes.copies
        self.shared = -(-at // 128) * 128
        return names, made

    def phases(self, name: str) -> dict[str, int]:
        """The mbarriers of a tile, and how many arrivals each waits for."""
        return {"full": 1, "empty": GROUPS}

    def fetched(self, name: str, first: str, head: str, slot: str, parity: str) -> list[str]:
        """Lines of the thread that fetches: the tile of the array ``name`` from row ``first`` on, to copy ``slot`` of
        its boxes, as soon as that is free."""
        boxes = self.boxes[name]
        full, empty = (f"{kind}_{name}" + (f" + 8 * {slot}" if slot else "") for kind in ("full", "empty"))
        place = f"{name}_tile" + (f" + {slot} * {boxes.stage}" if slot else "")
        load = f"tma_load_4d({place}{{}}, {name}_map, {{}}, {first}{{}}, {head}, b, {full})"
        return [
            f"mbarrier_wait({empty}, {parity})",
            f"mbarrier_arrive_expect({full}, {boxes.bytes})",
            *self.loads(name, load),
        ]

    def loads(self, name: str, load: str) -> list[str]:
        """``load`` for each box of a tile, which takes how much further on it lies in the tile, its first feature, and
        how much further on its first row is."""
        boxes = self.boxes[name]
        if boxes.across == 1:
            return [load.format("", "0", "")]
        boxed = load.format(f" + box * {boxes.box}", f"box * {ROW_BYTES // self.size}", "")
        return loop("box", "0", str(boxes.across), [boxed])

    def fetched_all(self, own: str, own_head: str, place: list[str], streamed: str, head: str) -> list[str]:
        """Lines of the thread that fetches, for a unit of work of ``blocks`` streamed tiles, of which ``place`` sets
        for number ``number`` where it begins."""
        mine = [line for n in own for line in self.fetched(n, "first", own_head, "", "own_parity")]
        others = [line for n in streamed for line in self.fetched(n, "begin", head, "slot", "parity")]
        return [
            "if blocks > 0:",
            *indent([*mine, "own_parity ^= 1"]),
            *indent(loop("number", "0", "blocks", [*place, *others, *self.next()])),
        ]

    def walked(self, own: str, first: str, tile: list[str]) -> list[str]:
        """Lines that multiply, for the same unit: ``tile`` for each tile ``number`` in stage ``slot``, where that of
        the array ``first`` has arrived."""
        return [
            "if blocks > 0:",
            *indent(self.own_there(own)),
            *indent(loop("number", "0", "blocks", [*self.there(first), *tile, *self.next()])),
            *indent(self.arrive(*(f"empty_{n}" for n in own))),
        ]

    def own_there(self, own: str) -> list[str]:
        """Lines that wait for the own rows of these arrays."""
        return [*(f"mbarrier_wait(full_{n}, own_parity)" for n in own), "own_parity ^= 1"]

    def own_registers(self) -> list[str]:
        """Registers that :meth:`own_there` fills."""
        return []

    def there(self, name: str, slot: str = "slot", parity: str = "parity") -> list[str]:
        """Lines that wait until the tile of the array ``name`` in a stage may be multiplied."""
        return [f"mbarrier_wait(full_{name} + 8 * {slot}, {parity})"]

    def next(self) -> list[str]:
        """Lines that go on to the next stage."""
        return ["slot += 1", f"if slot == {self.stages}:", "    slot = 0", "    parity ^= 1"]

    # -- products

    def scored_by(self, out: str, own: str, streamed: str) -> list[str]:
        """Lines that begin ``out = own @ streamed^T``: a warpgroup's rows by those of stage ``slot``."""
        return [
            "wgmma_fence()",
            *loop("k", "0", str(self.filled(own) // self.depth), [
                f"left = {self.left_rows(own)}",
                f"right = {self.right_rows(streamed)}",
                f"wgmma_{self.dtype}({out}, {self.columns}, left, right, k, 0, 0)",
            ]),
            "wgmma_commit()",
        ]  # fmt: skip

    def left_rows(self, own: str) -> str:
        """What wgmma is told of a warpgroup's own rows for step ``k`` of their features."""
        return f"{SWIZZLED} | {own}_rows + {_STEP.format(self.boxes[own].box)} >> 4"

    def right_rows(self, streamed: str) -> str:
        """The same of the rows of stage ``slot``."""
        boxes = self.boxes[streamed]
        return f"{SWIZZLED} | {streamed}_tile + slot * {boxes.stage} + {_STEP.format(boxes.box)} >> 4"

    def added(self, out: str, weights: str, streamed: str, slot: str) -> list[str]:
        """Lines that begin ``out += weights @ streamed``: weights are pairs, as :meth:`packed` leaves them."""
        boxes = self.boxes[streamed]
        across = SWIZZLED | boxes.box >> 4 << 16
        words = ", ".join(f"{weights}[4 * k + {i}]" for i in range(4))
        return [
            "wgmma_fence()",
            *loop("k", "0", str(self.columns // 16), [
                f"right = {across} | {streamed}_tile + {slot} * {boxes.stage} + k * {16 * ROW_BYTES} >> 4",
                f"wgmma_{self.dtype}_registers({out}, {self.filled(streamed)}, {words}, right, 1, 1)",
            ]),
            "wgmma_commit()",
        ]  # fmt: skip

    def weights(self, *names: str) -> list[str]:
        """Registers for weights as left operands."""
        return [f"{name} = cuda.local.array({self.columns // 4}, uint32)" for name in names]

    def packed(self, words: str, weights: str) -> list[str]:
        """Lines that round the weights that lie where scores do to pairs of 16-bit numbers."""
        pair = f"pack_{self.dtype}({weights}[2 * e], {weights}[2 * e + 1])"
        return loop("e", "0", str(self.columns // 4), [f"{words}[e] = {pair}"])

    @staticmethod
    def arrive(*barriers: str) -> list[str]:
        """Lines that say of a warpgroup that it has done with some tiles."""
        return ["if thread & 127 == 0:", *(f"    mbarrier_arrive({b})" for b in barriers)]

    # -- the kernel

    def warpgroups(self, kind: str, space: dict[str, Size], place: list[str], fetch: list[str],
                   multiply: tuple[list[str], list[str]]) -> Lowered:  # fmt: skip
        """The kernel. ``place`` follows the coordinates in ``space`` of a unit of work, ``fetch`` is what the thread
        that fetches does for one; what warpgroups that multiply do before the first, and for each."""
        names, made = self.barriers()
        self.table.declare(units=product(space.values()))
        place = [*coordinates(self.table, "unit", space), *place]
        maps = [f"fence_tensor_map({name}_map)" for name in self.boxes]
        before, work = multiply
        lines = [
            "block = cuda.blockIdx.x",
            "thread = cuda.threadIdx.x",
            "shared = shared_memory()",
            *(f"{name}_tile = shared + {boxes.start}" for name, boxes in self.boxes.items()),
            *names,
            "if thread == 0:",
            *indent([*made, "fence_mbarrier_init()"]),
            "cuda.syncthreads()",
            "turns = quotient(units + cuda.gridDim.x - 1, cuda.gridDim.x)",
            "slot = 0",
            "if thread < 128:",
            f"    setmaxnreg_dec({self.traded[0]})",
            "    if thread == 0:",
            *indent([*maps, "parity = 1", "own_parity = 1", *units(place, fetch)], 2),
            *indent(self.beside(place)),
            "else:",
            f"    setmaxnreg_inc({self.traded[1]})",
            "    lane = thread & 31",
            "    warp = (thread >> 5) - 4",
            *indent([f"{name}_rows = {name}_tile + (warp >> 2) * {GROUP_ROWS * ROW_BYTES}" for name in self.owned]),
            *indent([*self.drawing(), *self.own_registers()]),
            *indent([*before, "parity = 0", "own_parity = 0", *units(place, work)]),
        ]
        code = kernel(f"{self.spec.name}_hopper_{kind}", lines, self.table, THREADS, self.shared, modules=MODULES)
        tasks = PROCESSORS * nonzero(product(space.values()))
        return Lowered((call(self.spec, code, self.table, tasks),), (code,))

    def beside(self, place: list[str]) -> list[str]:
        """What threads do that neither fetch nor multiply, as further branches."""
        return []

    @property
    def owned(self) -> list[str]:
        """The arrays of which the block owns rows."""
        return [name for name, boxes in self.boxes.items() if boxes.rows == self.own and boxes.copies == 1]


def units(place: list[str], work: list[str]) -> list[str]:
    """``work`` for each of this block's units of work. Every other round goes through the blocks the other way, so that
    those with long units get short ones."""
    return [
        "for turn in range(turns):",
        "    turned = cuda.gridDim.x - 1 - block if turn & 1 else block",
        "    unit = turn * cuda.gridDim.x + turned",
        "    if unit < units:",
        *indent([*place, *work], 2),
    ]

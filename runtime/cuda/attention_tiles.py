"""What the kernels of attention on tensor cores share: tiles of rows that a block owns, against tiles that stream by.

A block owns ``own`` rows (queries; in the gradient of keys and values, keys). The other side comes ``columns`` rows at
a time, two tiles under way. A warp has ``high`` times 16 of the own rows. It makes their scores with a streamed tile in
registers, where they become weights, and multiplies these with a streamed tile, as they lie: what ``mma`` gives as a
result is what it takes as its left operand. So scores never leave registers, and warps meet only where tiles change.

Tiles lie in shared memory row by row, 16 bytes longer than they need be: then the rows of a fragment are in different
banks. Features are filled up with zeros to whole steps of ``mma``, positions beyond the last with zeros too.

16-bit operands add up in float32. float32 is split into two tf32 numbers and multiplied three times, which leaves an
error near that of float32 (Fasi, Higham, Lopez, Mikaitis and Pranesh (2023), "Matrix multiplication in multiword
arithmetic"), or once where the spec's products need not be exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from engine import dtypes
from engine.dims import Size
from engine.program import Lowered
from engine.records import dataclass
from engine.schedule import Attention, KernelSpec
from runtime.attention_arrays import Arrays
from runtime.cuda.emit import kernel
from runtime.emit import call, indent, loop

SHARED = 99 * 1024
"""Bytes of shared memory that every GPU from compute capability 8.0 on grants a block."""
WARPS = 4
"""The most warps of a block."""
COLUMNS = (64, 32, 16)
"""Streamed rows of a tile."""
LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453
WORDS = {
    "runtime.cuda.ptx": (
        "shared_memory", "ld_shared_u32", "ld_shared_f32", "st_shared_u32", "ldmatrix_x4", "ldmatrix_x4_trans",
        "cp_async_16_zero", "cp_async_4_zero", "cp_async_commit", "cp_async_wait", "mma_m16n8k16_f16",
        "mma_m16n8k16_bf16", "mma_m16n8k8_tf32", "to_tf32", "bits_float", "float_bits", "pack_f16", "pack_bf16", "ex2",
        "shfl_bfly_f32", "shfl_bfly_f64", "shfl_idx_f32", "shfl_idx_f64",
    )
}  # fmt: skip
"""What kernels of attention import beside the usual."""
STEP = 32
"""Bytes of k that one ``mma`` takes: 16 elements of 2 bytes, or 8 of 4."""
RIGHT = ("b0", "b1", "b2", "b3")
"""Registers of the right operands of two products."""
CHUNK = 16
"""Bytes that a thread copies at once, and by which rows are longer than they need be."""


@dataclass(frozen=True)
class Region:
    """``rows`` of ``pitch`` bytes at byte ``start`` of shared memory, ``copies`` times."""

    rows: int
    pitch: int
    start: int
    copies: int = 1

    @property
    def bytes(self) -> int:
        return self.rows * self.pitch


class Tiles(Arrays):
    """The source of one kernel; ``high``, ``warps`` and ``columns`` are described above."""

    def __init__(self, spec: KernelSpec, core: Attention, high: int, warps: int, columns: int):
        super().__init__(spec, core)
        self.narrow = self.size == 2
        self.depth = 16 if self.narrow else 8
        """Elements of k that one ``mma`` takes."""
        self.high, self.warps, self.columns, self.exact = high, warps, columns, spec.products == "highest"
        self.own = 16 * high * warps
        self.threads = 32 * warps
        self.features, self.width = self.whole(core.features), self.whole(core.width)
        self.across = columns // 8
        """Fragments of a row of scores."""
        self.shared = 0
        self.regions: dict[str, Region] = {}

    def whole(self, size: int) -> int:
        """Features filled up to whole steps, and whole pairs of fragments."""
        return -(-size // 16) * 16

    def filled(self, name: str) -> int:
        return self.features if name in ("q", "k", "dq", "dk") else self.width

    def given(self, name: str) -> int:
        return self.core.features if name in ("q", "k", "dq", "dk") else self.core.width

    # -- memory

    def region(self, name: str, rows: int, copies: int = 1) -> None:
        """Shared memory for ``rows`` of the array ``name``."""
        self._reserve(name, Region(rows, self.filled(name) * self.size + CHUNK, self.shared, copies))

    def numbers(self, name: str, copies: int) -> None:
        """Shared memory for one float32 a streamed row."""
        self._reserve(name, Region(1, self.columns * 4, self.shared, copies))

    def _reserve(self, name: str, region: Region) -> None:
        self.regions[name] = region
        self.shared += region.bytes * region.copies

    def aligned(self, name: str) -> bool:
        """Whether every row of an array begins where 16 bytes may be copied at once."""
        access = self.arrays[name]
        return all(s * self.size % CHUNK == 0 for s in (*access.strides[:3], access.offset))

    def copied(self, name: str, first: str, limit: str, stage: str = "") -> list[str]:
        """Copies the rows of the array ``name`` from ``first`` on to its region (of copy number ``stage``): zeros from
        row ``limit`` on, and from the last feature on. The array's head is at ``<name>_head``."""
        region, size = self.regions[name], self.given(name) * self.size
        if name in ("lse", "delta"):
            return self._numbers_copied(name, first, limit, stage)
        chunks = region.pitch // CHUNK - 1
        target = f"{name}_tile + r * {region.pitch} + c * {CHUNK}"
        if stage:
            target += f" + {stage} * {region.bytes}"
        last = (size - 1) // CHUNK
        lines = [
            f"r = quotient(n, {chunks})",
            f"c = n - r * {chunks}",
            f"inside = {first} + r < {limit}",
            f"source = {name}_head + select(inside, {first} + r, 0) * {self.step(name)}",
        ]
        if self.aligned(name):
            amount = str(CHUNK) if size % CHUNK == 0 else f"minimum({CHUNK}, {size} - c * {CHUNK})"
            if last < chunks - 1:
                lines.append(f"inside = inside & (c <= {last})")
            lines += [
                f"source += c * {CHUNK}" if last == chunks - 1 else f"source += minimum(c, {last}) * {CHUNK}",
                f"cp_async_16_zero({target}, source, select(inside, {amount}, 0))",
            ]
        else:
            lines += self._by_element(name, target)
        return [f"for n in range(thread, {region.rows * chunks}, {self.threads}):", *indent(lines)]

    def _numbers_copied(self, name: str, first: str, limit: str, stage: str) -> list[str]:
        return [
            f"for n in range(thread, {self.columns}, {self.threads}):",
            f"    inside = {first} + n < {limit}",
            f"    source = {self.place(name, b='b', h='h', i=f'select(inside, {first} + n, 0)')}",
            f"    cp_async_4_zero({name}_tile + {stage} * {self.columns * 4} + n * 4, source, select(inside, 4, 0))",
        ]

    def _by_element(self, name: str, target: str) -> list[str]:
        """A chunk that begins anywhere in memory, element by element."""
        words: list[str] = []
        for x in range(4 // self.size):
            words += [
                f"e = c * {CHUNK // self.size} + w * {4 // self.size} + {x}",
                f"x{x} = {self.zero()}",
                f"if inside & (e < {self.given(name)}):",
                f"    x{x} = {self.read(name, 'source', 'e')}",
            ]
        word = f"pack_{self.dtype}(x0, x1)" if self.narrow else "float_bits(x0)"
        return loop("w", "0", "4", [*words, f"st_shared_u32({target} + w * 4, {word})"])

    # -- fragments: what a lane has of them lies at its own place in a region, plus a constant

    def at_left(self, name: str) -> list[str]:
        """Sets ``<name>_left``, for left operands from the warp's own rows.

        Of rows of float32, ``ldmatrix`` gives each lane one number where of 16-bit ones it gives two, which is how
        fragments of tf32 lie too.
        """
        row = f"warp * {16 * self.high} + (lane & 15)"
        return [f"{name}_left = {name}_tile + ({row}) * {self.regions[name].pitch} + (lane >> 4) * {CHUNK}"]

    def at_right(self, name: str) -> list[str]:
        """Sets ``<name>_right``, for right operands whose columns are the rows of a streamed tile: for scores."""
        row = "(lane & 7) + (lane >> 4) * 8"
        return [f"{name}_right = {name}_tile + ({row}) * {self.regions[name].pitch} + (lane >> 3 & 1) * {CHUNK}"]

    def at_down(self, name: str) -> list[str]:
        """Sets ``<name>_down``, for right operands whose k runs down the rows of a streamed tile: for sums of rows.

        A lane has columns 2t and 2t + 1 of the scores where a left operand of tf32 has t and t + 4. The order of k is
        free as long as both operands have the same, so it has the rows 2t and 2t + 1 of the right one.
        """
        row, inside = ("lane & 15", f"(lane >> 4) * {CHUNK}") if self.narrow else ("(lane & 3) * 2", "(lane >> 2) * 4")
        return [f"{name}_down = {name}_tile + ({row}) * {self.regions[name].pitch} + {inside}"]

    def left(self, name: str, into: str = "a", first: str = "") -> list[str]:
        """Loads the warp's fragments of an own tile for step ``k`` into ``into``, from register ``first`` on."""
        registers = [f"{into}[{first}4 * m + {i}]" for i in range(4)]
        load = f"{', '.join(registers)} = ldmatrix_x4({name}_left + m * {16 * self.regions[name].pitch} + k * {STEP})"
        return loop("m", "0", str(self.high), [load, *self.split(*registers)])

    def split(self, *words: str) -> list[str]:
        """Rounds words of float32 to tf32; where products are to be exact, what that leaves goes to ``<word>_low``."""
        lines: list[str] = []
        if not self.narrow:
            for word in words:
                low = word.replace("[", "_low[") if "[" in word else f"{word}_low"
                lines += [f"value = bits_float({word})", f"{word} = to_tf32(value)"]
                lines += [f"{low} = to_tf32(value - bits_float({word}))"] * self.exact
        return lines

    def scores(self, out: str, own: str, streamed: str, held: str = "") -> list[str]:
        """``out = own @ streamed^T``: of the warp's rows by the streamed ones. ``held`` names registers that have the
        left operand."""
        region = self.regions[streamed]
        left = f"{held}[k * {4 * self.high} + 4 * m + {{}}]" if held else "a[4 * m + {}]"
        at = f"{streamed}_right + stage * {region.bytes} + k * {STEP} + n * {16 * region.pitch}"
        products = self.products(out, self.across, [f"{', '.join(RIGHT)} = ldmatrix_x4({at})"], left)
        return [
            *loop("e", "0", str(self.scored), [f"{out}[e] = float32(0.0)"]),
            *loop("k", "0", str(self.filled(own) // self.depth), [*([] if held else self.left(own)), *products]),
        ]

    def add(self, out: str, weights: str, streamed: str) -> list[str]:
        """``out += weights @ streamed``: the weights lie where :meth:`scores` puts scores."""
        region = self.regions[streamed]
        at = f"{streamed}_down + stage * {region.bytes} + k * {self.depth * region.pitch}"
        a = [f"a[4 * m + {i}]" for i in range(4)]
        if self.narrow:
            right = [f"{', '.join(RIGHT)} = ldmatrix_x4_trans({at} + n * 32)"]
            words = [f"pack_{self.dtype}({weights}[o + {2 * i}], {weights}[o + {2 * i + 1}])" for i in range(4)]
        else:
            places = (0, region.pitch, 32, region.pitch + 32)
            right = [f"{b} = ld_shared_u32({at} + n * 64 + {p})" for b, p in zip(RIGHT, places, strict=True)]
            words = [f"float_bits({weights}[o + {i}])" for i in (0, 2, 1, 3)]
        left = [
            f"o = (m * {self.across} + k * {self.depth // 8}) * 4",
            *(f"{register} = {word}" for register, word in zip(a, words, strict=True)),
            *self.split(*a),
        ]
        products = self.products(out, self.filled(streamed) // 8, right, "a[4 * m + {}]")
        return loop("k", "0", str(self.columns // self.depth), [*loop("m", "0", str(self.high), left), *products])

    def products(self, out: str, across: int, right: list[str], left: str) -> list[str]:
        """Adds the products of one step to ``out``, of ``across`` fragments a row. ``right`` loads the right operand of
        two fragments, the ``n``-th pair; ``left`` is a register of the left one."""
        a = ", ".join(left.format(i) for i in range(4))
        lines = [f"o = (m * {across} + 2 * n) * 4"]
        for x, (b0, b1) in enumerate((RIGHT[:2], RIGHT[2:])):
            c = ", ".join(f"{out}[o + {4 * x + i}]" for i in range(4))
            terms = [(a, f"{b0}, {b1}")]
            if self.exact and not self.narrow:
                terms = [(a.replace("[", "_low["), f"{b0}, {b1}"), (a, f"{b0}_low, {b1}_low"), *terms]
            name = f"mma_m16n8k16_{self.dtype}" if self.narrow else "mma_m16n8k8_tf32"
            lines += [f"{c} = {name}({term}, {b}, {c})" for term, b in terms]
        return loop("n", "0", str(across // 2), [*right, *self.split(*RIGHT), *loop("m", "0", str(self.high), lines)])

    # -- the walk

    def walk(self, place: Callable[[str], list[str]], streamed: Sequence[str], limit: str, body: list[str],
             before: Sequence[str] = ()) -> list[str]:  # fmt: skip
        """``body`` for each of ``blocks`` tiles, number ``number`` and copy ``stage`` of the regions ``streamed``. The
        next one is copied meanwhile. ``place`` sets ``begin``, a tile's first row, and where its arrays' heads are.
        What is copied before comes with the first tile; ``before`` runs as soon as it is there."""

        def copies(stage: str) -> list[str]:
            return [line for name in streamed for line in self.copied(name, "begin", limit, stage)]

        early = ["cp_async_commit()"] if before else []
        late = ["cp_async_wait(1)", "cuda.syncthreads()", *before] if before else []
        return [
            *early,
            *place("0"),
            "if blocks > 0:",
            *indent(copies("0")),
            "cp_async_commit()",
            *late,
            "for number in range(blocks):",
            *indent([
                "stage = number & 1",
                "cp_async_wait(0)",
                "cuda.syncthreads()",  # the tile is there for all warps, and all are done with the one before it
                "if number + 1 < blocks:",
                *indent([*place("(number + 1)"), *copies("(1 - stage)")]),
                "cp_async_commit()",
                *place("number"),
                *body,
            ]),
        ]  # fmt: skip

    def lowered(self, kind: str, lines: list[str], tasks: Size) -> Lowered:
        head = [
            "block = cuda.blockIdx.x",
            "thread = cuda.threadIdx.x",
            "lane = thread & 31",
            "warp = thread >> 5",
            "shared = shared_memory()",
            *(f"{name}_tile = shared + {region.start}" for name, region in self.regions.items()),
            *self.drawing(),
        ]
        code = kernel(f"{self.spec.name}_{kind}", [*head, *lines], self.table, self.threads, self.shared, modules=WORDS)
        return Lowered((call(self.spec, code, self.table, tasks),), (code,))

    # -- elements

    def registers(self, **sizes: int) -> list[str]:
        return [f"{name} = cuda.local.array({size}, float32)" for name, size in sizes.items()]

    def fragments(self) -> list[str]:
        """Registers for left operands, two 16-bit numbers or one tf32 number each."""
        names = ["a"] + ["a_low"] * (self.exact and not self.narrow)
        return [f"{name} = cuda.local.array({4 * self.high}, uint32)" for name in names]

    @property
    def scored(self) -> int:
        """Registers that hold a warp's scores with a tile."""
        return 4 * self.high * self.across

    def summed(self, name: str) -> int:
        """Registers that hold a sum of rows of an array for each of a warp's rows."""
        return self.high * self.filled(name) // 2

    def each_row(self, lines: list[str]) -> list[str]:
        """``lines`` for each own row of which this lane has a part: number ``own``, the ``t``-th of the lane."""
        return loop("m", "0", str(self.high), loop("half", "0", "2", [
            "t = 2 * m + half",
            f"own = first + warp * {16 * self.high} + m * 16 + half * 8 + (lane >> 2)",
            *lines,
        ]))  # fmt: skip

    def each_other(self, lines: list[str]) -> list[str]:
        """``lines`` for each of the streamed rows of which this lane has a part: number ``other``."""
        return loop("n", "0", str(self.across), loop("x", "0", "2", [
            "other = begin + n * 8 + (lane & 3) * 2 + x", *lines
        ]))  # fmt: skip

    @property
    def register(self) -> str:
        """Sets ``o``, the register of the score of an own and a streamed row."""
        return f"o = (m * {self.across} + n) * 4 + 2 * half + x"

    def over_lanes(self, name: str, operation: str) -> list[str]:
        """Combines the numbers ``name`` of the four lanes that share a row."""
        return [f"{name} = " + operation.format(name, f"shfl_bfly_f32({name}, {step})") for step in (1, 2)]

    @property
    def factor(self) -> float:
        """What turns a product into a score, in powers of two."""
        return self.core.scale * LOG2_E

    @property
    def adds(self) -> bool:
        """Whether the mask is added to the scores."""
        return "mask" in self.arrays and self.arrays["mask"].dtype != dtypes.bool_

    @property
    def scaled(self) -> bool:
        """Whether products become scores before exponentials are taken: in one step with these only if that keeps their
        order."""
        return self.adds or self.core.scale <= 0

    @property
    def scale(self) -> str:
        return f"float32({self.core.scale!r})"

    def score(self, s: str) -> str:
        """The score that register ``s`` stands for behind :meth:`masked`, in powers of two."""
        return s if self.scaled else f"{s} * float32({self.factor!r})"

    def masked(self, i: str, j: str, edge: str) -> list[str]:
        """Sets the scores ``s`` of queries ``i`` that do not see key ``j`` to minus infinity, and adds the mask.
        Without a mask there are such only where ``edge``; "": nowhere."""
        seen = [f"{j} < keys", *[f"{j} <= {i} + shift"] * self.core.causal]
        score = f"s[o] * float32({self.factor!r})" if self.scaled else "s[o]"
        if "mask" in self.arrays:
            mask = self.read("mask", self.place("mask", b="b", h="h", i=i, j=j), "0")
            seen = [f"{i} < queries", *seen, *([] if self.adds else [mask])]
            new = f"{score} + {mask} * float32({LOG2_E!r})" if self.adds else score
            hide = [f"if {' and '.join(seen)}:", f"    s[o] = {new}", "else:", "    s[o] = -float32(inf)"]
            return self.each_row(self.each_other([self.register, *hide]))
        lines = self.each_row(self.each_other([self.register, f"s[o] = {score}"])) if self.scaled else []
        if edge:
            hide = [f"s[o] = select({' & '.join(f'({c})' for c in seen)}, s[o], -float32(inf))"]
            lines += [f"if {edge}:", *indent(self.each_row(self.each_other([self.register, *hide])))]
        return lines

    def written(self, name: str, limit: str, head: str, value: str) -> list[str]:
        """Writes ``value``, of which ``{}`` is the register, to the own rows before ``limit`` of the array ``name``."""
        features, across = self.given(name), self.filled(name) // 8
        access = self.arrays[name]
        write = [self.write(name, "at", "e", value.format("o"))]
        second = self.write(name, "at", "e + 1", value.format("o + 1"))
        if features % 2:
            write += [f"if e + 1 < {features}:", f"    {second}"]
        elif self.narrow:
            pair = f"{value.format('o')}, {value.format('o + 1')}"
            write = [f"store2_{access.dtype}(at, e, {pair}, {self.table.scope(access.buffer)})"]
        else:
            write.append(second)
        if features % 8:
            write = [f"if e < {features}:", *indent(write)]
        return self.each_row([
            f"if own < {limit}:",
            *indent([
                f"at = {head} + own * {self.step(name)}",
                *loop("n", "0", str(-(-features // 8)), [
                    f"o = (m * {across} + n) * 4 + 2 * half", "e = n * 8 + (lane & 3) * 2", *write
                ]),
            ]),
        ])  # fmt: skip


def planned(spec: KernelSpec, core: Attention, own: str, streamed: str, high: int, rows: Size, others: Size,
            make: type[Tiles] = Tiles) -> Tiles:  # fmt: skip
    """Tiles with regions for the arrays ``own`` and ``streamed``: as large as fit shared memory, yet no larger than
    ``rows`` own and ``others`` streamed rows need, where these are known."""
    most = WARPS
    if isinstance(rows, int):
        high = high if rows > 16 * WARPS else 1
        most = min(WARPS, max(1, -(-rows // (16 * high))))
    needed = others if isinstance(others, int) else COLUMNS[0]
    # A draw is long, for many scores it is not unrolled; and what a mask has for them takes registers.
    widths = COLUMNS[1:] if "seed" in core.reads or ("mask" in core.reads and high > 1) else COLUMNS
    enough = [columns for columns in widths if needed > columns // 2] or COLUMNS[-1:]
    for warps, columns in product(range(most, 0, -1), enough):
        t = make(spec, core, high, warps, columns)
        for name in own:
            t.region(name, t.own)
        for name in streamed:
            t.region(name, columns, copies=2)
        if streamed == "qg":
            t.numbers("lse", copies=2)
            t.numbers("delta", copies=2)
        if t.shared <= SHARED:
            break
    return t

"""Lowering the weight gradient of a convolution of small groups: the sums of depthwise_weight_grad.py, for each output.

A vector holds the inputs of several groups (see group_lanes.py). The sums of some taps stay in registers while the
microkernel walks a row of the tile: of every point it loads the inputs that these taps meet, and the outputs' gradient,
which it hands to all inputs of their group.
"""

from __future__ import annotations

from engine import dtypes
from engine.buffers import Buffer
from engine.program import Call, Kernel, Lowered
from engine.records import dataclass
from engine.schedule import ConvWeightGrad, KernelSpec
from runtime.cpu.contraction import row_blocks
from runtime.cpu.conv_groups import SmallGroups, small_groups
from runtime.cpu.depthwise import PATCH_BYTES, WIDEST
from runtime.cpu.depthwise_weight_grad import DepthwiseGradTile, add_chunks, planned, sum_tiles
from runtime.cpu.tiles import Tile, host_registers
from runtime.emit import SCRATCH, ArgTable, BodyEmitter, loop, note
from runtime.tasks import coordinates, piece


@dataclass(frozen=True)
class GroupGradTile(DepthwiseGradTile):
    """The blocking, for ``taken`` groups a task. Its sums are ``[panel][tap][output][input]``, outputs of a group."""

    taken: SmallGroups

    @property
    def tile(self) -> Tile:
        """The sums that are made at a time, of so many taps."""
        outputs = self.taken.lanes.outputs  # registers for them, for what meets them, and for a gradient
        return Tile(min((host_registers() - 2) // (outputs + 1), len(self.taps)), outputs, self.taken.lanes.lanes)

    @property
    def rows(self) -> int:
        """Taps, filled up to whole microkernels."""
        return -(-len(self.taps) // self.tile.rows) * self.tile.rows

    @property
    def outputs(self) -> int:
        return self.taken.groups * self.taken.lanes.outputs

    @property
    def copies(self) -> bool:
        return True

    @property
    def blocks(self) -> int:
        return self.core.groups // self.taken.groups

    @property
    def block(self) -> int:
        return self.taken.panels * self.rows * self.taken.row


def small_gradient(core: ConvWeightGrad) -> SmallGroups | None:
    """How tasks take the groups of ``core``, if this kernel serves it."""
    dtype = dtypes.promote(core.x.dtype, core.dy.dtype)
    return small_groups(core, dtype.computed) if dtype.is_float else None


def lower_groups_grad(spec: KernelSpec, taken: SmallGroups) -> Lowered:
    """The calls for ``spec``, whose core is a ConvWeightGrad of small groups: sums, then their total with the body."""
    core = spec.core
    assert isinstance(core, ConvWeightGrad)
    dtype = dtypes.promote(core.x.dtype, core.dy.dtype).computed
    channels, width = taken.groups * taken.lanes.inputs, piece(core.out_size[1], WIDEST)
    plan = planned(GroupGradTile(core, dtype, (1, width), channels, 1, taken), PATCH_BYTES)
    partial = Buffer(f"{spec.name}.partial", "temp", dtype, plan.chunks * plan.blocks * plan.block)
    sums, sums_code = _sums(spec, plan, partial)
    combine, combine_code = _combine(spec, plan, partial)
    return Lowered((sums, combine), (sums_code, combine_code), (partial,))


def _sums(spec: KernelSpec, plan: GroupGradTile, partial: Buffer) -> tuple[Call, Kernel]:
    """The call that adds up the tiles of every chunk. Before all tasks it writes down where in the patch the inputs of
    every panel are, for every row of a tile and every tap."""
    core, taken, tile, patch, size = plan.core, plan.taken, plan.tile, plan.patch, plan.dtype.itemsize
    table = ArgTable()
    table.declare(
        tap_h=patch.tap(0), tap_w=patch.tap(1), kernel_w=core.kernel[1], taps=len(plan.taps), rows=plan.rows,
        panels=taken.panels,
    )  # fmt: skip
    place = f"patch + v * {taken.panel_inputs * size} + r * step_h + kh * tap_h + (tap - kh * kernel_w) * tap_w"
    start = loop("v", "0", "panels", loop("r", "0", "tall", loop("i", "0", "rows", [
        "tap = minimum(i, taps - 1)",
        "kh = quotient(tap, kernel_w)",
        note("table", "(v * tall + r) * rows + i", place, table.scope(SCRATCH)),
    ])))  # fmt: skip
    names = [tile.name(plan.dtype, height, False, True, f"spread{taken.lanes.inputs}") for height in tile.heights]
    call = (
        f"{{tile}}(1, tile_w, step_w, table + ((v * tall + r) * rows + tap) * 8, slope, outputs * {size}, "
        f"sums + tap * {taken.row * size}, {taken.row * size}, 1)"
    )
    walk = loop("v", "0", "panels", [
        f"sums = block + v * rows * {taken.row * size}",
        *loop("r", "0", "tile_h", [
            f"slope = slopes + (r * wide * outputs + v * {taken.panel_outputs}) * {size}",
            *row_blocks(names, tile.heights, call, "0", "taps", "tap"),
        ]),
    ])  # fmt: skip
    parts = {"beyond": taken.row * size, "table": taken.panels * plan.size[0] * plan.rows * 8}
    return sum_tiles(spec, plan, partial, table, walk, start, parts, {"runtime.cpu.microkernel": names})


def _combine(spec: KernelSpec, plan: GroupGradTile, partial: Buffer) -> tuple[Call, Kernel]:
    """The call that adds up the chunks and runs the body on the total, for the groups of one panel a task."""
    taken, lanes = plan.taken, plan.taken.lanes
    table = ArgTable()
    table.declare(groups=taken.groups, kernel_h=plan.core.kernel[0], kernel_w=plan.core.kernel[1])

    def body(emitter: BodyEmitter) -> list[str]:
        return [
            *coordinates(table, "task", {"block": plan.blocks, "panel": taken.panels}),
            f"present = minimum({lanes.count}, groups - panel * {lanes.count})",
            *loop("g", "0", "present", [
                *emitter.enter(0, f"block * groups + panel * {lanes.count} + g"),
                *loop("o", "0", str(lanes.outputs), [
                    *emitter.enter(4, "o"),
                    *loop("i", "0", str(lanes.inputs), [
                        *emitter.enter(3, "i"),
                        *loop("kh", "0", "kernel_h", [
                            *emitter.enter(1, "kh"),
                            *loop("kw", "0", "kernel_w", emitter.enter(2, "kw", inline=True)),
                        ]),
                    ]),
                ]),
            ]),
        ]  # fmt: skip

    place = f"(kh * kernel_w + kw) * {taken.row} + o * {lanes.lanes} + g * {lanes.inputs} + i"
    return add_chunks(spec, plan, partial, table, plan.rows * taken.row, plan.blocks * taken.panels, place, body)

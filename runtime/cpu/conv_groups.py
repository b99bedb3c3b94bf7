"""Convolutions of small groups: which they are, how many groups a task takes, and how their weights are packed.

A group of four channels fills a quarter of a vector. So a task takes several groups as if they were one, whose vectors
hold the inputs of a few of them side by side (see group_lanes.py); no product is made that is not wanted.
"""

from __future__ import annotations

from engine.buffers import Buffer
from engine.dims import Size, product
from engine.dtypes import DType
from engine.program import Call, Pointer
from engine.records import dataclass
from engine.schedule import Conv2d, ConvWeightGrad, KernelSpec
from runtime.cpu.emit import kernel
from runtime.cpu.group_lanes import GroupLanes
from runtime.cpu.packing import Axis, Packed
from runtime.cpu.tiles import Tile, host_registers, host_tile
from runtime.emit import ArgTable, cast, constant, load, loop, store
from runtime.tasks import coordinates, divisor

CHANNELS = 32
"""About how many inputs a task takes."""
MOST_OUTPUTS = 8
"""With more outputs a group's sums would not fit the registers for enough rows at once."""
MOST_ROWS = 8


@dataclass(frozen=True)
class SmallGroups:
    """``groups`` groups, as ``lanes`` hold them, that a task takes as one."""

    groups: int
    lanes: GroupLanes

    @property
    def panels(self) -> int:
        """Vectors of inputs, each of which has weights of its own."""
        return -(-self.groups // self.lanes.count)

    @property
    def panel_inputs(self) -> int:
        return self.lanes.count * self.lanes.inputs

    @property
    def panel_outputs(self) -> int:
        return self.lanes.count * self.lanes.outputs

    @property
    def row(self) -> int:
        """Packed weights of one tap."""
        return self.lanes.outputs * self.lanes.lanes

    @property
    def tile(self) -> Tile:
        """The sums that are made at a time, of so many points."""
        outputs = self.lanes.outputs  # registers for them, for a row of weights, and for what meets it
        rows = min((host_registers() - outputs) // (outputs + 1), MOST_ROWS)
        return Tile(max(rows, 1), outputs, self.lanes.lanes)  # with few registers weights are read where they lie


def small_groups(core: Conv2d | ConvWeightGrad, dtype: DType) -> SmallGroups | None:
    """How tasks take the groups of ``core``, computed in ``dtype``; None where a group fills vectors by itself, or
    where its numbers of channels do not go into each other."""
    inputs, outputs, lanes = core.group_inputs, core.group_outputs, host_tile(dtype).lanes
    least, most = sorted((inputs, outputs))
    together = lanes // inputs
    if not (together > 1 < core.groups and outputs <= MOST_OUTPUTS) or most % least:
        return None
    if outputs > inputs and (outputs // inputs).bit_count() > 1:
        return None
    blocks = core.groups // together
    groups = core.groups
    if blocks * together == groups:
        groups = together * divisor(blocks, max(CHANNELS // (together * inputs), 1))
    return SmallGroups(groups, GroupLanes(inputs, outputs, lanes))


def pack_groups(spec: KernelSpec, core: Conv2d, taken: SmallGroups, offset: Size, taps: list[Axis],
                dtype: DType) -> Packed:  # fmt: skip
    """The call that packs the weights of ``core``, whose groups are tasks', from the first tap's at ``offset``:
    ``[group][panel][kh, kw][sum][lane]``."""
    target, lanes = f"{spec.name}.weights", taken.lanes
    table = ArgTable()
    table.declare(
        source=Pointer(core.w.buffer, offset * core.w.dtype.itemsize), packed=Pointer(target), w_group=core.w_group,
        w_o=core.w.strides[0], w_i=core.w.strides[1], taps_h=taps[0].size, taps_w=taps[1].size, w_h=taps[0].stride,
        w_w=taps[1].stride, groups=taken.groups,
    )  # fmt: skip
    space: dict[str, Size] = {"block": core.groups, "panel": taken.panels}
    scope = table.scope(target)
    place = f"g * w_group + (q - q % {lanes.run} + (i + q) % {lanes.run}) * w_o + i * w_i"
    value = cast(load(core.w.dtype, "tap", place, table.scope(core.w.buffer)), core.w.dtype.computed, dtype)
    task = [
        *coordinates(table, "task", space),
        f"first = panel * {lanes.count}",
        f"present = minimum({lanes.count}, groups - first)",
        f"out = packed + task * taps_h * taps_w * {taken.row * dtype.itemsize}",
        *loop("kh", "0", "taps_h", loop("kw", "0", "taps_w", [
            f"tap = source + ((block * groups + first) * w_group + kh * w_h + kw * w_w) * {core.w.dtype.itemsize}",
            *loop("q", "0", str(lanes.outputs), [
                *loop("j", "0", str(lanes.lanes), [store(dtype, "out", "j", constant(0, dtype), scope)]),
                *loop("g", "0", "present", loop("i", "0", str(lanes.inputs), [
                    store(dtype, "out", f"g * {lanes.inputs} + i", value, scope),
                ])),
                f"out += {lanes.lanes * dtype.itemsize}",
            ]),
        ])),
    ]  # fmt: skip
    code = kernel(f"pack_groups_{core.w.dtype}", loop("task", "lo", "hi", task), table)
    tasks = product(space.values())
    call = Call(code.key, f"pack {target}", table.args, tasks, (core.w.buffer,), (target,), nodes=spec.nodes)
    return Packed(call, code, Buffer(target, "temp", dtype, tasks * product(core.kernel) * taken.row))

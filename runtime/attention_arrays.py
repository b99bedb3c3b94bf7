"""What a kernel of attention touches, as source text: the same for every backend."""

from __future__ import annotations

from engine import dtypes
from engine.dtypes import DType
from engine.program import Pointer
from engine.schedule import Access, Attention, KernelSpec
from runtime.emit import ArgTable, cast, constant, load, store, times, total

_AXES = {"mask": "bhij", "offset": "b", "lse": "bhi", "delta": "bhi", "seed": "", "step": ""}
"""The axes of what an attention kernel touches; of everything else batch, head and position."""


class Arrays:
    """The arrays of one kernel by name. Sizes and strides are arguments of the kernel; a stride of 0 is left out."""

    def __init__(self, spec: KernelSpec, core: Attention):
        self.spec, self.core = spec, core
        self.arrays: dict[str, Access] = dict(zip(core.reads, spec.reads, strict=True))
        self.arrays |= dict(zip(core.writes, spec.writes, strict=True))
        self.dtype: DType = self.arrays["q"].dtype
        self.size = self.dtype.itemsize
        self.table = ArgTable()
        self.table.declare(heads=core.heads, queries=core.queries, keys=core.keys, ratio=core.ratio)
        for name, access in self.arrays.items():
            self.table.declare(**{f"{name}_base": Pointer(access.buffer, access.offset * access.dtype.itemsize)})
            axes = _AXES.get(name, "bhi")
            self.table.declare(**{f"{name}_{a}": s for a, s in zip(axes, access.strides, strict=False) if s != 0})

    def zero(self) -> str:
        return constant(0, self.dtype)

    def number(self, value: float) -> str:
        return constant(value, self.dtype)

    def place(self, name: str, **at: str) -> str:
        """The address of an element of an array at these indices of its axes."""
        access = self.arrays[name]
        axes = dict(zip(_AXES.get(name, "bhi"), access.strides, strict=False))
        steps = [times(index, f"{name}_{a}") for a, index in at.items() if axes[a] != 0]
        return f"{name}_base + ({total(*steps)}) * {access.dtype.itemsize}"

    def step(self, name: str) -> str:
        """The bytes from one position of an array to the next."""
        return f"{name}_i * {self.size}" if self.arrays[name].strides[2] != 0 else "0"

    def read(self, name: str, pointer: str, index: str) -> str:
        access = self.arrays[name]
        return load(access.dtype, pointer, index, self.table.scope(access.buffer))

    def write(self, name: str, pointer: str, index: str, value: str) -> str:
        access = self.arrays[name]
        return store(access.dtype, pointer, index, value, self.table.scope(access.buffer))

    def shift(self) -> list[str]:
        """Sets ``shift``, the position among the keys of the first query of the batch's example ``b``."""
        if not self.core.causal:
            return []
        if "offset" not in self.arrays:
            return ["shift = 0"]
        dtype = self.arrays["offset"].dtype
        return [f"shift = {cast(self.read('offset', self.place('offset', b='b'), '0'), dtype, dtypes.i64)}"]

    def drawing(self) -> list[str]:
        """Sets what draws for dropout are numbered from."""
        if "seed" not in self.arrays:
            return []
        self.table.declare(stream=self.core.stream)
        return [f"seed = {self.read('seed', 'seed_base', '0')}", f"step = {self.read('step', 'step_base', '0')}"]

    def dropped(self, value: str, i: str, j: str) -> str:
        """``value`` of query ``i`` and key ``j`` times its factor."""
        if "seed" not in self.arrays:
            return value
        drawn = f"uniform_{self.dtype.computed}(seed, step, stream, ((b * heads + h) * queries + {i}) * keys + {j})"
        kept = f"{value} * {self.number(1 / (1 - self.core.dropout))}"
        return f"select({drawn} >= {self.number(self.core.dropout)}, {kept}, {self.zero()})"

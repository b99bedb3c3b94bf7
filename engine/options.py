"""What a compilation is asked for beside the graph and the target: part of the identity of its program."""

from __future__ import annotations

from engine.dtypes import DType, f32
from engine.memory import MemoryLimit
from engine.records import dataclass
from engine.tuning import Tuning


@dataclass(frozen=True)
class Options:
    """``level`` of optimisation (0 to 3); ``precision``, the dtype that contractions compute in (passes/
    mixed_precision.py; f32 leaves the graph as it was traced); ``products``, how exact those of float32 are on tensor
    cores (``"highest"``, ``"high"`` or ``"medium"``); ``limit``, the memory that the program may take; ``autotune``
    asks for measurements, and ``tuning`` is what these have found."""

    level: int = 2
    precision: DType = f32
    products: str = "highest"
    limit: MemoryLimit | None = None
    autotune: bool = False
    tuning: Tuning | None = None

    @property
    def key(self) -> str:
        """What of the options tells programs of one graph apart, as part of a key in the cache. Backends whose kernels
        depend on ``products`` add them."""
        limit = "" if self.limit is None else f" memory={self.limit.nbytes} at {sorted(self.limit.sizes.items())}"
        choices = "" if self.tuning is None or not self.tuning.key else f" choices={self.tuning.key}"
        return f"level={self.level} precision={self.precision}{limit}{choices}"


DEFAULT = Options()

"""The body behind a product, run on its sums while they are in registers: what they make is all that is stored.

That takes plain arithmetic with what is the same for all rows, as a bias, a folded norm and a clipped relu are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.dtypes import DType
from engine.schedule import Access, Stmt
from runtime.cpu.contraction import rows_by_height
from runtime.cpu.tiles import Tile
from runtime.emit import BodyEmitter

ARITHMETIC = frozenset(["core", "load", "const", "add", "sub", "mul", "maximum", "minimum"])
"""What a body may do on values that stay in registers."""


def is_arithmetic(body: Sequence[Stmt], reads: Sequence[Access], dtype: DType) -> bool:
    """Whether ``body``, over the axes of an image, can run in registers of ``dtype``."""
    read = [reads[int(s.args[0])] for s in body if s.op == "load"]
    return all(s.op in ARITHMETIC and s.dtype == dtype for s in body) and all(
        a.dtype == dtype and a.strides[1:] == (0, 0, 1) for a in read
    )


class RegisterBody:
    """The lines of a body, of which ``value`` is the result; ``emitter`` has entered the axis of images. ``modules`` is
    what the lines import."""

    def __init__(self, emitter: BodyEmitter, value: str, dtype: DType, tag: str = "") -> None:
        self.emitter, self.value, self.dtype, self.tag = emitter, value, dtype, tag
        self.modules: dict[str, Sequence[str]] = {}

    def lines(self, tile: Tile, kind: tuple[bool, bool, str], call: str, channel: str, rows: str,
              finish: str, before: Sequence[str] = ()) -> list[str]:  # fmt: skip
        """Lines that multiply ``rows`` rows, by ``r``, by a panel whose first column is ``channel``, run the body, and
        then ``finish``; before each tile go the lines ``before``. ``kind`` is as for :meth:`Tile.name`, ``call`` the
        microkernel's arguments. A ``{shape}`` is that of the tile, in ``finish`` the ``{value}`` what the body makes.
        """
        across = f"{tile.vectors}x{tile.lanes}"
        row = self.emitter.fork(tag=f"{self.tag}{across}_", row=f"{self.dtype}_{across}")
        lines, ways = row.enter(3, channel, inline=True), []
        words = [f"load_row_{self.dtype}_{across}"]
        for height in tile.heights:
            shape = f"{height}x{across}"
            name = f"{tile.name(self.dtype, height, *kind)}_sums"
            body = row.fork(core={0: f"sums{shape}"}, tag=f"{self.tag}{shape}_")
            placed = [*body.enter(1, "0"), *body.enter(2, "0")]
            texts = {"shape": f"{self.dtype}_{shape}", "value": body.value(self.value)}
            first, last = [line.format(**texts) for line in before], finish.format(**texts)
            ways.append([*first, f"sums{shape} = {name}({call})", *placed, last])
            self._import("runtime.cpu.microkernel", [name])
            words += re.findall(r"\w+_rows_\w+", " ".join([*first, last]))
        self._import("runtime.cpu.register_tiles", words)
        return [*lines, *rows_by_height(ways, tile.heights, "0", rows, "r")]

    def _import(self, module: str, names: Sequence[str]) -> None:
        self.modules[module] = (*self.modules.get(module, ()), *names)

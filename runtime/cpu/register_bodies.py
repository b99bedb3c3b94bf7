"""The body behind a product, run on its sums while they are in registers: what they make is all that is stored.

That takes plain arithmetic with what is the same for all rows, as a bias, a folded norm and a clipped relu are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.dtypes import DType
from engine.records import dataclass
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


@dataclass(frozen=True)
class Pooled:
    """The largest of each ``window`` neighbouring rows of sums is taken, after a body of its own, whose ``emitter`` has
    entered the axis of images and whose result is ``value``."""

    emitter: BodyEmitter
    value: str
    window: int


def _whole_windows(heights: Sequence[int], window: int) -> tuple[int, ...]:
    """``heights`` of microkernels, cut to whole windows of so many rows."""
    return tuple(dict.fromkeys(max(height // window, 1) * window for height in heights))


class RegisterBody:
    """The lines of a body, of which ``value`` is the result; ``emitter`` has entered the axis of images. It runs on the
    sums, or what they are ``pooled`` to. ``modules`` is what the lines import."""

    def __init__(self, emitter: BodyEmitter, value: str, dtype: DType, tag: str = "", pooled: Pooled | None = None):
        self.emitter, self.value, self.dtype, self.tag, self.pooled = emitter, value, dtype, tag, pooled
        self.modules: dict[str, Sequence[str]] = {}

    def lines(self, tile: Tile, kind: tuple[bool, bool, str], call: str, channel: str, rows: str,
              finish: str, before: Sequence[str] = ()) -> list[str]:  # fmt: skip
        """Lines that multiply ``rows`` rows, by ``r``, by a panel whose first column is ``channel``, run the body, and
        then ``finish``; before each tile go the lines ``before``. ``kind`` is as for :meth:`Tile.name`, ``call`` the
        microkernel's arguments. A ``{shape}`` is that of the tile, in ``finish`` the ``{value}`` what the body makes
        and its shape.
        """
        across, pooled = f"{tile.vectors}x{tile.lanes}", self.pooled
        width = f"{self.dtype}_{across}"
        row = self.emitter.fork(tag=f"{self.tag}{across}_", row=width)
        lines, ways = row.enter(3, channel, inline=True), []
        words = [f"load_row_{width}"]
        if pooled:
            inner_row = pooled.emitter.fork(tag=f"{self.tag}in{across}_", row=width)
            lines += inner_row.enter(3, channel, inline=True)
        heights = _whole_windows(tile.heights, pooled.window if pooled else 1)
        for height in heights:
            shape, left = f"{height}x{across}", height
            name, made = f"{tile.name(self.dtype, height, *kind)}_sums", f"sums{shape}"
            placed = [f"{made} = {name}({call})"]
            if pooled:
                inner = inner_row.fork(core={0: made}, tag=f"{self.tag}in{shape}_")
                placed += [*inner.enter(1, "0"), *inner.enter(2, "0")]
                word, left = f"largest_rows_{self.dtype}_{shape}_of_{pooled.window}", height // pooled.window
                made = f"best{shape}"
                placed.append(f"{made} = {word}({inner.value(pooled.value)})")
            body = row.fork(core={0: made}, tag=f"{self.tag}{shape}_")
            placed += [*body.enter(1, "0"), *body.enter(2, "0")]
            first = [line.format(shape=f"{self.dtype}_{shape}") for line in before]
            last = finish.format(shape=f"{self.dtype}_{left}x{across}", value=body.value(self.value))
            ways.append([*first, *placed, last])
            self._import("runtime.cpu.microkernel", [name])
            words += re.findall(r"\w+_rows_\w+", " ".join([*first, *placed, last]))
        self._import("runtime.cpu.register_tiles", words)
        return [*lines, *rows_by_height(ways, heights, "0", rows, "r")]

    def _import(self, module: str, names: Sequence[str]) -> None:
        self.modules[module] = (*self.modules.get(module, ()), *names)

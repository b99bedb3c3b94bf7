"""What `tn.explain` tells: which kernels a program has and why, in fields and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from engine.records import dataclass
from engine.tuning import Tuning
from tenon.inspection.listings import tuning_text
from tenon.text_format import bytes_text, plural

if TYPE_CHECKING:
    from tenon.inspection.profile import Profile

_SHOWN = 6
"""Examples of each thing that are printed; the fields have all."""


@dataclass(frozen=True)
class Fused:
    """A kernel of the graph: the ``ops`` that it computes, in order, and the user's ``lines`` that they come from."""

    name: str
    ops: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Precision:
    """What mixed precision chose: the 16-bit dtype, and how many of which ops of the traced graph are computed in it,
    and in float32 because they must be exact."""

    dtype: str
    narrow: Mapping[str, int]
    exact: Mapping[str, int]


@dataclass(frozen=True)
class KeptApart:
    """Two kernels of which the second reads from the first, and that are not one: the ``rule`` that refused, by its
    name in passes/fuse.py, and in words."""

    first: str
    second: str
    rule: str
    why: str


@dataclass(frozen=True)
class Recomputed:
    """A value that several kernels compute each for itself, instead of reading it from memory."""

    op: str
    line: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class Copy:
    """A step that only moves data: what it moves and why, ``when`` (``every call``, or ``when the state changes``), and
    how many bytes, where the sizes are known."""

    step: str
    what: str
    why: str
    when: str
    bytes: int | None


@dataclass(frozen=True)
class Layout:
    """Values that do not lie row-major in memory: the ``order`` of their axes from the outermost to the innermost."""

    order: tuple[int, ...]
    values: tuple[str, ...]
    modules: tuple[str, ...]

    @property
    def name(self) -> str:
        """What people call this order."""
        known: dict[tuple[int, ...], str] = {(0, 2, 3, 1): "channels-last", (0, 2, 1, 3): "heads inside a position"}
        return known.get(self.order, f"axes in the order {self.order}")


@dataclass(frozen=True)
class Code:
    """A generated function: whether it was compiled, and why; ``seconds`` is what that took, 0 where it was not."""

    kernel: str
    compiled: bool
    why: str
    seconds: float


@dataclass(frozen=True)
class Advice:
    """Something that would make the program faster: ``share`` of a call's time is at stake, where it was measured."""

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Explanation:
    """What became of a program, and why. Printing it says so in words."""

    name: str
    level: int
    nodes: int
    steps: int
    fused: tuple[Fused, ...]
    kept_apart: tuple[KeptApart, ...]
    recomputed: tuple[Recomputed, ...]
    copies: tuple[Copy, ...]
    layouts: tuple[Layout, ...]
    precision: Precision | None
    tuning: Tuning | None
    program_from_cache: bool
    code: tuple[Code, ...]
    advice: tuple[Advice, ...]
    profile: Profile | None

    def __str__(self) -> str:
        sections = (
            ("Fused", self._fused()),
            ("Kept apart", self._apart()),
            ("Recomputed", self._recomputed()),
            ("Copied", self._copies()),
            ("Layouts", self._layouts()),
            *([("Mixed precision", self._precision(self.precision))] if self.precision else []),
            *([("Tuned", tuning_text(self.tuning).splitlines())] if self.tuning else []),
            ("Compiled", self._code()),
            ("What would make it faster", [a.text for a in self.advice]),
        )
        head = (
            f"{self.name}, level {self.level}: {plural(self.nodes, 'node')} in {plural(len(self.fused), 'kernel')}, "
            f"which {plural(self.steps, 'step')} run at every call."
        )
        body = [f"{title}:\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections]
        return "\n\n".join([head, *body])

    __repr__ = __str__

    def _precision(self, chosen: Precision) -> list[str]:
        def told(counts: Mapping[str, int]) -> str:
            return ", ".join(f"{op} ({n} x)" if n > 1 else op for op, n in counts.items()) or "nothing"

        return [
            f"in {chosen.dtype}, added up in f32: {told(chosen.narrow)}",
            f"in f32, because it must be exact: {told(chosen.exact)}",
            "the rest in the dtypes of what it reads; parameters and their gradients in f32",
        ]

    def _fused(self) -> list[str]:
        several = [f for f in self.fused if len(f.ops) > 1]
        if not several:
            return ["nothing: every op is a kernel of its own"]
        several.sort(key=lambda f: -len(f.ops))
        lines = [f"{f.name}: {_ops(f.ops)}, from {_some(f.lines, 2)}" for f in several]
        alone = len(self.fused) - len(several)
        return [*_shown(lines), *([f"{plural(alone, 'kernel')} of one op each"] if alone else [])]

    def _apart(self) -> list[str]:
        lines = []
        for rule in dict.fromkeys(a.rule for a in self.kept_apart):
            pairs = [a for a in self.kept_apart if a.rule == rule]
            named = Counter(f"{a.first} | {a.second}" for a in pairs)
            examples = [name if n == 1 else f"{name} ({n} x)" for name, n in named.most_common()]
            lines.append(f"{rule}, {plural(len(pairs), 'time')}: {pairs[0].why}")
            lines += [f"  {line}" for line in _shown(examples, 3)]
        return lines or ["no kernel reads what another has made"]

    def _recomputed(self) -> list[str]:
        together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for r in self.recomputed:
            together.setdefault((r.line, r.kernels), []).append(r.op)
        lines = [f"{_ops(ops)} of {line}, in {_some(kernels, 3)}" for (line, kernels), ops in together.items()]
        return _shown(lines) or ["nothing: each value is computed once"]

    def _copies(self) -> list[str]:
        def size(copy: Copy) -> str:
            return "" if copy.bytes is None else f", {bytes_text(copy.bytes)}"

        lines = [f"{c.step}: {c.what}{size(c)}, {c.when}: {c.why}" for c in self.copies]
        return _shown(lines, 2 * _SHOWN) or ["nothing"]

    def _layouts(self) -> list[str]:
        lines = [
            f"{x.name}: {plural(len(x.values), 'value')}{f', of {_some(x.modules, 4)}' if x.modules else ''}"
            for x in self.layouts
        ]
        return [*lines, "all others are row-major"] if lines else ["all values are row-major"]

    def _code(self) -> list[str]:
        source = "from the cache" if self.program_from_cache else "made by the passes"
        lines = [f"the program was {source}"]
        for compiled in (True, False):
            for why in dict.fromkeys(c.why for c in self.code if c.compiled is compiled):
                names = [c.kernel for c in self.code if c.why == why and c.compiled is compiled]
                what = "compiled" if compiled else "not compiled"
                lines.append(f"{plural(len(names), 'function')} {what}, {why}: {_some(names, 4)}")
        seconds = sum(c.seconds for c in self.code)
        return [*lines, *([f"compiling took {seconds:.2f} s of processors' time"] if seconds else [])]


def _ops(ops: Iterable[str]) -> str:
    """``sum, mul (3 x)``: ops in order of their first use."""
    return ", ".join(op if n == 1 else f"{op} ({n} x)" for op, n in Counter(ops).items())


def _some(names: Sequence[str], most: int) -> str:
    """The first few, and how many there are besides."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


def _shown(lines: Sequence[str], most: int = _SHOWN) -> list[str]:
    left = len(lines) - most
    return [*lines[:most], *([f"and {left} more"] if left > 0 else [])]

"""``tn.diff``: what makes two graphs differ, and what a pass has changed by which rule."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, overload

from engine import text
from engine.errors import TenonError
from engine.graph import Graph
from engine.records import dataclass
from engine.rewrites import resolved
from frontend.rearranging import diff as differences
from frontend.tensor import Tensor
from tenon.text_format import plural

Lines = tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """Lines that were there ``before``, and those ``after``; ``rule`` says what did it, where that is known."""

    before: Lines
    after: Lines
    rule: str = ""

    @property
    def kind(self) -> str:
        return "rewritten" if self.before and self.after else "removed" if self.before else "added"


@dataclass(frozen=True)
class GraphDiff:
    """What must change in the graph ``before`` to give ``after``, in order; ``kernels`` are what has been fused."""

    before: str
    after: str
    changes: tuple[Change, ...]
    kernels: tuple[Change, ...] = ()
    sizes: tuple[int, int] = (0, 0)

    def __bool__(self) -> bool:
        return bool(self.changes or self.kernels)

    @property
    def rules(self) -> dict[str, int]:
        """How many changes each rule made, those of most first."""
        return dict(Counter(c.rule for c in self.changes if c.rule).most_common())

    @property
    def summary(self) -> str:
        """In a line: ``63 -> 52 nodes: 4 rewritten, 7 removed``."""
        kinds = Counter(c.kind for c in self.changes)
        counts = [f"{kinds[kind]} {kind}" for kind in ("rewritten", "removed", "added") if kinds[kind]]
        if self.kernels:
            counts.append(f"{plural(sum(bool(k.after) for k in self.kernels), 'kernel')} made")
        a, b = self.sizes
        return f"{a} -> {plural(b, 'node')}: {', '.join(counts) or 'no difference'}"

    def lines(self, color: bool = False) -> Iterator[str]:
        """The text: ``-`` before what was there, ``+`` before what is there now."""
        paint = _Paint(color)
        yield paint.bold(f"{self.before} -> {self.after}, {self.summary}")
        if self.rules:
            yield f"by rule: {', '.join(f'{name} ({n})' for name, n in self.rules.items())}"
        last = None
        for change in (*self.changes, *self.kernels):
            head = f"{change.kind}{f' by {change.rule!r}' if change.rule else ''}"
            if head != last or change.kind == "rewritten":
                yield from ("", paint.dim(head))
            last = head
            yield from (paint.red(f"- {line}") for line in change.before)
            yield from (paint.green(f"+ {line}") for line in change.after)

    def __str__(self) -> str:
        return "\n".join(self.lines())


class _Paint:
    def __init__(self, on: bool):
        self.on = on

    def _in(self, code: str, line: str) -> str:
        return f"\x1b[{code}m{line}\x1b[0m" if self.on else line

    def red(self, line: str) -> str:
        return self._in("31", line)

    def green(self, line: str) -> str:
        return self._in("32", line)

    def bold(self, line: str) -> str:
        return self._in("1", line)

    def dim(self, line: str) -> str:
        return self._in("2", line)


def wants_color(stream: IO[str]) -> bool:
    """Whether text for ``stream`` should be coloured: a terminal, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


Dumped = Graph | str | os.PathLike[str]


@overload
def diff(x: Dumped, other: Dumped, /) -> GraphDiff: ...
@overload
def diff(
    x: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor: ...
def diff(x: Any, *args: Any, **kwargs: Any) -> Any:
    """Each element of a Tensor less the one before it along ``dim``, ``n`` times (``diff(x, n=1, dim=-1, prepend=None,
    append=None)``); or what changed from one graph to another: nodes added, removed and rewritten (``diff(a, b)``).

    Graphs (``exe.graph``, one of ``exe.stages``) may be given as dumped files. Where ``b`` is the stage after ``a``,
    nodes go by their names, and each change tells the rule that made it; otherwise they are matched in order, whatever
    their names are. Raises TenonError for a file that is none, TextError for one that is no dump.

    PyTorch: torch.diff.
    """
    if isinstance(x, (Graph, str, os.PathLike)):
        return _of_graphs(x, *args, **kwargs)
    return differences(x, *args, **kwargs)


def _of_graphs(a: Dumped, b: Dumped) -> GraphDiff:
    named = [(x.name, x) if isinstance(x, Graph) else (str(x), _read(Path(x))) for x in (a, b)]
    return between(named[0][1], named[1][1], (named[0][0], named[1][0]))


def between(a: Graph, b: Graph, names: tuple[str, str]) -> GraphDiff:
    """As :func:`diff`, with what the two are called."""
    before, after = text.node_lines(a), text.node_lines(b)
    related = bool(b.rewrites) or {v.node for v in a.inputs} == {v.node for v in b.inputs}
    changes = _by_name(b, before, after) if related else _in_order(before, after)
    kernels = _kernels(a, b)
    return GraphDiff(*names, tuple(changes), tuple(kernels), (len(before), len(after)))


def _read(path: Path) -> Graph:
    from tenon.text import load_arrays

    if not path.is_file():
        raise TenonError(f"there is no file {path}")
    return text.parse(path.read_text(encoding="utf-8"), load_arrays(path.with_suffix(".npz")))


def _node(value: str) -> str:
    """The node of a value, which has its name or that with a number."""
    return re.sub(r"_\d+$", "", value)


def _by_name(b: Graph, before: dict[str, str], after: dict[str, str]) -> Iterator[Change]:
    """The changes of a pass, which keeps the names of what it keeps. Lines that only read something under its new name
    have not changed."""
    steps = resolved(b.rewrites)
    renamed = {old: new for old, (new, _) in steps.items()}
    maker = {name: r.rule for r in b.rewrites for name in r.made}
    place = {_last(name): name for name in (*before, *after)}
    replaced: dict[str, tuple[str, str]] = {}
    for old, (new, rules) in steps.items():
        known = [place.get(old) or place.get(_node(old)), place.get(new) or place.get(_node(new))]
        if known[0] in before and known[0] not in after:
            replaced[str(known[0])] = str(known[1] or new), ", then ".join(rules)
    told: set[str] = set()
    for name, line in before.items():
        if name in after:
            if after[name] != line and _with(line, renamed) != after[name]:
                yield Change((line,), (after[name],))
        elif name in replaced:
            new, rule = replaced[name]
            made = [n for n in after if n not in before and n not in told and maker.get(_last(n)) and n == new]
            told.update(made)
            yield Change((line,), tuple(after[n] for n in made) or (f"{_last(name)} is {_last(new)} now",), rule)
        else:
            yield Change((line,), ())
    for name, line in after.items():
        if name not in before and name not in told:
            yield Change((), (line,), maker.get(_last(name), ""))


def _last(name: str) -> str:
    """A node's own name, without those of the loops around it."""
    return name.rsplit(".", 1)[-1]


def _with(line: str, renamed: dict[str, str]) -> str:
    return re.sub(r"\b[A-Za-z_]\w*\b", lambda m: renamed.get(m[0], m[0]), line)


def _in_order(before: dict[str, str], after: dict[str, str]) -> Iterator[Change]:
    """The changes between graphs that share no names: lines are aligned by what they compute."""
    same: dict[str, str] = {}
    keys = [[_shape_of(line) for line in lines.values()] for lines in (before, after)]
    old, new = list(before.items()), list(after.items())
    import difflib

    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        if kind != "equal":
            yield Change(tuple(line for _, line in old[i:i_end]), tuple(line for _, line in new[j:j_end]))
            continue
        for (a, line), (b, other) in zip(old[i:i_end], new[j:j_end], strict=True):
            same[_last(a)] = _last(b)
            if _with(line, same) != other and not _alike(line, other, same):
                yield Change((line,), (other,))


def _shape_of(line: str) -> str:
    """A line without the names of values."""
    return re.sub(r"\bt\d+(_\d+)?\b", "_", line)


def _alike(line: str, other: str, same: dict[str, str]) -> bool:
    """Whether the lines read the same, outputs of several values included."""
    known = {**same, **{f"{a}_{i}": f"{b}_{i}" for a, b in same.items() for i in range(4)}}
    return _with(line, known) == other


def _kernels(a: Graph, b: Graph) -> Iterator[Change]:
    old, new = (
        [f"kernel {g.name}: {' '.join(n.name for n in g.nodes if not n.is_literal)}" for g in graph.groups]
        for graph in (a, b)
    )
    for line in old:
        if line not in new:
            yield Change((line,), ())
    for line in new:
        if line not in old:
            yield Change((), (line,))


# --- files -------------------------------------------------------------------------------------------------


def files(a: Path, b: Path) -> list[tuple[Path, Path]]:
    """The pairs of files to compare: the two themselves, or those of one name in two dumps.

    Raises TenonError where one is a folder and the other not, or they have no stage in common."""
    if a.is_dir() != b.is_dir():
        raise TenonError(f"{a} and {b} are a file and a folder; give two files or two dumps")
    if not a.is_dir():
        return [(a, b)]
    stages = [{_stage(p.name): p for p in sorted(folder.glob("[0-9][0-9]-*.py"))} for folder in (a, b)]
    common = [(p, stages[1][name]) for name, p in stages[0].items() if name in stages[1]]
    if not common:
        raise TenonError(f"{a} and {b} are no dumps with stages in common")
    return common


def _stage(name: str) -> str:
    return name.split("-", 1)[1]


def show(found: Iterable[GraphDiff], stream: IO[str] = sys.stdout) -> bool:
    """Print the differences; returns whether there are any."""
    color = wants_color(stream)
    any_found = False
    for one in found:
        any_found |= bool(one)
        print("\n".join(one.lines(color)) if one else f"{one.before} -> {one.after}, {one.summary}", file=stream)
    return any_found


def of_stages(stages: Sequence[tuple[str, object]]) -> dict[str, GraphDiff]:
    """For each graph among a program's stages, by name, what its pass changed."""
    graphs = [(name, s) for name, s in stages if isinstance(s, Graph)]
    return {name: between(a, b, (last, name)) for (last, a), (name, b) in zip(graphs, graphs[1:], strict=False)}

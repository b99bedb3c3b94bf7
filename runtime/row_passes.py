"""How a reduction over rows goes: passes over the reduced axes, each ending in the reductions that the next one needs.

What a later pass needs again may be kept from an earlier one, where the backend has a place for it and finds it worth
the while; else it is computed again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from engine.records import dataclass
from engine.schedule import KernelSpec, Stmt
from runtime.reductions import is_reduction, phases

Varies = Callable[[str], bool]
"""Whether the statement of this name differs along the reduced axes."""

COSTLY = frozenset({"exp", "expm1", "log", "log1p", "sin", "cos", "tan", "atan", "atan2", "tanh", "sigmoid", "erf",
                    "pow", "div", "sqrt", "floordiv", "mod", "uniform"})  # fmt: skip


@dataclass(frozen=True)
class Pass:
    """One pass over the reduced axes: what it reduces, what else it does, what it takes from earlier passes and puts
    down for later ones."""

    reductions: tuple[Stmt, ...]
    effects: tuple[str, ...]
    taken: tuple[Stmt, ...]
    put: tuple[Stmt, ...]


class RowPasses:
    """The passes of a ``spec`` without reductions of positions. ``keep(stmt)`` says whether the backend keeps what
    ``stmt`` computes; it is asked in order, once for each pass that needs it again."""

    def __init__(self, spec: KernelSpec, varies: Varies, keep: Callable[[Stmt], bool]):
        self.spec = spec
        self.varies = varies
        self.by_name = {s.name: s for s in spec.body}
        read = {a.buffer for a in spec.reads}
        self.when = phases(spec.body, {i for i, w in enumerate(spec.writes) if w.buffer in read})
        self._keep = keep

    def plan(self) -> list[Pass]:
        """The passes in order, and what goes from one to the next."""
        body = self.spec.body
        roots: list[list[Stmt]] = [[] for _ in range(max(self.when.values(), default=0) + 1)]
        for stmt in body:
            if is_reduction(stmt):
                roots[self.when[stmt.name] - 1].append(stmt)
            elif stmt.op in ("store", "check_index") and self.varies(stmt.name):
                roots[self.when[stmt.name]].append(stmt)
        computed: list[set[str]] = []
        put: list[dict[str, Stmt]] = [{} for _ in roots]
        taken: list[dict[str, Stmt]] = [{} for _ in roots]
        for phase, here in enumerate(roots):
            needed: set[str] = set()
            stack = [a for s in here for a in s.args if isinstance(a, str)]
            while stack:
                name = stack.pop()
                if name in needed or is_reduction(self.by_name[name]) or not self.varies(name):
                    continue
                earlier = next((q for q, names in enumerate(computed) if name in names), None)
                if earlier is not None and self._keep(self.by_name[name]):
                    put[earlier][name] = taken[phase][name] = self.by_name[name]
                    continue
                needed.add(name)
                stack += [a for a in self.by_name[name].args if isinstance(a, str)]
            computed.append(needed)
        return [
            Pass(tuple(s for s in here if is_reduction(s)), tuple(s.name for s in here if not is_reduction(s)),
                 tuple(taken[i].values()), tuple(put[i].values()))
            for i, here in enumerate(roots) if here
        ]  # fmt: skip

    def is_costly(self, name: str) -> bool:
        """Whether computing ``name`` again, from loads and from reductions, costs more than a load."""
        stack = [name]
        while stack:
            stmt = self.by_name[stack.pop()]
            if stmt.op in COSTLY:
                return True
            if not is_reduction(stmt):
                stack += [a for a in stmt.args if isinstance(a, str) and self.varies(a)]
        return False

    def lender(self, stmt: Stmt, lent: Collection[int]) -> int | None:
        """A write of the last pass in whose place what ``stmt`` computes can be kept before, none of ``lent``: each
        point has its place, and nobody reads there."""
        spec, last = self.spec, max(self.when.values())
        late = [int(s.args[0]) for s in spec.body if s.op == "store" and self.when[s.name] == last]
        read = {access.buffer for access in spec.reads}
        others = Counter(access.buffer for access in spec.writes)
        return next((
            k for k in late
            if spec.writes[k].buffer not in read and others[spec.writes[k].buffer] == 1
            and k not in lent and 0 not in spec.writes[k].strides and spec.writes[k].dtype.is_float
            and spec.writes[k].dtype == spec.writes[k].dtype.computed == stmt.dtype
        ), None)  # fmt: skip

"""What a body leaves as it is where its core is zero: an optimizer's update of weights that no gradient reaches."""

from __future__ import annotations

from collections.abc import Sequence

from engine.schedule import Access, KernelSpec, Stmt

Operand = str | int | float | bool


def factors_of_nothing(spec: KernelSpec) -> list[str] | None:
    """The statements by which the body of ``spec`` multiplies its core before it subtracts that from what it has read,
    or adds it, and writes the result back: if they are finite, the body writes what is there already wherever its core
    is zero. They are the same at all points. None for any other body."""
    zero: set[str] = set()
    steady: set[str] = set()
    kept: dict[str, Access] = {}
    factors: list[str] = []

    def scales(a: Operand, b: Operand) -> bool:
        return a in zero and isinstance(b, str) and b in steady

    for stmt in spec.body:
        args = stmt.args
        match stmt.op:
            case "core":
                zero.add(stmt.name)
            case "load" if (read := spec.reads[int(args[0])]) in spec.writes:
                kept[stmt.name] = read
            case "load" if not any(read.strides):
                steady.add(stmt.name)
            case "store":
                if kept.get(str(args[1])) != spec.writes[int(args[0])]:
                    return None
            case "cast" | "neg" if args[0] in zero:
                zero.add(stmt.name)
            case "mul" if scales(*args) or scales(*reversed(args)):
                zero.add(stmt.name)
                factors += [str(a) for a in args if a in steady]
            case "sub" if args[0] in kept and args[1] in zero:
                kept[stmt.name] = kept[str(args[0])]
            case "add" if set(args) & kept.keys() and set(args) & zero:
                kept[stmt.name] = kept[next(str(a) for a in args if a in kept)]
            case _ if _is_steady(stmt, steady):
                steady.add(stmt.name)
    return factors


def _is_steady(stmt: Stmt, steady: set[str]) -> bool:
    """Whether a statement has the same value at all points, as those that it takes have."""
    return stmt.op not in ("load", "load_at", "index") and all(a in steady for a in _names(stmt.args))


def _names(args: Sequence[Operand]) -> list[str]:
    return [a for a in args if isinstance(a, str)]

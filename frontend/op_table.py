"""Writes ``docs/ops.md``: every public function and module with PyTorch's name and any difference, and every op.

``python -m frontend.op_table`` writes the page, ``--check`` only says whether it is up to date. All of it is made from
docstrings, whose last line is ``PyTorch: torch.x. Differs: ...``, and from the op records.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.op import REQUIRED, Op, all_ops
from engine.records import dataclass
from frontend import functional, nn, optim
from frontend.generated import write_or_check
from frontend.nn import init
from frontend.optim import lr_scheduler
from frontend.tensor import Tensor

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "docs" / "ops.md"

_HEAD = """\
# Functions, modules and ops

Made by `python -m frontend.op_table` from the docstrings and the op records; do not edit.

Names, argument order, defaults and `state_dict` keys are PyTorch's, and so is the meaning, save for what stands under
"difference". These hold everywhere and are not repeated:

- dtypes promote as in NumPy: functions of real numbers, and quotients, give `f64` for integers
- tensors never change: there is no `out=`, and no method that ends in `_`
- arguments that PyTorch deprecated (`size_average`, `reduce`), or that choose how it computes (`foreach`, `fused`), are
  not there

`F` also has the elementwise functions of `tn`, `F.logsumexp` and `F.flatten`.
"""

_LINE = re.compile(r"PyTorch: (?P<names>.+?)\.(?: Differs: (?P<difference>.+))?", re.DOTALL)
_ROLE = re.compile(r":(?:func|class|meth|mod):`([^`]+)`")


@dataclass(frozen=True)
class Entry:
    """A row: a public name, what it is, PyTorch's name ("" where it has none) and what differs."""

    name: str
    meaning: str
    pytorch: str
    difference: str


@dataclass(frozen=True)
class Area:
    """A table: ``prefix`` stands before each of its names."""

    title: str
    prefix: str
    entries: tuple[Entry, ...]


def documented(thing: Any) -> str:
    """Its own docstring, not one that a class inherits."""
    return (vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or ""


def described(name: str, docstring: str, default: str = "") -> Entry:
    """The row of ``name``; ``default`` is PyTorch's name where the docstring gives none."""
    text = inspect.cleandoc(docstring)
    *_, last = text.split("\n\n")
    found = _LINE.fullmatch(last)
    first = "" if found and last == text else " ".join(text.partition("\n\n")[0].split())
    meaning = re.split(r"(?<=\.)\s(?=[A-Z`])", first, maxsplit=1)[0].rstrip(":")
    if not found:
        return Entry(name, meaning, default, "")
    return Entry(name, meaning, found["names"], " ".join((found["difference"] or "").split()))


def entries(found: dict[str, Any]) -> tuple[Entry, ...]:
    return tuple(described(name, documented(thing)) for name, thing in sorted(found.items()))


def public(package: ModuleType) -> dict[str, dict[str, Any]]:
    """The functions and classes that ``package`` offers and its own modules define, by module."""
    found: dict[str, dict[str, Any]] = {}
    for name, thing in vars(package).items():
        home = getattr(thing, "__module__", None) or ""
        if not name.startswith("_") and f"{home}.".startswith(f"{package.__name__}.") and callable(thing):
            found.setdefault(home, {})[name] = thing
    return dict(sorted(found.items()))


def title(module_docstring: str) -> str:
    return re.split(r"\.(?:\s|$)", module_docstring, maxsplit=1)[0].strip()


def exports() -> Iterator[tuple[str, str, str]]:
    """What ``tenon`` offers, read as text, for the frontend knows nothing of tenon: the module that it comes from, its
    name there, and the public name."""
    texts = [(ROOT / "tenon" / name).read_text(encoding="utf-8") for name in ("__init__.py", "_tools.py")]
    for statement in (s for text in texts for s in ast.parse(text).body):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            for alias in statement.names:
                if alias.name == "*":
                    module = importlib.import_module(statement.module)
                    yield from ((statement.module, name, name) for name in module.__all__)
                else:
                    yield statement.module, alias.name, alias.asname or alias.name


def areas_of_tn() -> Iterator[Area]:
    """``tn.*``: a table for each module that it comes from, and one for what is tenon's own."""
    tables: dict[str, dict[str, Any]] = {}
    own: list[Entry] = []
    for module, name, shown in exports():
        if module.startswith("frontend."):
            thing = getattr(importlib.import_module(module), name)
            if inspect.isfunction(thing):
                tables.setdefault(thing.__module__, {})[shown] = thing
        elif module.startswith("tenon."):
            own += [described(shown, text) for text in defined_in(module, name)[-1:]]
    for module, found in sorted(tables.items()):
        yield Area(title(importlib.import_module(module).__doc__ or ""), "tn", entries(found))
    yield Area("Programs, training and data", "tn", tuple(sorted(own, key=lambda e: e.name.lower())))


def defined_in(module: str, name: str) -> list[str]:
    """The docstrings of the functions (overloads first) or the class ``name`` in the source of ``module``."""
    path = ROOT / (module.replace(".", "/") + ".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [
        ast.get_docstring(node) or ""
        for node in body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name
    ]


INTERNAL = frozenset({"is_symbolic", "of", "value"})
"""Attributes of Tensor through which the frontend meets the graph."""


def methods(functions: Iterable[str]) -> Area:
    """The methods and properties of Tensor that are none of ``functions``: PyTorch's, under its names."""
    hidden = INTERNAL | set(functions)
    found = {n: getattr(Tensor, n) for n in dir(Tensor) if not n.startswith("_") and n not in hidden}
    found = {n: t for n, t in found.items() if callable(t) or isinstance(t, property)}
    rows = tuple(described(n, documented(t), f"torch.Tensor.{n}") for n, t in sorted(found.items()))
    return Area("Methods that no function has", "Tensor", rows)


PACKAGES = {functional: "F", nn: "nn", init: "nn.init", optim: "optim", lr_scheduler: "optim.lr_scheduler"}


def areas() -> list[Area]:
    """Every table of public names, in the page's order."""
    tn = list(areas_of_tn())
    taken = {e.name for area in tn for e in area.entries}
    found = [*tn, methods(taken)]
    for package, prefix in PACKAGES.items():
        for module, things in public(package).items():
            found.append(Area(title(importlib.import_module(module).__doc__ or ""), prefix, entries(things)))
    return found


def row(*cells: str) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") or " " for c in cells) + " |\n"


def plain(text: str) -> str:
    """A docstring's markup as the page's."""
    return _ROLE.sub(r"`\1`", text).replace("``", "`")


def table(area: Area) -> str:
    lines = [f"## {area.prefix}: {plain(area.title)}\n\n", row("name", "meaning", "PyTorch", "difference")]
    lines.append(row("---", "---", "---", "---"))
    for e in area.entries:
        name = f"`{e.pytorch}`" if e.pytorch else "-"
        lines.append(row(f"`{area.prefix}.{e.name}`", plain(e.meaning), name, plain(e.difference)))
    return "".join(lines)


def reaches_a_kernel(op: Op) -> str:
    """How the op becomes machine code."""
    if op.expression is not None:
        return "expression"
    if op.decompose is not None:
        return "decomposition"
    if op.kernel is not None:
        return "its own function"
    return {"source": "none", "grad": "expanded by autodiff"}.get(op.kind, f"dedicated: {op.kind}")


def op_row(op: Op) -> str:
    attrs = ", ".join(f"`{k}`" if v is REQUIRED else f"`{k}={v!r}`" for k, v in op.attrs.items())
    inputs = ", ".join(f"`{i}`" for i in op.inputs)
    gradient = "yes" if op.gradient is not None else "no"
    return row(f"`{op.name}`", op.kind, inputs, attrs, gradient, reaches_a_kernel(op), plain(" ".join(op.doc.split())))


_OPS = """\
## Ops of the graph

Fused kernels and printed graphs are made of these. An op reaches a kernel by a scalar expression, by decomposition into
other ops, by a function of its own, or by a kernel that the backend has for its kind.

"""


def op_table() -> str:
    """The op records, save those that users have registered."""
    ops = [op for _, op in sorted(all_ops().items()) if not op.version]
    head = row("op", "kind", "inputs", "attributes", "gradient", "kernel", "meaning") + row(*["---"] * 7)
    return _OPS + head + "".join(op_row(op) for op in ops)


def page() -> str:
    """The text that ``docs/ops.md`` should have."""
    return "\n".join([_HEAD, *(table(area) for area in areas()), op_table()])


def main() -> int:
    return write_or_check(PATH, page(), "frontend.op_table")


if __name__ == "__main__":
    raise SystemExit(main())

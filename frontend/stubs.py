"""Writes ``elementwise.pyi``, from which editors complete the functions and methods made from op records.

``python -m frontend.stubs`` writes the file, ``--check`` only says whether it is up to date.
"""

from __future__ import annotations

from pathlib import Path

from engine.op import Op
from frontend import elementwise
from frontend.generated import write_or_check

PATH = Path(__file__).with_name("elementwise.pyi")

_HEAD = '''\
"""Written by python -m frontend.stubs from the op records; do not edit."""

from collections.abc import Callable
from typing import Any

from engine.op import Op
from frontend.tensor import Operand, Tensor

FUNCTIONS: dict[str, Callable[..., Any]]

def records() -> dict[str, Op]: ...
'''


def _function(name: str, op: Op) -> str:
    arguments = ", ".join(f"{p}: Operand" for p in op.inputs)
    return f'def {name}({arguments}, /) -> Tensor:\n    """{op.doc}"""\n'


def _method(name: str, op: Op) -> str:
    arguments = ", ".join(["self", *(f"{p}: Operand" for p in op.inputs[1:])])
    return f'    def {name}({arguments}, /) -> Tensor:\n        """{op.doc}"""\n'


def stub() -> str:
    """The text that ``elementwise.pyi`` should have."""
    records = elementwise.records()
    parts = [_HEAD]
    parts += [_function(name, op) for name, op in records.items()]
    methods = [_method(name, op) for name, op in records.items() if hasattr(elementwise.ElementwiseMethods, name)]
    parts.append("class ElementwiseMethods:\n" + "\n".join(methods))
    parts.append("__all__ = [\n" + "".join(f'    "{name}",\n' for name in elementwise.__all__) + "]\n")
    return "\n".join(parts)


def main() -> int:
    return write_or_check(PATH, stub(), "frontend.stubs")


if __name__ == "__main__":
    raise SystemExit(main())

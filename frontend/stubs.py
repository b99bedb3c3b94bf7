"""Writes ``elementwise.pyi``, from which editors complete the functions and methods made from op records.

``python -m frontend.stubs`` writes the file, ``--check`` only says whether it is up to date.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.op import Op
from frontend import elementwise

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
    parser = argparse.ArgumentParser(description="Write frontend/elementwise.pyi from the op records.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is out of date")
    if not parser.parse_args().check:
        PATH.write_text(stub(), encoding="utf-8")
        return 0
    current = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    if current != stub():
        print(f"{PATH.name} is out of date: run python -m frontend.stubs")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""docs/ops.md is made from the docstrings and records, names everything public, and names PyTorch's things rightly."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from functools import reduce
from types import ModuleType

import pytest

import tenon as tn
from engine.op import all_ops
from frontend import op_table
from tenon import F, nn, optim

ROWS = {(a.prefix, e.name): e for a in op_table.areas() for e in a.entries}
TORCH = re.compile(r"torch(?:\.\w+)+")


def callables(module: ModuleType) -> set[str]:
    """What users can call there, without the classes of errors and Python's own helpers."""
    return {
        name
        for name, thing in vars(module).items()
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and not name.startswith("_")
        if thing.__module__.startswith(("frontend", "tenon"))
    }


def test_the_page_is_fresh():
    command = [sys.executable, "-m", "frontend.op_table", "--check"]
    found = subprocess.run(command, cwd=op_table.ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_stale_page_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(op_table, "PATH", tmp_path / "ops.md")
    monkeypatch.setattr(sys, "argv", ["op_table", "--check"])
    assert op_table.main() == 1 and "out of date" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["op_table"])
    assert op_table.main() == 0 and [p.name for p in tmp_path.iterdir()] == ["ops.md"]
    monkeypatch.setattr(sys, "argv", ["op_table", "--check"])
    assert op_table.main() == 0


@pytest.mark.parametrize(("prefix", "module"), [("tn", tn), ("nn", nn), ("optim", optim)])
def test_everything_public_has_a_row(prefix, module):
    assert callables(module) - {"Tensor"} <= {name for p, name in ROWS if p == prefix}


def test_every_public_function_of_networks_has_a_row():
    assert callables(F) <= {name for p, name in ROWS if p in ("F", "tn")}


def test_every_method_has_a_row():
    methods = {n for n in dir(tn.Tensor) if not n.startswith("_")} - op_table.INTERNAL
    assert methods <= {name for p, name in ROWS if p in ("Tensor", "tn")}


def test_every_op_has_a_row():
    text = op_table.op_table()
    for op in all_ops().values():
        assert op.version or text.count(f"| `{op.name}` | {op.kind} |") == 1, op.name


def test_pytorch_has_what_the_page_names():
    torch = pytest.importorskip("torch")
    for (prefix, name), entry in ROWS.items():
        if entry.pytorch:
            assert TORCH.fullmatch(entry.pytorch), f"{prefix}.{name}: {entry.pytorch!r}"
            reduce(getattr, entry.pytorch.split(".")[1:], torch)


def test_what_pytorch_has_under_the_same_name_is_named():
    """A public name that PyTorch has too says so; what is only spelled alike is listed here."""
    torch = pytest.importorskip("torch")
    alike = {"compile", "get_num_threads", "load", "save", "set_num_threads"}  # of tenon's own
    spaces = {"tn": torch, "F": torch.nn.functional, "nn": torch.nn, "nn.init": torch.nn.init, "optim": torch.optim}
    spaces |= {"optim.lr_scheduler": torch.optim.lr_scheduler, "Tensor": torch.Tensor}
    silent = {n for (p, n), e in ROWS.items() if not e.pytorch and hasattr(spaces[p], n)}
    assert silent == alike

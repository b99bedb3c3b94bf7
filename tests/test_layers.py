"""Who imports whom, and what ``import tenon`` and a warm start load."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tenon import _packages

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "engine": {"engine"},
    "frontend": {"frontend", "engine"},
    "passes": {"passes", "engine"},
    "runtime": {"runtime", "engine"},
    "tenon": {"tenon", "frontend", "passes", "runtime", "engine"},
}
HEAVY = ("numba", "networkx", "torch", "tqdm", "matplotlib", "sklearn", "hypothesis", "multiprocessing")
LOADED = f"import sys; print([m for m in {HEAVY} if m in sys.modules])"


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_layers(package):
    for path in (ROOT / package).rglob("*.py"):
        others = imported(path) & ALLOWED.keys() - ALLOWED[package]
        assert not others, f"{path.relative_to(ROOT)} imports {others}"


@pytest.mark.parametrize("package", ALLOWED)
def test_every_folder_is_a_package_and_gets_installed(package):
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)
    assert (ROOT / package / "py.typed").is_file()


def test_importing_tenon_is_light(python):
    assert python("-c", f"import tenon; {LOADED}").stdout.strip() == "[]"


WARM = f"""
import sys
import numpy as np
import tenon as tn
from tenon import F, nn, optim

tn.seed(0)
model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
optimizer = optim.SGD(model.parameters(), lr=0.1)
step = tn.train_step(model, F.cross_entropy, optimizer, [tn.spec("B", 3), tn.spec("B", dtype="i64")])
print([float(step(np.ones((4, 3), np.float32), np.array([0, 1, 1, 0]))) for _ in range(3)])
report = step.executable.report
print(report.from_cache, report.compiled)
{LOADED}
"""


def test_a_warm_start_runs_no_pass_and_imports_no_compiler(python, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WARM, encoding="utf-8")
    folder = str(tmp_path / "cache")
    cold = python(script, TENON_CACHE=folder).stdout.splitlines()
    warm = python(script, TENON_CACHE=folder).stdout.splitlines()
    assert cold[1].startswith("False") and not cold[1].endswith(" 0")
    assert warm == [cold[0], "True 0", "[]"]


def test_a_moved_check_names_its_new_line(python, tmp_path):
    source = """
import numpy as np
import tenon as tn
from tenon import F
exe = tn.compile(lambda x, y: F.cross_entropy(x, y), tn.spec("B", 3), tn.spec("B", dtype="i64"))
exe(np.ones((1, 3), np.float32), np.array([3]))
"""
    script = tmp_path / "script.py"
    for shift, line in ((0, 5), (2, 7)):
        script.write_text("\n" * shift + source, encoding="utf-8")
        failed = python(script, status=1).stderr
        assert f"script.py:{line} in" in failed.split("IndexRangeError")[-1]


@pytest.mark.parametrize("part", _packages.PARTS)
def test_a_foreign_package_is_refused_by_name(python, tmp_path, part):
    foreign = tmp_path / part / "__init__.py"
    foreign.parent.mkdir()
    foreign.write_text("raise SystemExit('the foreign package was run')", encoding="utf-8")
    failed = python("-c", "import tenon", status=1).stderr  # -c puts the current folder first on sys.path
    assert f"ImportError: Tenon needs its own package '{part}', and Python finds another one: {foreign}" in failed


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(_packages, "PARTS", ("no_such_package",))
    with pytest.raises(ImportError, match="'no_such_package' is not installed beside"):
        _packages.check()


def test_what_is_asked_for_seldom_is_imported_when_it_is(python):
    code = (
        "import sys, tenon as tn; assert 'tenon.trainer' not in sys.modules and 'Trainer' in dir(tn); "
        "assert tn.Trainer.__module__ == 'tenon.trainer' and tn.bisect.__module__ == 'tenon.inspection.bisect'; "
        "assert callable(tn.memory) and callable(tn.beam_search) and tn.metrics is sys.modules['tenon.metrics']"
    )
    python("-c", code)

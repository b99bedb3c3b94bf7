"""Which tests of the CUDA backend run here: what compiles needs the extra ``cuda-test``, what is simulated a process of
its own with ``NUMBA_ENABLE_CUDASIM=1``. The others are skipped, and say why."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HEAD = """\
# What GPU kernels take

Made by `pytest tests/cuda/compiled --resources docs/gpu-resources.md`, without a GPU: every kernel of these tests as
ptxas assembles it. It says the registers of a thread, the shared memory of a block in bytes, how many blocks run on a
multiprocessor at a time, and how many instructions are for tensor cores. No kernel has a stack, spills registers or
uses local memory.

"""
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def _installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def _missing(path: Path) -> str:
    """Why the tests in ``path`` do not run here; empty if they do."""
    if not (_installed("greenlet") and _installed("numba-cuda")):
        return 'the packages of the extra "cuda-test" are not installed'
    folder = path.relative_to(HERE).parts[0]
    if folder == "simulator" and not SIMULATED:
        return "simulated kernels run in a process of their own, with NUMBA_ENABLE_CUDASIM=1"
    if folder == "compiled" and SIMULATED:
        return "kernels are compiled where NUMBA_ENABLE_CUDASIM is not set"
    return ""


class _Skipped(pytest.Module):
    def collect(self) -> Iterable[pytest.Item]:
        raise pytest.skip.Exception(_missing(self.path), allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return _Skipped.from_parent(parent, path=module_path) if _missing(module_path) else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--resources", help="a Markdown file for the table of what compiled kernels take")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How many kernels were compiled, or with ``--resources FILE`` a table of them."""
    harness = sys.modules.get("cuda_harness")
    if harness is None or not harness.TAKEN:
        return
    terminalreporter.write_line(f"{len(harness.TAKEN)} kernels assembled: no stack, no spills, no local memory")
    if file := config.getoption("resources", None):
        Path(file).write_text(HEAD + harness.table(harness.TAKEN))

"""Which tests of the CUDA backend run here: what compiles needs the extra ``cuda-test``, what is simulated a process of
its own with ``NUMBA_ENABLE_CUDASIM=1``. The others are skipped, and say why."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def _missing(path: Path) -> str:
    """Why the tests in ``path`` do not run here; empty if they do."""
    installed = {d.metadata["Name"] for d in metadata.distributions()}
    if not {"greenlet", "numba-cuda"} <= installed:
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

"""What all tests share: a compile cache of their own, verified passes, fixed seeds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

_temporary: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    os.environ["TENON_VERIFY"] = "1"
    if "TENON_CACHE" not in os.environ:
        _temporary.append(tempfile.mkdtemp(prefix="tenon-tests-"))
        os.environ["TENON_CACHE"] = _temporary[0]
    settings.register_profile("tenon", deadline=None, derandomize=True)
    settings.load_profile("tenon")


def pytest_unconfigure(config: pytest.Config) -> None:
    for folder in _temporary:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    from frontend import random

    random.seed(0)


Python = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Runs Python in a process of its own, in an empty folder: ``python("-c", "...", VARIABLE="value")``. What it
    imports is what this process does; a status other than ``status`` fails the test."""

    def run(*arguments: str | Path, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        command = [sys.executable, *map(str, arguments)]
        found = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert found.returncode == status, f"status {found.returncode}\n{found.stdout}\n{found.stderr}"
        return found

    return run

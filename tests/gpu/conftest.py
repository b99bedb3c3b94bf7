"""These tests need a GPU: where there is none they are skipped, and say why."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from engine.errors import TenonError
from runtime.cuda.devices import properties

HERE = Path(__file__).parent


@functools.cache
def why_not() -> str:
    """Why there is nothing to test here; empty where there is."""
    try:
        found = properties()
    except TenonError as error:
        return error.message
    if not found:
        return "the NVIDIA driver knows no GPU"
    return "NUMBA_ENABLE_CUDASIM=1 is set: this would be the simulator" if found[0].simulated else ""


class _Skipped(pytest.Module):
    def collect(self) -> list[pytest.Item]:
        raise pytest.skip.Exception(why_not(), allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return _Skipped.from_parent(parent, path=module_path) if why_not() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)

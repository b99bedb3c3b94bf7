"""What the machine is."""

from __future__ import annotations

import importlib.metadata
import os
import platform


def describe() -> dict[str, str]:
    """The processor and the versions of what is measured and installed."""
    found = {"processor": _processor(), "cores": str(os.cpu_count()), "python": platform.python_version()}
    for package in ("numpy", "numba", "llvmlite", "torch", "jax", "onnxruntime", "tinygrad"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

"""Generated source as a module that tracebacks and debuggers can show."""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from engine.program import Kernel

PREFIX = "<tenon "
"""How the file names of generated sources begin."""


def load_source(kernel: Kernel, names: Mapping[str, Any] | None = None) -> ModuleType:
    """The kernel's source, executed as a module in which ``names`` are known."""
    filename = f"{PREFIX}{kernel.name} {kernel.key[:8]}>"
    linecache.cache[filename] = (len(kernel.source), None, kernel.source.splitlines(keepends=True), filename)
    module = ModuleType(f"tenon_kernel_{kernel.key[:16]}")
    module.__file__ = filename
    module.__dict__.update(names or {})
    exec(compile(kernel.source, filename, "exec"), module.__dict__)
    return module

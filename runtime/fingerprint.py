"""What compiled code depends on besides its source: the processor, the versions of the tools, Tenon's own code."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import sys
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


@cache
def code_version(*packages: str) -> str:
    """A hash over the contents of every Python file of these of Tenon's packages."""
    digest = hashlib.sha256()
    for package in packages:
        for folder, folders, names in os.walk(_ROOT / package):
            folders.sort()
            digest.update(Path(folder).relative_to(_ROOT).as_posix().encode())
            for name in sorted(n for n in names if n.endswith(".py")):
                with open(os.path.join(folder, name), "rb", buffering=0) as file:
                    code = file.readall()
                digest.update(f"\0{name}\0{len(code)}\0".encode())
                digest.update(code)
    return digest.hexdigest()


@cache
def numba_version() -> str:
    """Numba's version, read from its files: importing it takes half a second."""
    spec = importlib.util.find_spec("numba")
    if spec is None or spec.origin is None:
        return "absent"
    text = Path(spec.origin).with_name("_version.py").read_text(encoding="utf-8")
    found = re.search(r'"version": "([^"]+)"', text)
    return found.group(1) if found else hashlib.sha256(text.encode()).hexdigest()


@cache
def cpu_environment() -> dict[str, str]:
    """What object code for this processor depends on, each with a name that ``cache.explain`` can show."""
    import llvmlite
    from llvmlite import binding

    return {
        "CPU": binding.get_host_cpu_name(),
        "CPU features": hashlib.sha256(binding.get_host_cpu_features().flatten().encode()).hexdigest(),
        "platform": f"{sys.platform} {platform.machine()}",
        "Python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "numba": numba_version(),
        "llvmlite": llvmlite.__version__,
        "Tenon's runtime": code_version("runtime"),
    }


@cache
def cuda_environment() -> dict[str, str]:
    """What machine code for a GPU depends on beside its architecture: the tools, by their packages' versions."""
    tools = ("numba-cuda", "llvmlite", "nvidia-nvvm", "nvidia-cuda-nvcc")
    return {
        "Python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "numba": numba_version(),
        **{tool: _package_version(tool) for tool in tools},
        "Tenon's runtime": code_version("runtime"),
    }


def _package_version(name: str) -> str:
    from importlib import metadata  # takes longer to import than all of Tenon's base

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


@cache
def program_environment() -> dict[str, str]:
    """What a lowered program depends on: that, and the code of every pass and op."""
    return cpu_environment() | {"Tenon's passes": code_version("engine", "frontend", "passes", "tenon")}

"""From PTX to machine code with ptxas, which needs no GPU; what the code takes of a multiprocessor, and its SASS."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from engine.errors import CompileError, UnsupportedError
from engine.records import dataclass

SHARED_LIMIT = {"sm_80": 163 << 10, "sm_90a": 227 << 10}
"""Bytes of shared memory that one block can have."""

_REGISTERS = 65536  # of a multiprocessor
_THREADS = 2048
_BLOCKS = 32


@dataclass(frozen=True)
class Resources:
    """What one thread, or one block, of a kernel takes: registers, bytes of static shared memory, of the stack and of
    spilled registers, named barriers; whether ptxas found that its wgmma have to wait for one another."""

    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int
    barriers: int
    serialized: bool = False

    def occupancy(self, threads: int, shared: int, architecture: str) -> int:
        """How many blocks of ``threads`` threads with ``shared`` bytes of dynamic shared memory a multiprocessor
        runs at a time. Registers are given out by 256 a warp, shared memory by 128 bytes and 1 KB more a block."""
        warps = -(-threads // 32)
        of_warp = -(-self.registers * 32 // 256) * 256
        of_block = -(-(self.shared + shared) // 128) * 128 + 1024
        of_shared = (SHARED_LIMIT[architecture] + 1024) // of_block
        return min(_REGISTERS // (of_warp * warps), _THREADS // threads, _BLOCKS, of_shared)


@dataclass(frozen=True)
class Cubin:
    """Machine code of one kernel for one architecture."""

    code: bytes
    resources: Resources


def assemble(ptx: str, architecture: str) -> Cubin:
    """The machine code of ``ptx``, which has one kernel. Raises CompileError with what ptxas says."""
    with tempfile.TemporaryDirectory(prefix="tenon-ptxas-") as folder:
        source, target = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        command = [_tool("ptxas"), f"-arch={architecture}", "-v", str(source), "-o", str(target)]
        found = subprocess.run(command, capture_output=True, text=True)
        told = found.stdout + found.stderr
        if found.returncode:
            raise CompileError(f"ptxas does not take the code for {architecture}: {told.strip()}")
        return Cubin(target.read_bytes(), _resources(told))


def _resources(told: str) -> Resources:
    def number(pattern: str) -> int:
        found = re.search(pattern, told)
        return int(found[1]) if found else 0

    return Resources(
        registers=number(r"Used (\d+) registers"),
        shared=number(r"(\d+) bytes smem"),
        stack=number(r"(\d+) bytes stack frame"),
        spill_stores=number(r"(\d+) bytes spill stores"),
        spill_loads=number(r"(\d+) bytes spill loads"),
        barriers=number(r"used (\d+) barriers"),
        serialized="wgmma.mma_async instructions are serialized" in told,
    )


def disassemble(cubin: bytes) -> str:
    """The SASS of machine code. Raises UnsupportedError where nvdisasm is not installed."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [_tool("nvdisasm"), "-c", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def instructions(sass: str) -> Counter[str]:
    """How often each instruction stands in SASS, by its name up to the first dot: ``HMMA``, ``LDL``, ``BAR``."""
    return Counter(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)", sass))


def _tool(name: str) -> str:
    """The path of a program of the CUDA toolkit: of the installed wheels, or on the PATH."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob(f"cu*/bin/{name}*"), reverse=True):
            return str(path)
    path_found = shutil.which(name)
    if path_found is None:
        raise UnsupportedError(f'{name} is not installed; it comes with the extra "cuda": pip install "tenon[cuda]"')
    return path_found

"""Kernels to machine code for GPUs, without one: numba.cuda makes PTX of their text, ptxas machine code of that."""

from __future__ import annotations

from collections.abc import Sequence

from engine.program import Kernel
from engine.records import dataclass
from runtime.cuda.assembler import Cubin, assemble
from runtime.side_by_side import side_by_side

WORKER = "runtime.cuda.worker"
_WORTH_A_HELPER = 2
"""Kernels for each helping process that must be started, at least: a kernel takes as long as a process."""


@dataclass(frozen=True)
class Processor:
    """The ``architecture`` that kernels are compiled for, and the ``name`` of the processor that code is made for."""

    architecture: str
    name: str


def compile_kernel(kernel: Kernel, architecture: str, processor: str) -> bytes:
    """The machine code of ``kernel``, compiled for an architecture and assembled for a processor that is one. Raises
    CompileError with the kernel's name, what went wrong and its source."""
    return inspect_kernel(kernel, architecture, processor)[1].code


def inspect_kernel(kernel: Kernel, architecture: str, processor: str) -> tuple[str, Cubin]:
    """The PTX of ``kernel``, and its machine code with what that takes. Raises CompileError."""
    from runtime.cuda.toolkit import to_ptx

    ptx = to_ptx(kernel, architecture)
    return ptx, assemble(ptx, processor)


def compile_kernels(
    kernels: Sequence[Kernel], processor: Processor, workers: int | None = None, seconds: dict[str, float] | None = None
) -> dict[str, bytes]:
    """The machine code of each kernel, by key; see :func:`runtime.side_by_side.side_by_side`."""
    options = (processor.architecture, processor.name)
    return side_by_side(kernels, compile_kernel, WORKER, _WORTH_A_HELPER, options, workers, seconds)

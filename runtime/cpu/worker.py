"""A process that compiles kernels for this processor: ``python -m runtime.cpu.worker``."""

from __future__ import annotations

from runtime.cpu.compile import compile_kernel, get_ready
from runtime.worker import main

if __name__ == "__main__":
    get_ready()
    main(compile_kernel)

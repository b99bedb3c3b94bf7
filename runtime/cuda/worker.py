"""A process that compiles kernels for GPUs: ``python -m runtime.cuda.worker``."""

from __future__ import annotations

from runtime.cuda.compile import compile_kernel
from runtime.worker import main

if __name__ == "__main__":
    main(compile_kernel)

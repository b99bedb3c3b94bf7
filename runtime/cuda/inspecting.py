"""What a kernel became, to be read: PTX, SASS, and what its code takes of a multiprocessor."""

from __future__ import annotations

import json
from dataclasses import asdict

from engine.errors import UnsupportedError
from engine.program import Kernel
from engine.records import dataclass
from runtime import helpers
from runtime.cuda.assembler import Resources, disassemble
from runtime.cuda.compile import inspect_kernel as compile_for_inspection
from runtime.cuda.simulator import SIMULATED
from runtime.worker import main

WORKER = "runtime.cuda.inspecting"


@dataclass(frozen=True)
class Inspected:
    """The texts; ``sass`` says why there is none where nvdisasm is not installed."""

    ptx: str
    sass: str
    resources: str


def inspect_kernel(kernel: Kernel, architecture: str, processor: str) -> Inspected:
    """Compile ``kernel`` once more and show what it became. The simulator's process cannot compile for a GPU: another
    does. Raises CompileError."""
    if not SIMULATED:
        return _inspected(kernel, architecture, processor)
    helper = helpers.hire(WORKER)
    found = json.loads(helper.compile(kernel, architecture, processor))
    helpers.release(helper)
    return Inspected(**found)


def _inspected(kernel: Kernel, architecture: str, processor: str) -> Inspected:
    ptx, cubin = compile_for_inspection(kernel, architecture, processor)
    try:
        sass = disassemble(cubin.code)
    except UnsupportedError as error:
        sass = error.message
    return Inspected(ptx, sass, resources_text(kernel, cubin.resources, architecture))


def resources_text(kernel: Kernel, taken: Resources, architecture: str) -> str:
    """What a kernel takes, a line each, and how many of its blocks a multiprocessor runs at a time."""
    blocks = taken.occupancy(kernel.threads, kernel.shared, architecture)
    lines = {
        "threads of a block": kernel.threads,
        "registers of a thread": taken.registers,
        "bytes of shared memory, static": taken.shared,
        "bytes of shared memory, dynamic": kernel.shared,
        "bytes of stack": taken.stack,
        "bytes of spilled registers, stored": taken.spill_stores,
        "bytes of spilled registers, loaded": taken.spill_loads,
        "barriers": taken.barriers,
        "blocks that a multiprocessor runs at a time": blocks,
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


def _as_json(kernel: Kernel, architecture: str, processor: str) -> bytes:
    return json.dumps(asdict(_inspected(kernel, architecture, processor))).encode()


if __name__ == "__main__":
    main(_as_json)

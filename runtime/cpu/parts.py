"""Parts that many kernels hold: microkernels and transpositions, each optimised once a process, and by little.

They are half of the code of most kernels, and written as they are to be: what LLVM does for loops of scalars finds
nothing in them, but looks for long. So a kernel is optimised while it calls its parts; then they are put in place.
"""

from __future__ import annotations

import re

from engine.program import Kernel
from runtime.emit import key_of

_PARAMETERS = {
    "microkernel": "outer, inner, a_step, table, b, b_step, c, c_step, accumulate",
    "transpose": "source, source_step, target, target_step",
}
"""What the intrinsics take that these modules of runtime.cpu provide."""
_IMPORT = re.compile(rf"^from runtime\.cpu\.({'|'.join(_PARAMETERS)}) import (\w+(?:, \w+)*)$", re.MULTILINE)


def parts_of(kernel: Kernel) -> tuple[Kernel, ...]:
    """The parts of ``kernel``, which are what its source imports: each a kernel but for its parameters. What gives its
    sums back belongs to the statements that use them."""
    found = [(module, name) for module, names in _IMPORT.findall(kernel.source) for name in names.split(", ")]
    return tuple(_part(module, name) for module, name in found if not name.endswith("_sums"))


def _part(module: str, name: str) -> Kernel:
    parameters = _PARAMETERS[module]
    source = f"from runtime.cpu.{module} import {name} as part\n\n\ndef {name}({parameters}):\n    part({parameters})\n"
    return Kernel(name, key_of(source), source)

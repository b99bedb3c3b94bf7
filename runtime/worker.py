"""The process that compiles kernels for another: what every ``python -m`` of a backend's worker runs.

Each line of stdin is JSON, a kernel's fields and the options to compile it with; each line of stdout is ``{"code":
base64}`` or ``{"error": message}``. It ends with its stdin, or when nothing comes for a minute. multiprocessing would
import the user's script once more.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable

from engine.errors import CompileError
from engine.program import Kernel

_TIDY = 0.5
"""Seconds without work after which what compiling left behind is collected."""
_END = 60.0
"""Seconds without work after which the process ends."""


def main(compile_kernel: Callable[..., bytes]) -> None:
    """Compile what comes by ``compile_kernel(kernel, *options)``."""
    gc.disable()  # see engine.collecting
    resting: list[threading.Timer] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes our stdin
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever prints while compiling must not get between the answers
        for line in sys.stdin.buffer:
            for timer in resting:
                timer.cancel()
            try:
                fields, options = json.loads(line)
                code = compile_kernel(Kernel(*fields), *options)
                answer = {"code": base64.b64encode(code).decode("ascii")}
            except CompileError as error:
                answer = {"error": error.message}
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()
            resting = [threading.Timer(_TIDY, gc.collect), threading.Timer(_END, os._exit, (0,))]
            for timer in resting:
                timer.daemon = True
                timer.start()

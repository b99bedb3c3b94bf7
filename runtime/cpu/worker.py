"""A process that compiles kernels for another: ``python -m runtime.cpu.worker``.

Each line of stdin is a kernel as JSON ``[name, key, source, libm]``; each line of stdout is ``{"object": base64}`` or
``{"error": message}``. It ends with its stdin, or when nothing comes for a minute. multiprocessing would import the
user's script once more.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import signal
import sys
import threading

from engine.errors import CompileError
from engine.program import Kernel
from runtime.cpu.compile import compile_kernel

_TIDY = 0.5
"""Seconds without work after which what compiling left behind is collected."""
_END = 60.0
"""Seconds without work after which the process ends."""


def main() -> None:
    gc.disable()  # see engine.collecting
    resting: list[threading.Timer] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes our stdin
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever prints while compiling must not get between the answers
        for line in sys.stdin.buffer:
            for timer in resting:
                timer.cancel()
            try:
                code = compile_kernel(Kernel(*json.loads(line)))
                answer = {"object": base64.b64encode(code).decode("ascii")}
            except CompileError as error:
                answer = {"error": error.message}
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()
            resting = [threading.Timer(_TIDY, gc.collect), threading.Timer(_END, os._exit, (0,))]
            for timer in resting:
                timer.daemon = True
                timer.start()


if __name__ == "__main__":
    main()

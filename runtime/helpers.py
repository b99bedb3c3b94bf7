"""Processes that help compiling, kept for the next program.

Starting one takes as long as compiling four or five kernels, most of it the import of Numba.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import subprocess
import sys
import threading
from dataclasses import astuple
from pathlib import Path

from engine.errors import CompileError
from engine.program import Kernel

_PATIENCE = 120.0
"""Seconds that a helper may take over one kernel before it counts as dead."""
_ROOT = str(Path(__file__).resolve().parent.parent)


class Helper:
    """A process that compiles one kernel after the other, by running the module ``worker``; it ends by itself once it
    has had nothing to do for long."""

    def __init__(self, worker: str):
        self.worker = worker
        self._process = _start(worker)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def compile(self, kernel: Kernel, *options: str) -> bytes:
        """The code of ``kernel``, which the worker compiles with these options. Raises CompileError with the compiler's
        message, and OSError or ValueError where the process has died or gives no sense."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([astuple(kernel), options]).encode() + b"\n")
        self._process.stdin.flush()
        timer = threading.Timer(_PATIENCE, self._process.kill)
        timer.start()
        try:
            answer = self._process.stdout.readline()
        finally:
            timer.cancel()
        found = json.loads(answer)
        if "error" in found:
            raise CompileError(found["error"])
        return base64.b64decode(found["code"])

    def dismiss(self) -> None:
        """End the process, whose work nobody waits for."""
        with self._process:  # closes its pipes and waits
            self._process.kill()


def _start(worker: str) -> subprocess.Popen[bytes]:
    paths = [_ROOT, os.environ.get("PYTHONPATH", "")]
    inherited = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}  # it is there to compile
    return subprocess.Popen(
        [sys.executable, "-P", "-m", worker],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=inherited | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


# --- those that wait for work ------------------------------------------------------------------------------

_idle: list[Helper] = []


def idle(worker: str) -> int:
    """How many helpers of this kind wait for work."""
    return len(_waiting(worker))


def call(worker: str, count: int) -> None:
    """Have ``count`` helpers of this kind start, or wait: there will be work for them."""
    try:
        for _ in range(count - idle(worker)):
            release(Helper(worker))
    except OSError:
        pass


def hire(worker: str) -> Helper:
    """A helper that waits, or a new one."""
    for helper in reversed(_waiting(worker)):
        try:
            _idle.remove(helper)
        except ValueError:  # another thread has hired it meanwhile
            continue
        if helper.alive:
            return helper
        helper.dismiss()
    return Helper(worker)


def _waiting(worker: str) -> list[Helper]:
    return [helper for helper in _idle if helper.worker == worker]


def release(helper: Helper) -> None:
    """Keep ``helper`` for the next program."""
    _idle.append(helper)


@atexit.register
def _dismiss_all() -> None:
    while _idle:
        _idle.pop().dismiss()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # they are the parent's

"""Compiling many kernels at once: in this process, and in others that help."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence

from engine.collecting import no_collecting
from engine.errors import CompileError
from engine.program import Kernel
from runtime import helpers
from runtime.cpu.threads import thread_count

Compile = Callable[..., bytes]


@no_collecting()
def side_by_side(
    kernels: Sequence[Kernel],
    compile_kernel: Compile,
    worker: str,
    worth_a_helper: int,
    options: Sequence[str] = (),
    workers: int | None = None,
    seconds: dict[str, float] | None = None,
) -> dict[str, bytes]:
    """The code of each kernel, by key, from ``compile_kernel(kernel, *options)``, which the module ``worker`` offers in
    a process of its own; the biggest first. What each took goes into ``seconds``.

    ``workers`` is the number of helping processes (default: one for each processor but this one's, if there are
    ``worth_a_helper`` kernels for each that must be started). What one leaves behind when it dies is compiled here.
    Raises CompileError.
    """
    work = _Work(kernels, compile_kernel, worker, options)
    if workers is None:
        count = len(work.waiting)
        worthwhile = max(count // worth_a_helper, min(helpers.idle(worker), count // 2))
        workers = min(thread_count() - 1, worthwhile)
    feeders = [threading.Thread(target=work.in_helper, name="tenon-compile") for _ in range(workers)]
    try:
        for feeder in feeders:
            feeder.start()
        work.here()
        for feeder in feeders:
            feeder.join()
        work.here()  # what a dead helper gave back
    finally:
        work.waiting.clear()
        for feeder in feeders:
            feeder.join()
    if work.errors:
        raise CompileError(work.errors[0])
    if seconds is not None:
        seconds.update(work.seconds)
    return work.done


class _Work:
    """Kernels that wait, smallest first, and what has become of the others."""

    def __init__(self, kernels: Sequence[Kernel], compile_kernel: Compile, worker: str, options: Sequence[str]):
        self.waiting = sorted({k.key: k for k in kernels}.values(), key=lambda k: len(k.source))
        self.done: dict[str, bytes] = {}
        self.seconds: dict[str, float] = {}
        self.errors: list[str] = []
        self._compile, self._worker, self._options = compile_kernel, worker, options

    def take(self) -> Kernel | None:
        try:
            return self.waiting.pop()
        except IndexError:
            return None

    def here(self) -> None:
        while kernel := self.take():
            self._keep(kernel, self._compile)

    def _keep(self, kernel: Kernel, compiled: Compile) -> None:
        start = time.perf_counter()
        self.done[kernel.key] = compiled(kernel, *self._options)
        self.seconds[kernel.key] = time.perf_counter() - start

    def in_helper(self) -> None:
        """Hand kernels to a process of their own until none waits; runs in a thread of its own."""
        if not sys.executable or getattr(sys, "frozen", False):
            return  # a frozen application would be started again
        try:
            helper = helpers.hire(self._worker)
        except OSError:
            return
        kernel = None
        try:
            while kernel := self.take():
                self._keep(kernel, helper.compile)
        except CompileError as error:
            self.errors.append(error.message)
            self.waiting.clear()
        except (OSError, ValueError):
            if kernel is not None:
                self.waiting.append(kernel)
            helper.dismiss()
            return
        helpers.release(helper)

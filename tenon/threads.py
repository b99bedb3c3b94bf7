"""How many threads programs use."""

from __future__ import annotations

import operator
import os

from engine.errors import TenonError


def get_num_threads() -> int:
    """The number of threads that a call of a program uses: ``TENON_THREADS``, or all that this process may."""
    from runtime.cpu.threads import thread_count

    return thread_count()


def set_num_threads(count: int) -> None:
    """Let programs, also those that exist, use ``count`` threads. Results do not depend on it. Raises TenonError."""
    from tenon.executable import alive

    number = operator.index(count)
    if number < 1:
        raise TenonError(f"the number of threads is {count}; at least 1 was expected")
    os.environ["TENON_THREADS"] = str(number)
    for executable in list(alive):
        executable.reload()

"""Python's cyclic garbage collector rests while a graph is made and compiled.

Both make millions of objects that live until the end; walking through them again and again takes up to half of the
time, and more than its share the larger the graph is.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collecting() -> Iterator[None]:
    """Let the collector rest inside, if it is at work."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()

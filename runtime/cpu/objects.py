"""Object code in memory: linked against a short list of functions, and kept for as long as the process lives.

Every object is a library of its own in one LLVM JIT, so names cannot clash, and sees nothing but ``EXTERNALS``: one
that refers to anything else does not link, whether it comes from the compiler or from the cache. Numba is not needed.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from functools import cache
from typing import TYPE_CHECKING

from engine.errors import CompileError

if TYPE_CHECKING:
    from llvmlite.binding import JITLibraryBuilder
    from llvmlite.binding.orcjit import LLJIT, ResourceTracker

EXTERNALS = ("memcpy", "memmove", "memset")
"""What object code may call: LLVM turns copying and filling loops into these."""

_lock = threading.Lock()
_names = itertools.count()


def symbol(name: str) -> str:
    """The name under which a kernel's object exports its entry."""
    return f"tenon_{name}"


class Code:
    """Linked machine code: ``address`` is its entry, a C function ``void(int64, int64, int64, int64)``.

    It stays in memory as long as this object does.
    """

    __slots__ = ("_tracker", "address")

    def __init__(self, tracker: ResourceTracker, address: int):
        self._tracker = tracker
        self.address = address


def link(code: bytes, entry: str) -> Code:
    """Load an object file. Raises CompileError where it is none, lacks ``entry`` or refers to other symbols."""
    with _lock:
        try:
            builder = _builder().add_object_img(code).export_symbol(entry)
            tracker = builder.link(_jit(), f"tenon{next(_names)}")
        except RuntimeError as error:
            raise CompileError(f"the object code does not link: {error}") from None
        return Code(tracker, tracker[entry])


def _builder() -> JITLibraryBuilder:
    from llvmlite.binding import JITLibraryBuilder

    builder = JITLibraryBuilder()
    for name, address in _externals().items():
        builder.import_symbol(name, address)
    return builder


@cache
def _externals() -> dict[str, int]:
    from llvmlite import binding

    found = {}
    for name in EXTERNALS:
        address = binding.address_of_symbol(name)
        found[name] = address or ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    return found  # type: ignore[return-value]


@cache
def _jit() -> LLJIT:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    return binding.create_lljit_compiler(machine, use_jit_link=True, suppress_errors=True)

"""Object code in memory: linked against a short list of functions, and kept for as long as the process lives.

Every object is a library of its own in one LLVM JIT, so names cannot clash, and sees nothing but ``EXTERNALS``, or
where it is a user's kernel ``LIBM`` too: one that refers to anything else does not link, whether it comes from the
compiler or from the cache. Numba is not needed.
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
_UNARY = (
    "acos acosh asin asinh atan atanh cbrt ceil cos cosh erf erfc exp exp2 expm1 fabs floor lgamma log log10 log1p "
    "log2 nearbyint rint round sin sinh sqrt tan tanh tgamma trunc"
)
_OTHERS = "atan2 copysign fdim fma fmax fmin fmod frexp hypot ldexp modf nextafter pow remainder sincos"
LIBM = tuple(name + suffix for name in f"{_UNARY} {_OTHERS}".split() for suffix in ("", "f"))
"""What a user's kernel may call besides, where the platform has it: C's math library, for f64 and f32."""

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


def link(code: bytes, entry: str, libm: bool = False) -> Code:
    """Load an object file. Raises CompileError where it is none, lacks ``entry`` or refers to symbols other than
    ``externals(libm)``."""
    with _lock:
        try:
            builder = _builder(libm).add_object_img(code).export_symbol(entry)
            tracker = builder.link(_jit(), f"tenon{next(_names)}")
        except RuntimeError as error:
            raise CompileError(f"the object code does not link: {error}") from None
        return Code(tracker, tracker[entry])


def _builder(libm: bool) -> JITLibraryBuilder:
    from llvmlite.binding import JITLibraryBuilder

    builder = JITLibraryBuilder()
    for name, address in externals(libm).items():
        builder.import_symbol(name, address)
    return builder


@cache
def externals(libm: bool = False) -> dict[str, int]:
    """The functions that object code may call, with their addresses in this process."""
    found = {name: _address(name) for name in (*EXTERNALS, *(LIBM if libm else ()))}
    return {name: address for name, address in found.items() if address is not None}


def _address(name: str) -> int | None:
    from llvmlite import binding

    found = binding.address_of_symbol(name)
    if not found:
        function = getattr(ctypes.CDLL(None), name, None)
        found = function and ctypes.cast(function, ctypes.c_void_p).value
    return found


@cache
def _jit() -> LLJIT:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    return binding.create_lljit_compiler(machine, use_jit_link=True, suppress_errors=True)

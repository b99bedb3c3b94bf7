"""The error family, and the user's source line that every message carries."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PACKAGES = tuple(os.path.join(_ROOT, p) + os.sep for p in ("engine", "frontend", "passes", "runtime", "tenon"))
_OWN = (*_PACKAGES, contextlib.__file__)  # the latter stands between Tenon's frames where it decorates a function


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A line of the user's program: ``digits_cnn.py:31 in CNN.forward``. ``module`` is the path of the module that was
    called meanwhile, ``CNN.conv1``, from the class of the outermost; empty outside of any."""

    file: str
    line: int
    function: str
    module: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line} in {self.function}"


_module: ContextVar[str] = ContextVar("tenon_module", default="")


@contextlib.contextmanager
def in_module(path: str) -> Iterator[None]:
    """Lines that are noted meanwhile belong to the module at ``path``."""
    token = _module.set(path)
    try:
        yield
    finally:
        _module.reset(token)


def current_module() -> str:
    """The path of the innermost module that is being called, or an empty text."""
    return _module.get()


def user_location() -> SourceLocation | None:
    """The innermost frame on the stack that is not Tenon's own code, or None."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OWN):
            return SourceLocation(file, frame.f_lineno, frame.f_code.co_qualname, _module.get())
        frame = frame.f_back  # type: ignore[assignment]
    return None


class TenonError(Exception):
    """Base of every error that Tenon raises on purpose.

    The message says what was given and what was expected; the user's own line, where known,
    is appended on a line of its own and kept in ``location``.
    """

    def __init__(self, message: str, location: SourceLocation | None = None):
        self.message = message
        self.location = location if location is not None else user_location()
        super().__init__(message)

    def __str__(self) -> str:
        if self.location is None:
            return self.message
        return f"{self.message}\n  at {self.location.file}:{self.location.line} in {self.location.function}"


class ShapeError(TenonError, ValueError):
    """Shapes, ranks, axes or sizes that do not fit."""


class DTypeError(TenonError, TypeError):
    """A dtype that an op or an input does not take."""


class TraceError(TenonError, TypeError):
    """Python asked a symbolic value for something only known at run time."""


class UnsupportedError(TenonError, NotImplementedError):
    """An op, dtype or option that the chosen backend does not provide."""


class VerifyError(TenonError, AssertionError):
    """A graph that breaks an invariant: a defect of a pass, not of the user's program."""


class TextError(TenonError, ValueError):
    """A dumped program that does not parse."""


class IndexRangeError(TenonError, IndexError):
    """A label or index outside its range, found while running; no state has been changed."""


class BoundsError(TenonError, IndexError):
    """A kernel that reaches outside of a buffer, caught where kernels run in Python: Tenon's defect."""


class StateError(TenonError, KeyError):
    """Named state that is missing, unexpected or of another type."""

    def __str__(self) -> str:
        return TenonError.__str__(self)


class CompileError(TenonError, RuntimeError):
    """Generated code that does not compile, or that calls what compiled kernels may not call: Tenon's defect."""


class DeviceError(TenonError, RuntimeError):
    """A GPU, or its driver, that is not there or has failed."""


class DeviceMemoryError(DeviceError, MemoryError):
    """A program that takes more memory than a GPU has free. It has not run."""


class CacheError(TenonError, OSError):
    """The compile cache cannot be used safely."""

"""What Numba knows of arithmetic, and no more: its contexts for typing and for code, in a tenth of the time.

Numba's own contexts load everything that Numba can do (strings, dicts, linear algebra, and SciPy where that is
installed) before they give the type of a sum: a quarter of a second, in every process that compiles. Generated kernels
hold operators on numbers, casts, and intrinsics that bring their own code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from numba.core import imputils
from numba.core.callconv import create_error_model
from numba.core.cpu import CPUContext
from numba.core.cpu_options import FastMathOptions
from numba.core.typing.context import BaseContext
from numba.core.typing.templates import builtin_registry


class _Typing(BaseContext):
    """The types that ``operators`` give, ``bool`` among them."""

    def __init__(self, operators: Collection[Callable[..., Any]]):
        from numba.core.typing import builtins  # noqa: F401  (registers what follows)

        super().__init__()
        found: dict[Any, Any] = {}
        for function, kind in builtin_registry.globals:
            if function in operators:
                found[function] = found[function].augment(kind) if function in found else kind
        for function, kind in found.items():
            self.insert_global(function, kind)

    def refresh(self) -> None:
        """Nothing joins later, as it does in Numba's own."""


class _Target(CPUContext):
    """Code for numbers; what else asks for code is refused."""

    def load_additional_registries(self) -> None:
        from numba.cpython import numbers  # noqa: F401  (registers what follows)

        self.install_registry(imputils.builtin_registry)


def contexts(operators: Collection[Callable[..., Any]], fastmath: frozenset[str]) -> tuple[Any, Any]:
    """Numba's typing and target contexts for ``operators`` on numbers, with NumPy's error model."""
    typing = _Typing(operators)
    target = _Target(typing, "cpu")
    target.refresh()
    options = FastMathOptions(set(fastmath))
    return typing, target.subtarget(error_model=create_error_model("numpy", target), fastmath=options)

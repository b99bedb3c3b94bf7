"""What every backend writes around a user's kernel: its attributes as text."""

from __future__ import annotations

import math

from engine.dims import Expr
from runtime.emit import ArgTable


def attribute_text(value: object, table: ArgTable) -> str:
    """An attribute as an expression; ``_tenon`` is the module of the backend that knows about arrays."""
    if isinstance(value, Expr):
        return table.size(value)
    if isinstance(value, tuple):
        return f"({''.join(f'{attribute_text(v, table)}, ' for v in value)})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"_tenon.{'nan' if value != value else 'inf' if value > 0 else 'minus_inf'}"
    return repr(value)

"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.dims import Size


def bytes_text(count: int) -> str:
    """``1536`` as ``1.5 KiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def seconds_text(seconds: float) -> str:
    """``0.0015`` as ``1.50 ms``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds >= 100 * size else f"{seconds / size:.2f} {unit}"
    return f"{seconds / 1e-6:.2f} us"


def count_text(count: Size) -> str:
    """A large number, which may depend on dims, in thousands: ``1.61 M``, ``25.1 K*B``."""
    if isinstance(count, int):
        size = float(count)
        units = ["", " K", " M", " G", " T"]
        while abs(size) >= 999.5 and len(units) > 1:
            size /= 1000
            del units[0]
        return f"{size:.3g}{units[0]}"
    return " + ".join("*".join([count_text(factor), *map(str, atoms)]) for atoms, factor in count.terms)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of cells as lines: the first column flush left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

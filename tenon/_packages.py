"""Makes sure that the packages beside this one are Tenon's own: another distribution may carry such names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PARTS = ("engine", "frontend", "passes", "runtime")
_ROOT = Path(__file__).resolve().parent.parent


def check(root: Path = _ROOT) -> None:
    """Raise ImportError unless every one of ``PARTS`` would be imported from ``root``. None of them is imported."""
    for name in PARTS:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            raise ImportError(
                f"Tenon's package {name!r} is not installed beside {root / 'tenon'}; install Tenon again: "
                "pip install --force-reinstall --no-deps tenon",
                name=name,
            )
        found = spec.origin or next(iter(spec.submodule_search_locations or ()), "an unknown place")
        if Path(found).resolve() != root / name / "__init__.py":
            raise ImportError(
                f"Tenon needs its own package {name!r}, and Python finds another one: {found}. Rename or remove that "
                f"one, or put {root} ahead of it on sys.path",
                name=name,
                path=found,
            )

"""Names for values: Python identifiers that a printed graph can use."""

from __future__ import annotations

import keyword
import re

from engine import dtypes

WORDS = ("Input", "State", "assume", "body", "constant", "dim", "inf", "kernel", "nan", "program", "run", "str")
"""What a printed graph uses besides ops and dtypes."""


def reserved() -> frozenset[str]:
    """Names that no value may have, since a printed graph would read them as something else."""
    from engine.op import all_ops  # the ops' records need graphs, and graphs need names

    return frozenset((*keyword.kwlist, *WORDS, *(d.name for d in dtypes.ALL), *all_ops()))


def identifier(name: str) -> str:
    """``name`` as a Python identifier that means nothing else: ``conv1.weight`` gives ``conv1_weight``, ``sum`` gives
    ``sum_``, and ``t1``, which looks like a node's own name, ``t1_``."""
    text = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    if not text or text[0].isdigit():
        text = f"_{text}"
    return f"{text}_" if text in reserved() or re.fullmatch(r"t\d+(_\d+)*", text) else text

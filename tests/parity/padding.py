"""Padding: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import Case, ModuleCase, integers, normal
from tenon import F, nn


def same(label: str, x: np.ndarray, *args: Any, **more: Any) -> Case:
    return Case(f"pad/{label}", lambda x: F.pad(x, *args), lambda t, x: t.nn.functional.pad(x, args[0], *args[1:]),
                (x,), **more)  # fmt: skip


def layer(name: str, *args: Any, x: np.ndarray, **more: Any) -> ModuleCase:
    what = ", ".join(map(str, args))
    return ModuleCase(
        f"{name}({what})", lambda: getattr(nn, name)(*args), lambda t: getattr(t.nn, name)(*args), (x,), **more
    )


SPACES = {1: normal(2, 3, 6), 2: normal(2, 3, 5, 6), 3: normal(2, 2, 4, 5, 6)}
MODES = ("reflect", "replicate", "circular")


def modes(rank: int, mode: str) -> list[Case]:
    x = SPACES[rank]
    uneven = tuple(range(3, 0, -1)) * 2
    return [
        same(f"{mode}{rank}", x, [1, 2] * rank, mode, compiled=rank == 2, batched=(0,)),
        same(f"{mode}{rank}/uneven", x, list(uneven[: 2 * rank]), mode),
        same(f"{mode}{rank}/one side", x, [0, 2, *[0, 0] * (rank - 1)], mode),
        same(f"{mode}{rank}/crop", x, [-1, 2] * rank, mode),
        same(f"{mode}{rank}/no batch", x[0], [1] * 2 * rank, mode),
        same(f"{mode}{rank}/no examples", x[:0], [1] * 2 * rank, mode),
    ]


CASES: list[Case | ModuleCase] = [
    same("constant", normal(2, 3, 4), (1, 2), compiled=True, batched=(0,)),
    same("constant/value", normal(2, 3, 4), (1, 0, 2, 3), "constant", 1.5),
    same("constant/all axes", normal(2, 3), (1, 0, 2, 3), "constant", -1.0),
    same("constant/infinite", normal(2, 3), (1, 1), "constant", -np.inf, grads=False),
    same("constant/crop", normal(4, 5), (-1, 2, 1, -2)),
    same("constant/empty", normal(0, 3), (1, 2)),
    same("constant/of nothing", normal(2, 0), (1, 2), "constant", 3.0),
    same("constant/integers", integers(9, 3, 4), (1, 1), "constant", 7),
    *(case for rank in SPACES for mode in MODES for case in modes(rank, mode)),
    same("reflect/most", normal(2, 3, 4), (3, 3), "reflect"),
    same("replicate/size 1", normal(2, 3, 1), (3, 2), "replicate"),
    same("circular/most", normal(2, 3, 4), (4, 4), "circular"),
    same("replicate/infinite", np.array([[[np.inf, 1.0, np.nan]]]), (2, 2), "replicate", grads=False),
    *(layer(f"ConstantPad{r}d", 2, 3.5, x=x, compiled=True, batched=(0,)) for r, x in SPACES.items()),
    *(layer(f"ZeroPad{r}d", (1, 2) * r, x=x, compiled=True, batched=(0,)) for r, x in SPACES.items()),
    *(layer(f"{name}Pad{r}d", p, x=x, compiled=p == 2 and r == 1, batched=(0,))
      for name in ("Reflection", "Replication", "Circular") for r, x in SPACES.items() for p in (2, (1, 2) * r)),
]  # fmt: skip

"""Convolution: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from parity import Case, ModuleCase, normal
from tenon import F, nn


def same(name: str, *arrays: np.ndarray, label: str = "", **options: Any) -> Case:
    """``F.name(*arrays, **options)`` on both sides."""
    own = {k: options.pop(k) for k in ("compiled", "batched", "grads", "tolerance") if k in options}
    what = label or ", ".join(f"{k}={v}" for k, v in options.items())
    return Case(
        f"{name}/{what}" if what else name,
        lambda *x: getattr(F, name)(*x, **options),
        lambda t, *x: getattr(t.nn.functional, name)(*x, **options),
        arrays,
        **own,
    )


def layer(name: str, *args: Any, x: np.ndarray, **options: Any) -> ModuleCase:
    own = {k: options.pop(k) for k in ("compiled", "batched", "call") if k in options}
    what = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in options.items())])
    return ModuleCase(
        f"{name}({what})",
        lambda: getattr(nn, name)(*args, **options),
        lambda t: getattr(t.nn, name)(*args, **options),
        (x,),
        **own,
    )


SIGNAL, IMAGE, VOLUME = normal(2, 4, 9), normal(2, 4, 7, 8), normal(2, 4, 5, 6, 7)
SPACES: dict[int, tuple[np.ndarray, tuple[int, ...]]] = {
    1: (SIGNAL, (3,)),
    2: (IMAGE, (3, 2)),
    3: (VOLUME, (2, 3, 2)),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2},
    {"groups": 2, "stride": 2},
    {"groups": 4, "padding": 1},
    {"padding": "same", "dilation": 3},
    {"padding": "same"},
    {"padding": "valid", "stride": 3},
]
TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": 3, "output_padding": 2},
    {"dilation": 3, "stride": 2, "output_padding": 2, "padding": 1},
    {"groups": 2, "stride": 2, "output_padding": 1},
    {"groups": 4},
]


def convolutions(rank: int) -> list[Case]:
    x, kernel = SPACES[rank]
    name, found = f"conv{rank}d", []
    for options in OPTIONS:
        groups = options.get("groups", 1)
        w, b = normal(8, 4 // groups, *kernel) * 0.5, normal(8)
        found.append(same(name, x, w, b, **options, compiled=groups == 4, batched=(0,)))
    one = (1,) * rank
    return [
        *found,
        same(name, x[0], normal(3, 4, *kernel), label="no batch"),
        same(name, x, normal(3, 4, *one), normal(3), label="1x1", compiled=rank == 2, batched=(0,)),
        same(name, x, normal(3, 4, *one), label="1x1, strided", stride=2),
        same(name, x[:, :1, ...], normal(3, 1, *kernel), label="one channel"),
        same(name, x[:0], normal(3, 4, *kernel), normal(3), label="no examples"),
        same(name, normal(1, 1, *one), normal(1, 1, *one), normal(1), label="size 1"),
        same(name, x, normal(2, 4, *x.shape[2:]), label="as large as the input"),
        same(name, np.where(x > 1.5, np.inf, x), np.abs(normal(2, 4, *one)), label="infinite", grads=False),
    ]


def transposes(rank: int) -> list[Case]:
    x, kernel = SPACES[rank]
    name, found = f"conv_transpose{rank}d", []
    for options in TRANSPOSED:
        w, b = normal(4, 4 // options.get("groups", 1), *kernel) * 0.5, normal(4)
        compiled = options == TRANSPOSED[4]
        found.append(same(name, x[..., :4], w, b, **options, compiled=compiled, batched=(0,)))
    return [
        *found,
        same(name, x[0, ..., :3], normal(4, 3, *kernel), label="no batch"),
        same(name, x[..., :3], normal(4, 3, *(1,) * rank), normal(3), label="1x1", stride=2),
        same(name, x[:0, ..., :3], normal(4, 3, *kernel), normal(3), label="no examples"),
        same(name, x[..., :1], normal(4, 1, *kernel), label="size 1", stride=2),
    ]


def layers(rank: int) -> list[ModuleCase]:
    x, _ = SPACES[rank]
    conv, back = f"Conv{rank}d", f"ConvTranspose{rank}d"
    wide: Callable[..., Any] = lambda m, x: m(x, tuple(2 * n for n in x.shape[2:]))  # noqa: E731
    return [
        layer(conv, 4, 6, 3, x=x, compiled=rank == 2, batched=(0,)),
        layer(conv, 4, 6, 2, 2, 1, 1, 2, False, x=x),
        layer(conv, 4, 6, 3, padding="same", x=x),
        *(layer(conv, 4, 2, 3, padding=1, padding_mode=m, x=x) for m in ("zeros", "reflect", "replicate", "circular")),
        *(layer(conv, 4, 2, 2, padding=p, padding_mode="reflect", dilation=3, x=x) for p in ("same", "valid")
          if rank == 1 or p == "same"),
        layer(conv, 4, 2, 3, x=x[0]),
        layer(back, 4, 6, 3, stride=2, padding=1, x=x),
        layer(back, 4, 6, 2, 2, 0, 1, 2, False, x=x),
        layer(back, 4, 2, 3, stride=2, padding=1, x=x, call=wide),
    ]  # fmt: skip


PATCHES: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": (3, 2), "stride": 2},
    {"kernel_size": (2, 3), "dilation": 2, "padding": 1},
    {"kernel_size": 2, "stride": (2, 3), "padding": (1, 0)},
]


def patches() -> list[Case | ModuleCase]:
    import torch

    found: list[Case | ModuleCase] = []
    for i, options in enumerate(PATCHES):
        found.append(same("unfold", IMAGE, **options, compiled=i == 1, batched=(0,)))
        columns = torch.nn.functional.unfold(torch.zeros(IMAGE.shape), **options).shape
        found.append(same("fold", normal(*columns), output_size=(7, 8), **options, compiled=i == 1, batched=(0,)))
    return [
        *found,
        same("unfold", IMAGE[0], kernel_size=3, label="no batch"),
        same("unfold", IMAGE[:0], kernel_size=3, label="no examples"),
        same("fold", normal(4, 6), output_size=(3, 4), kernel_size=2, label="no batch"),
        layer("Unfold", 2, 1, 1, 2, x=IMAGE, compiled=True, batched=(0,)),
        layer("Fold", (4, 5), 2, 1, 0, 1, x=normal(2, 8, 12), compiled=True, batched=(0,)),
    ]


CASES: list[Case | ModuleCase] = [
    *(case for rank in SPACES for case in (*convolutions(rank), *transposes(rank), *layers(rank))),
    *patches(),
]

"""Pooling: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import Case, ModuleCase, distinct, integers, normal, uniform
from tenon import F, nn


def same(name: str, x: np.ndarray, *, label: str = "", **options: Any) -> Case:
    """``F.name(x, **options)`` on both sides."""
    own = {k: options.pop(k) for k in ("compiled", "batched", "grads", "tolerance", "dtypes") if k in options}
    what = ", ".join(filter(None, [label, *(f"{k}={v}" for k, v in options.items())]))
    return Case(
        f"{name}/{what}",
        lambda x: getattr(F, name)(x, **options),
        lambda t, x: getattr(t.nn.functional, name)(x, **options),
        (x,),
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


SPACES = {1: distinct(2, 3, 11), 2: distinct(2, 2, 7, 9), 3: distinct(2, 2, 5, 6, 7)}

MAX: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True},
    {"kernel_size": 2, "ceil_mode": True, "return_indices": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 1, "dilation": 2, "return_indices": True},
    {"kernel_size": 3, "stride": 4},
    {"kernel_size": 1},
]
AVG: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 4, "padding": 2, "ceil_mode": True},
]


def windows(rank: int) -> list[Case]:
    x = SPACES[rank]
    most, mean, norm = f"max_pool{rank}d", f"avg_pool{rank}d", f"lp_pool{rank}d"
    positive = uniform(0.5, 2, *x.shape)
    found = [same(most, x, **o, compiled=i == 1, batched=(0,)) for i, o in enumerate(MAX)]
    found += [same(mean, x, **o, compiled=i in (0, 2), batched=(0,)) for i, o in enumerate(AVG)]
    if rank > 1:
        found += [same(mean, x, kernel_size=2, padding=1, divisor_override=d) for d in (3, -2)]
        found += [
            same(most, x, kernel_size=(2, 3, 1)[:rank], stride=(1, 2, 3)[:rank], return_indices=True),
            same(mean, x, kernel_size=(2, 3, 1)[:rank], stride=(1, 2, 3)[:rank]),
        ]
    return [
        *found,
        *(same(f, x[0], label="no batch", kernel_size=2) for f in (most, mean)),
        *(same(f, x[:0], label="no examples", kernel_size=2) for f in (most, mean)),
        same(most, np.where(x > 1, np.inf, np.where(x < -1, -np.inf, np.nan)), label="not finite", kernel_size=2,
             grads=False),
        same(mean, np.where(x > 2, np.inf, x), label="infinite", kernel_size=2, stride=1, grads=False),
        same(most, np.zeros((1, 1, *(4,) * rank)), label="ties", kernel_size=2, return_indices=True),
        same(norm, positive, norm_type=2.0, kernel_size=2, compiled=True, batched=(0,)),
        same(norm, positive, norm_type=1.5, kernel_size=3, stride=2),
        same(norm, positive, norm_type=3.0, kernel_size=2, ceil_mode=True),
        same(norm, positive[0], label="no batch", norm_type=4, kernel_size=2),
    ]  # fmt: skip


def long_windows() -> list[Case]:
    """Windows of more than 256 positions, which no one op pools."""
    line, image, volume = distinct(2, 2, 700), distinct(1, 2, 20, 30), distinct(1, 1, 9, 10, 8)
    return [
        same("max_pool1d", line, kernel_size=300, stride=150, padding=60, return_indices=True, compiled=True,
             batched=(0,)),
        same("max_pool1d", line, kernel_size=300, stride=300, padding=20, ceil_mode=True, return_indices=True),
        same("max_pool1d", line, kernel_size=257, stride=100, dilation=2, return_indices=True),
        same("max_pool2d", image, kernel_size=(17, 18), stride=(2, 5), padding=(3, 2), return_indices=True,
             compiled=True),
        same("max_pool2d", image, kernel_size=(20, 30), label="all"),
        same("max_pool2d", np.zeros((1, 1, 20, 20)), kernel_size=17, stride=1, return_indices=True, label="ties"),
        same("max_pool3d", volume, kernel_size=(7, 8, 6), stride=2, padding=1, return_indices=True),
        same("max_pool1d", integers(99, 1, 2, 600), kernel_size=300, padding=10, return_indices=True),
    ]  # fmt: skip


def adaptive(rank: int) -> list[Case]:
    x = SPACES[rank]
    most, mean = f"adaptive_max_pool{rank}d", f"adaptive_avg_pool{rank}d"
    sizes = [1, 2, 3, 5] if rank == 1 else [1, 2, 4, (None, 3, 2)[:rank], (3, None, None)[:rank], (1, 3, 4)[:rank]]
    even = distinct(2, 2, *(6, 4, 8)[:rank])
    compiled = (2,) if rank == 2 else ()
    return [
        *(same(mean, x, output_size=n, compiled=n in compiled, batched=(0,)) for n in sizes),
        *(same(most, x, output_size=n, return_indices=True, compiled=n in compiled, batched=(0,)) for n in sizes),
        *(same(f, even, label="even", output_size=2) for f in (mean, most)),
        *(same(f, x, label="more than there are", output_size=13) for f in (mean, most) if rank < 3),
        *(same(f, x[0], label="no batch", output_size=2) for f in (mean, most)),
        *(same(f, x[:0], label="no examples", output_size=2) for f in (mean, most)),
        same(mean, np.where(x > 2, np.nan, x), label="not a number", output_size=3, grads=False),
        same(most, np.where(x > 2, np.nan, x), label="not a number", output_size=3, grads=False),
    ]


def unpooling(rank: int) -> list[Case]:
    x = SPACES[rank]

    def there_and_back(F: Any, x: Any, kernel: int, stride: int, padding: int, size: Any) -> Any:
        best, place = getattr(F, f"max_pool{rank}d")(x, kernel, stride, padding, return_indices=True)
        return getattr(F, f"max_unpool{rank}d")(best, place, kernel, stride, padding, size)

    even = x[(slice(None), slice(None), *(slice(0, n - n % 2) for n in x.shape[2:]))]
    return [
        Case(f"max_unpool{rank}d/{options}", lambda x, o=options: there_and_back(F, x, *o),
             lambda t, x, o=options: there_and_back(t.nn.functional, x, *o), (array,), compiled=array is even,
             batched=(0,))
        for array, options in ((even, (2, 2, 0, None)), (x, (2, 2, 0, x.shape[2:])), (x, (2, 3, 1, x.shape)))
    ]  # fmt: skip


def layers(rank: int) -> list[ModuleCase]:
    x = SPACES[rank]
    positive = uniform(0.5, 2, *x.shape)

    def back(module: Any, x: Any) -> Any:
        if type(module).__module__.startswith("torch"):
            import torch

            return module(*getattr(torch.nn.functional, f"max_pool{rank}d")(x, 2, return_indices=True), x.shape)
        return module(*getattr(F, f"max_pool{rank}d")(x, 2, return_indices=True), x.shape)

    more = {} if rank == 1 else {"divisor_override": 5}
    return [
        layer(f"MaxPool{rank}d", 2, x=x, compiled=rank == 2, batched=(0,)),
        layer(f"MaxPool{rank}d", 3, 2, 1, 1, True, True, x=x),
        layer(f"AvgPool{rank}d", 3, x=x),
        layer(f"AvgPool{rank}d", 3, 2, 1, True, False, **more, x=x),
        layer(f"LPPool{rank}d", 2, 3, x=positive),
        layer(f"LPPool{rank}d", 3.0, 3, 1, True, x=positive),
        layer(f"AdaptiveAvgPool{rank}d", 3, x=x),
        layer(f"AdaptiveMaxPool{rank}d", 3, x=x),
        layer(f"AdaptiveMaxPool{rank}d", 2, True, x=x),
        layer(f"MaxUnpool{rank}d", 2, x=x, call=back),
    ]


CASES: list[Case | ModuleCase] = [
    *(case for rank in SPACES for case in (*windows(rank), *adaptive(rank), *unpooling(rank), *layers(rank))),
    *long_windows(),
    same("max_pool2d", integers(9, 2, 2, 5, 5), label="integers", kernel_size=2, return_indices=True),
    same("adaptive_avg_pool2d", normal(2, 3, 300, 4), label="long", output_size=(1, 4)),
    same("adaptive_max_pool2d", distinct(2, 3, 300, 4), label="long", output_size=1, return_indices=True),
]

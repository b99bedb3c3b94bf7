"""Linear, bilinear and lazy layers, containers, and layers that rearrange: Tenon and PyTorch do the same."""

from __future__ import annotations

from typing import Any

from parity import Case, ModuleCase, normal
from tenon import F, nn


def module(text: str, *shapes: tuple[int, ...], **more: Any) -> ModuleCase:
    """The module that ``text`` makes of both ``nn``, on inputs of these shapes."""

    def made(source: Any) -> Any:
        return eval(text, {"nn": source})

    name = text.removeprefix("nn.")
    return ModuleCase(name, lambda: made(nn), lambda t: made(t.nn), tuple(normal(*s) for s in shapes), **more)


SHAPES = {1: (3, 4, 7), 2: (2, 4, 6, 5), 3: (2, 4, 4, 5, 3)}

"""Inputs in one, two and three dimensions."""

CASES: list[Case | ModuleCase] = [
    Case("linear", F.linear, lambda t, *a: t.nn.functional.linear(*a), (normal(3, 4), normal(5, 4), normal(5))),
    Case("linear/no bias", F.linear, lambda t, *a: t.nn.functional.linear(*a), (normal(2, 3, 4), normal(5, 4))),
    Case("linear/one vector", F.linear, lambda t, *a: t.nn.functional.linear(*a), (normal(4), normal(5, 4))),
    Case("bilinear", F.bilinear, lambda t, *a: t.nn.functional.bilinear(*a),
         (normal(3, 4), normal(3, 2), normal(5, 4, 2), normal(5))),
    Case("bilinear/more axes", F.bilinear, lambda t, *a: t.nn.functional.bilinear(*a),
         (normal(2, 3, 4), normal(2, 3, 2), normal(5, 4, 2))),
    Case("instance_norm", F.instance_norm, lambda t, x: t.nn.functional.instance_norm(x), (normal(2, 3, 5),)),
    Case("instance_norm/affine", lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=1e-3),
         lambda t, x, w, b: t.nn.functional.instance_norm(x, weight=w, bias=b, eps=1e-3),
         (normal(2, 3, 4, 5), normal(3), normal(3))),
    # PyTorch's upsample is interpolate with a warning.
    Case("upsample", lambda x: F.upsample(x, scale_factor=2), lambda t, x: t.nn.functional.interpolate(x, scale_factor=2),
         (normal(2, 3, 4),)),
    module("nn.Bilinear(4, 2, 5)", (3, 4), (3, 2)),
    module("nn.Bilinear(4, 2, 5, bias=False)", (3, 4), (3, 2)),
    module("nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))", (3, 6)),
    module("nn.Unflatten(1, (2, 3))", (3, 6)),
    # PyTorch's has no gradient of its targets.
    *(module(f"nn.SoftMarginLoss(reduction='{r}')", (3, 6), call=lambda m, x: m(x, (x.detach() - 0.5).sign()))
      for r in ("mean", "sum", "none")),
    module("nn.Dropout2d(0.5)", SHAPES[2], train=False),
    module("nn.Dropout3d(0.5)", SHAPES[3], train=False),
    module("nn.LazyLinear(5)", (3, 4)),
    *(module(f"nn.LazyConv{n}d(2, 3, padding=1)", s) for n, s in SHAPES.items()),
    *(module(f"nn.LazyConvTranspose{n}d(2, 3, stride=2)", s) for n, s in SHAPES.items()),
    *(module(f"nn.LazyBatchNorm{n}d()", s) for n, s in SHAPES.items()),
    *(module(f"nn.LazyInstanceNorm{n}d()", s) for n, s in SHAPES.items()),
]  # fmt: skip

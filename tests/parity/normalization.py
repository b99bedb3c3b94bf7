"""Normalisation: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import Case, ModuleCase, normal, uniform
from tenon import F, nn

SHAPES = {1: (5, 4, 6), 2: (3, 4, 5, 2), 3: (2, 4, 3, 2, 2)}


def module(name: str, x: np.ndarray, *args: Any, train: bool = True, label: str = "", **options: Any) -> ModuleCase:
    return ModuleCase(f"{name}{label}", lambda: getattr(nn, name)(*args, **options),
                      lambda t: getattr(t.nn, name)(*args, **options), (x,), train=train, compiled=not label, batched=(0,))  # fmt: skip


def batch_norms() -> list[ModuleCase]:
    found = []
    for n, shape in SHAPES.items():
        x = normal(*shape) * 2 + 30  # the variance must not cancel
        for kind, options in (("BatchNorm", {}), ("InstanceNorm", {"affine": True, "track_running_stats": True})):
            name = f"{kind}{n}d"
            found += [module(name, x, 4, train=t, label="" if t and n == 2 else f"/train={t}",
                             **{k: v for k, v in options.items() if k != "affine"}) for t in (True, False)]  # fmt: skip
    x = normal(6, 4)
    return [
        *found,
        module("BatchNorm1d", x, 4, label="/rows"),
        module("BatchNorm1d", x, 4, label="/rows, eps", eps=0.1),
        module("BatchNorm1d", x, 4, label="/plain", affine=False),
        module("BatchNorm2d", normal(3, 4, 2, 2), 4, label="/momentum", momentum=0.4),
        module("BatchNorm2d", normal(3, 4, 2, 2), 4, label="/cumulative", momentum=None),
        module("BatchNorm2d", normal(3, 4, 2, 2), 4, label="/untracked", track_running_stats=False, train=False),
        module("InstanceNorm2d", normal(3, 4, 2, 2), 4, label="/plain"),
        module("InstanceNorm1d", normal(4, 5), 4, label="/unbatched"),
    ]


X = normal(3, 6, 4)

CASES: list[Case | ModuleCase] = [
    *batch_norms(),
    Case("batch_norm", lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, False, eps=0.01),
         lambda t, x, m, v, w, b: t.nn.functional.batch_norm(x, m.detach(), v.detach(), w, b, False, eps=0.01),
         (normal(3, 4, 5), normal(4), uniform(0.5, 2, 4), normal(4), normal(4)), grads=False),
    *(Case(f"layer_norm/{s}", lambda x, w, b, s=s: F.layer_norm(x, s, w, b),
           lambda t, x, w, b, s=s: t.nn.functional.layer_norm(x, s, w, b), (X + 9, normal(*s), normal(*s)),
           compiled=len(s) == 1, batched=(0,)) for s in ((4,), (6, 4))),
    Case("rms_norm", lambda x, w: F.rms_norm(x, (4,), w), lambda t, x, w: t.nn.functional.rms_norm(x, (4,), w), (X, normal(4))),
    *(Case(f"group_norm/{g}", lambda x, w, b, g=g: F.group_norm(x, g, w, b),
           lambda t, x, w, b, g=g: t.nn.functional.group_norm(x, g, w, b), (X, normal(6), normal(6))) for g in (1, 2, 6)),
    *(Case(f"local_response_norm/{s}", lambda x, s=s: F.local_response_norm(x, s, 0.3, 0.6, 1.5),
           lambda t, x, s=s: t.nn.functional.local_response_norm(x, s, 0.3, 0.6, 1.5), (normal(2, 6, 3, 3),))
      for s in (1, 2, 5)),
    *(Case(f"normalize/{p}", lambda x, p=p: F.normalize(x, p, 1), lambda t, x, p=p: t.nn.functional.normalize(x, p, 1), (X,))
      for p in (1.0, 2.0, 3.0)),
    Case("cosine_similarity", F.cosine_similarity, lambda t, x, y: t.nn.functional.cosine_similarity(x, y), (X, normal(3, 6, 4))),
    Case("pairwise_distance", F.pairwise_distance, lambda t, x, y: t.nn.functional.pairwise_distance(x, y), (X, normal(3, 6, 4))),
    module("LayerNorm", X, 4), module("LayerNorm", X, (6, 4), label="/two", eps=0.1, bias=False),
    module("LayerNorm", X, 4, label="/plain", elementwise_affine=False),
    module("RMSNorm", X, 4), module("GroupNorm", X, 3, 6), module("GroupNorm", X, 2, 6, label="/plain", affine=False),
    module("LocalResponseNorm", normal(2, 6, 3, 3), 3, label="/3"),
    ModuleCase("CosineSimilarity", lambda: nn.CosineSimilarity(2), lambda t: t.nn.CosineSimilarity(2), (X, normal(3, 6, 4))),
    ModuleCase("PairwiseDistance", nn.PairwiseDistance, lambda t: t.nn.PairwiseDistance(), (X, normal(3, 6, 4))),
]  # fmt: skip

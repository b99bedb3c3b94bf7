"""Losses: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import Case, ModuleCase, distinct, integers, normal, uniform
from tenon import F, nn

X, Y = distinct(3, 4) * 0.7, distinct(3, 4) * 0.71
P, T = uniform(0.02, 0.98, 3, 4), uniform(0, 1, 3, 4)
SIGNS = np.where(normal(3, 4) > 0, 1.0, -1.0)
LOGITS, CLASSES = normal(5, 4), integers(4, 5)
WEIGHT = uniform(0.2, 2, 4)
SOME = np.array([1, -100, 3, -100, 0])
REDUCTIONS = ("mean", "sum", "none")


def each(name: str, *arrays: np.ndarray, **options: Any) -> list[Case]:
    """A loss with its options, and every reduction."""
    text = "".join(f"/{k}={v}" for k, v in options.items() if not isinstance(v, np.ndarray))

    def tensors(t: Any, x: Any) -> dict[str, Any]:
        return {k: t.tensor(v, dtype=x.dtype) if isinstance(v, np.ndarray) else v for k, v in options.items()}

    import tenon as tn

    return [
        Case(f"{name}{text}/{r}", lambda *x, r=r: getattr(F, name)(*x, reduction=r, **tensors(tn, x[0])),
             lambda t, *x, r=r: getattr(t.nn.functional, name)(*x, reduction=r, **tensors(t, x[0])), arrays,
             compiled=r == "mean" and not options, batched=tuple(range(len(arrays))) if arrays[0].ndim > 1 else ())
        for r in REDUCTIONS
    ]  # fmt: skip


def module(name: str, *arrays: np.ndarray, **options: Any) -> ModuleCase:
    return ModuleCase(name, lambda: getattr(nn, name)(**options), lambda t: getattr(t.nn, name)(**options), arrays)


PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)

CASES: list[Case | ModuleCase] = [
    *each("mse_loss", X, Y), *each("l1_loss", X, Y),
    *each("smooth_l1_loss", X, Y), *each("smooth_l1_loss", X, Y, beta=0.4), *each("smooth_l1_loss", X, Y, beta=0.0),
    *each("huber_loss", X, Y), *each("huber_loss", X, Y, delta=0.4),
    *each("cross_entropy", LOGITS, CLASSES), *each("cross_entropy", LOGITS * 1e4, CLASSES, label_smoothing=0.0),
    *each("cross_entropy", LOGITS, CLASSES, weight=WEIGHT), *each("cross_entropy", LOGITS, SOME, label_smoothing=0.2),
    *each("cross_entropy", LOGITS, SOME, weight=WEIGHT, label_smoothing=0.1), *each("cross_entropy", LOGITS, SOME),
    *each("cross_entropy", LOGITS, CLASSES, ignore_index=2),
    *each("cross_entropy", normal(2, 4, 3), integers(4, 2, 3), weight=WEIGHT),
    *each("cross_entropy", normal(4), np.array(2)),
    *each("cross_entropy", LOGITS, PROBABILITIES), *each("cross_entropy", LOGITS, PROBABILITIES, weight=WEIGHT),
    *each("cross_entropy", LOGITS, PROBABILITIES, label_smoothing=0.1),
    *each("cross_entropy", normal(0, 4), integers(4, 0)),
    Case("cross_entropy/all ignored", F.cross_entropy, lambda t, x, y: t.nn.functional.cross_entropy(x, y),
         (LOGITS, np.full(5, -100)), grads=False),
    *each("nll_loss", LOGITS, CLASSES), *each("nll_loss", LOGITS, SOME, weight=WEIGHT),
    *each("nll_loss", normal(2, 4, 3), integers(4, 2, 3), ignore_index=1),
    *each("binary_cross_entropy", P, T), *each("binary_cross_entropy", P, T, weight=WEIGHT),
    Case("binary_cross_entropy/edges", F.binary_cross_entropy, lambda t, x, y: t.nn.functional.binary_cross_entropy(x, y),
         (np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])), grads=False),
    *each("binary_cross_entropy_with_logits", X * 30, T),
    *each("binary_cross_entropy_with_logits", X, T, weight=WEIGHT, pos_weight=WEIGHT[::-1].copy()),
    *each("kl_div", np.log(P), T), *each("kl_div", np.log(P), np.log(T + 0.1), log_target=True),
    Case("kl_div/batchmean", lambda x, y: F.kl_div(x, y, "batchmean"),
         lambda t, x, y: t.nn.functional.kl_div(x, y, reduction="batchmean"), (np.log(P), T)),
    *each("poisson_nll_loss", X, np.abs(Y)), *each("poisson_nll_loss", P, T * 4, log_input=False, full=True),
    *each("gaussian_nll_loss", X, Y, P), *each("gaussian_nll_loss", X, Y, P, full=True),
    *each("hinge_embedding_loss", X, SIGNS), *each("hinge_embedding_loss", X, SIGNS, margin=0.3),
    *each("margin_ranking_loss", X, Y, SIGNS), *each("margin_ranking_loss", X, Y, SIGNS, margin=0.5),
    *(Case(f"soft_margin_loss/{r}", lambda x, r=r: F.soft_margin_loss(x, SIGNS.astype(x.dtype.numpy), r),
           lambda t, x, r=r: t.nn.functional.soft_margin_loss(x, t.tensor(SIGNS, dtype=x.dtype), reduction=r), (X,)) for r in REDUCTIONS),
    *each("multi_margin_loss", LOGITS, CLASSES), *each("multi_margin_loss", LOGITS, CLASSES, p=2, margin=0.4, weight=WEIGHT),
    *each("multilabel_soft_margin_loss", X, T), *each("multilabel_soft_margin_loss", X, T, weight=WEIGHT),
    *each("cosine_embedding_loss", X, Y, SIGNS[:, 0]), *each("cosine_embedding_loss", X, Y, SIGNS[:, 0], margin=0.2),
    *each("triplet_margin_loss", X, Y, normal(3, 4)),
    *each("triplet_margin_loss", X, Y, normal(3, 4), margin=3.0, swap=True, p=3.0),
    *each("triplet_margin_with_distance_loss", X, Y, normal(3, 4)),
    *(module(name, X, Y) for name in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")),
    *(module(name, LOGITS, CLASSES) for name in ("CrossEntropyLoss", "NLLLoss", "MultiMarginLoss")),
    module("HingeEmbeddingLoss", X, SIGNS),
    module("BCELoss", P, T), module("BCEWithLogitsLoss", X, T), module("KLDivLoss", np.log(P), T, reduction="batchmean"),
    module("PoissonNLLLoss", X, T), module("GaussianNLLLoss", X, Y, P), module("MarginRankingLoss", X, Y, SIGNS),
    module("MultiLabelSoftMarginLoss", X, T), module("CosineEmbeddingLoss", X, Y, SIGNS[:, 0]),
    module("TripletMarginLoss", X, Y, normal(3, 4)), module("TripletMarginWithDistanceLoss", X, Y, normal(3, 4)),
]  # fmt: skip

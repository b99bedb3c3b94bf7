"""Embeddings, and modules of activations: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import Case, ModuleCase, distinct, integers, normal
from tenon import F, nn

TABLE, TOKENS = distinct(7, 3), integers(7, 4, 5)
OFFSETS = np.array([0, 3, 3, 7])


def module(name: str, *args: Any, arrays: tuple[np.ndarray, ...] = (distinct(3, 4, 5),), **options: Any) -> ModuleCase:
    text = "".join(f"/{v}" for v in (*args, *options.values()))
    return ModuleCase(f"{name}{text}", lambda: getattr(nn, name)(*args, **options),
                      lambda t: getattr(t.nn, name)(*args, **options), arrays)  # fmt: skip


CASES: list[Case | ModuleCase] = [
    Case("one_hot", lambda x: F.one_hot(x, 7), lambda t, x: t.nn.functional.one_hot(x, 7), (TOKENS,), grads=False),
    *(Case(f"embedding/{p}", lambda i, w, p=p: F.embedding(i, w, p), lambda t, i, w, p=p: t.nn.functional.embedding(i, w, p),
           (TOKENS, TABLE), compiled=p is None, batched=(0,)) for p in (None, 2, -1)),
    *(Case(f"embedding_bag/{m}/{p}", lambda i, w, m=m, p=p: F.embedding_bag(i, w, mode=m, padding_idx=p),
           lambda t, i, w, m=m, p=p: t.nn.functional.embedding_bag(i, w, mode=m, padding_idx=p),
           (np.argsort(normal(4, 7), 1)[:, :5], TABLE)) for m in ("sum", "mean", "max") for p in (None, 2)),
    *(Case(f"embedding_bag/offsets/{m}", lambda i, w, o, m=m: F.embedding_bag(i, w, o, m),
           lambda t, i, w, o, m=m: t.nn.functional.embedding_bag(i, w, o, mode=m),
           (np.array([3, 1, 0, 6, 5, 2, 4, 1, 3]), TABLE, OFFSETS)) for m in ("sum", "mean", "max")),
    Case("embedding_bag/weights", lambda i, w, s: F.embedding_bag(i, w, None, "sum", s),
         lambda t, i, w, s: t.nn.functional.embedding_bag(i, w, mode="sum", per_sample_weights=s), (TOKENS, TABLE, normal(4, 5))),
    module("Embedding", 7, 3, arrays=(TOKENS,)), module("Embedding", 7, 3, padding_idx=-2, arrays=(TOKENS,)),
    module("EmbeddingBag", 7, 3, mode="sum", arrays=(TOKENS,)), module("EmbeddingBag", 7, 3, arrays=(TOKENS,)),
    *(module(name) for name in ("ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Sigmoid",
                                "LogSigmoid", "Tanh", "Tanhshrink", "Softplus", "Softsign", "Hardsigmoid", "Hardswish",
                                "Hardtanh", "Hardshrink", "Softshrink", "PReLU", "Softmax2d", "Identity", "Flatten")),
    module("LeakyReLU", 0.3), module("ELU", 0.4), module("CELU", 0.4), module("GELU", "tanh"), module("Softplus", 2.0, 1.0),
    module("Hardtanh", -0.3, 0.7), module("Hardshrink", 1.0), module("Softshrink", 1.0), module("Threshold", 0.1, -2.0),
    module("GLU", 1), module("Softmax", 1), module("LogSoftmax", -1), module("Softmin", 0), module("PReLU", 4),
    module("Flatten", 0, 1),
    ModuleCase("RReLU", nn.RReLU, lambda t: t.nn.RReLU(), (distinct(3, 4),), train=False),
    *(ModuleCase(name, lambda name=name: getattr(nn, name)(0.4), lambda t, name=name: getattr(t.nn, name)(0.4), (normal(2, 3, 4),),
                 train=False) for name in ("Dropout", "Dropout1d", "AlphaDropout", "FeatureAlphaDropout")),
]  # fmt: skip

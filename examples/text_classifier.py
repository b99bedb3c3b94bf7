"""A Transformer encoder tells from a function's source whether it comes from Python's email or unittest package.

The encoder is built here from its parts: multi-head attention, a position-wise feed-forward net, sines and cosines for
positions.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import math
import re
import time
import tokenize
from collections import Counter
from pathlib import Path

import numpy as np

import tenon as tn
from tenon import F, nn, optim

PACKAGES = ("email", "unittest")
PADDING, UNKNOWN = 0, 1


class MultiHeadAttention(nn.Module):
    """Each token's mean over all tokens, weighed in ``num_heads`` ways: softmax(Q K' / sqrt(d)) V, side by side."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(hidden_size, hidden_size) for _ in range(4))

    def heads(self, x: tn.Tensor) -> tn.Tensor:
        batch, length, hidden = x.shape
        return x.reshape(batch, length, self.num_heads, hidden // self.num_heads).transpose(1, 2)

    def forward(self, query: tn.Tensor, key: tn.Tensor, value: tn.Tensor, mask: tn.Tensor) -> tn.Tensor:
        q, k, v = self.heads(self.query(query)), self.heads(self.key(key)), self.heads(self.value(value))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        weights = F.softmax(scores.masked_fill(~mask, -1e9), dim=-1)
        mixed = (weights @ v).transpose(1, 2)
        return self.out(mixed.reshape(*query.shape))


class PositionWiseFeedForward(nn.Module):
    """Two linear layers with a ReLU between, for each token by itself."""

    def __init__(self, hidden_size: int, inner_size: int):
        super().__init__()
        self.widen, self.narrow = nn.Linear(hidden_size, inner_size), nn.Linear(inner_size, hidden_size)

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        return self.narrow(F.relu(self.widen(x)))


class PositionalEncoding(nn.Module):
    """Adds sines and cosines of a token's position, at wavelengths from 2 pi to 20,000 pi: Vaswani et al. (2017)."""

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        length, hidden = x.shape[1:]
        rates = tn.exp(tn.arange(0, hidden, 2, dtype=tn.f32) * (-math.log(10000.0) / hidden))
        angles = tn.arange(length, dtype=tn.f32).unsqueeze(1) * rates
        return x + tn.stack([angles.sin(), angles.cos()], -1).reshape(length, hidden)


class Transformer(nn.Module):
    """Token ids (N, L) to scores of the classes (N, num_classes), by the mean over the tokens that are not padding.

    All layers share their weights; what goes into a part is added to what comes out of it.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, num_heads: int, num_classes: int):
        super().__init__()
        self.num_layers = num_layers
        self.embedding = nn.Embedding(input_size, hidden_size, padding_idx=PADDING)
        self.pos_encoding = PositionalEncoding()
        self.multihead_attention = MultiHeadAttention(hidden_size, num_heads)
        self.position_wise_feed_forward = PositionWiseFeedForward(hidden_size, 2 * hidden_size)
        self.norm1 = nn.LayerNorm(hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, tokens: tn.Tensor) -> tn.Tensor:
        known = tokens != PADDING
        x = self.dropout(self.pos_encoding(self.embedding(tokens)))
        for _ in range(self.num_layers):
            x = self.norm1(x + self.dropout(self.multihead_attention(x, x, x, known.unsqueeze(1).unsqueeze(1))))
            x = self.norm2(x + self.dropout(self.position_wise_feed_forward(x)))
        counted = known.unsqueeze(-1).to(x.dtype)
        return self.fc((x * counted).sum(1) / counted.sum(1))


# --- the text ------------------------------------------------------------------------------------------------------


def functions(package: str) -> list[str]:
    """The source of every function in a package's modules that is not part of another, as it is written there. What
    two files define alike counts once."""
    folder = Path(importlib.import_module(package).__file__ or "").parent
    found = []
    for path in sorted(folder.rglob("*.py")):
        with tokenize.open(path) as file:
            text = file.read()
        nodes = [ast.parse(text)]
        while nodes:
            node = nodes.pop()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append(ast.get_source_segment(text, node) or "")
            else:
                nodes.extend(n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt))
    return sorted(set(found))


def words(source: str) -> list[str]:
    """Names in their parts, numbers and signs: ``self.get_payload(0)`` is self . get payload ( 0 )."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+|[^\sA-Za-z\d_]", source)


def encode(texts: list[list[str]], vocabulary: dict[str, int], length: int) -> np.ndarray:
    """Token ids (N, length), i64, cut off or filled up with padding."""
    ids = np.full((len(texts), length), PADDING)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = [vocabulary.get(w, UNKNOWN) for w in text[:length]]
    return ids


def draw(found: np.ndarray, expected: np.ndarray, history: dict[str, list[float]], path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("accuracy", "training"), ("val_accuracy", "validation")):
        left.plot(np.arange(1, len(history[name]) + 1), history[name], label=label)
    left.set(xlabel="epoch", ylabel="accuracy")
    left.grid(alpha=0.3)
    left.legend()
    for label, name in enumerate(PACKAGES):
        right.hist(found[expected == label], np.linspace(0, 1, 26), alpha=0.6, label=name)
    right.set(xlabel=f"probability of {PACKAGES[1]}", ylabel="functions", yscale="log")
    right.legend()
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--length", type=int, default=96, help="tokens of a function that are read (%(default)s)")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--count", type=int, help="at most so many functions of a package")
    parser.add_argument("--out", default="text_classifier.png")
    args = parser.parse_args()

    tn.seed(0)
    rng = np.random.default_rng(0)
    sources = [functions(package) for package in PACKAGES]
    sources = [[s[i] for i in rng.permutation(len(s))[: args.count]] for s in sources]
    print(", ".join(f"{len(s)} functions of {name}" for s, name in zip(sources, PACKAGES, strict=True)))
    texts = np.array([words(s) for part in sources for s in part], dtype=object)
    labels = np.repeat(np.arange(len(PACKAGES)), [len(s) for s in sources])
    train, test, y, yt = tn.data.train_test_split(texts, labels, test_size=0.2)

    counts = Counter(w for text in train for w in text)
    vocabulary = {w: i + 2 for i, (w, n) in enumerate(counts.most_common(2000)) if n > 1}
    x, xt = (encode(list(part), vocabulary, args.length) for part in (train, test))
    print(f"{len(x)} to learn from, {len(xt)} held back; {len(vocabulary)} words")

    model = Transformer(len(vocabulary) + 2, args.hidden, num_layers=2, num_heads=4, num_classes=len(PACKAGES))
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    trainer = tn.Trainer(model, optimizer, nn.CrossEntropyLoss(), ["accuracy"])
    start = time.perf_counter()
    weight = dict(enumerate(len(y) / len(PACKAGES) / np.bincount(y)))
    history = trainer.fit(x, y, args.epochs, batch_size=32, validation_data=(xt, yt), class_weight=weight, verbose=2)
    print(f"trained in {time.perf_counter() - start:.1f} s, compilation included")

    scores = trainer.predict(xt)
    found = 1 / (1 + np.exp(scores[:, 0] - scores[:, 1]))
    right = (found > 0.5) == yt
    print(f"always {PACKAGES[np.bincount(y).argmax()]} would be right in {np.bincount(yt).max() / len(yt):.4f}")
    for label, name in enumerate(PACKAGES):
        print(f"{name}: {right[yt == label].mean():.4f} recognised")
    print(f"validation accuracy {right.mean():.4f}")
    draw(found, yt, history.history, args.out)


if __name__ == "__main__":
    main()

"""A small GPT learns the text of Python's own standard library, character by character, and writes some.

With --compare PyTorch trains the same model beside it, from the same initial weights on the same batches. After
training, 256 characters are written with the cache and without it, which must agree.
"""

from __future__ import annotations

import argparse
import math
import string
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tenon as tn
from tenon import F, models, optim

LETTERS = "".join(sorted(set(string.printable) - set("\r\t\x0b\x0c")))
CONTEXT = 320


def library(kilobytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Characters of the library's modules by number, for training and, from other modules, for validation. The order of
    the files is shuffled, the same on every machine with the same Python."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    np.random.default_rng(0).shuffle(files)  # type: ignore[arg-type]
    known = {c: i for i, c in enumerate(LETTERS)}
    texts = (path.read_text(encoding="utf-8", errors="ignore") for path in files)
    numbers = np.array([known[c] for text in texts for c in text if c in known])[: kilobytes * 1000]
    cut = len(numbers) * 9 // 10
    return numbers[:cut], numbers[cut:]


def batches(text: np.ndarray, size: int, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """``count`` times pieces of the text (size, CONTEXT), and the same one character on."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        starts = rng.integers(0, len(text) - CONTEXT - 1, size)
        pieces = text[starts[:, None] + np.arange(CONTEXT + 1)]
        yield pieces[:, :-1], pieces[:, 1:]


def rate(step: int, steps: int, peak: float) -> float:
    """The learning rate: rising for a twentieth of the steps, then falling along half a cosine."""
    start = steps / 20
    return peak * min((step + 1) / start, 0.5 + 0.5 * math.cos(math.pi * max(step - start, 0) / (steps - start)))


def loss_of(logits: tn.Tensor, targets: tn.Tensor) -> tn.Tensor:
    return F.cross_entropy(logits.reshape(-1, len(LETTERS)), targets.reshape(-1))


def train(model: models.GPT, train_text: np.ndarray, test_text: np.ndarray, args: argparse.Namespace) -> float:
    """Train, and return the loss on the validation text."""
    optimizer = optim.AdamW(model.parameters(), lr=args.lr)
    pieces = tn.spec("B", CONTEXT, dtype="i64")
    step = tn.train_step(model, loss_of, optimizer, specs=[pieces, pieces])
    start = time.perf_counter()
    for i, (x, y) in enumerate(batches(train_text, args.batch_size, args.steps, seed=1)):
        optimizer.lr = rate(i, args.steps, args.lr)
        loss = step(x, y)
        if i == 0:
            print(f"ready after {time.perf_counter() - start:.1f} s")
        if (i + 1) % 50 == 0:
            print(f"step {i + 1}: loss {loss:.3f}, {time.perf_counter() - start:.0f} s")
    evaluate = tn.compile(lambda x, y: loss_of(model.eval()(x), y), pieces, pieces)
    return float(np.mean([evaluate(x, y) for x, y in batches(test_text, 16, args.checks, seed=2)]))


# --- the same in PyTorch -------------------------------------------------------------------------------------


def train_in_pytorch(
    weights: dict[str, np.ndarray], train_text: np.ndarray, test_text: np.ndarray, args: argparse.Namespace
) -> float:
    """What :func:`train` does, from ``weights``."""
    import torch
    import torch.nn.functional as functional

    w = {k: torch.from_numpy(v).requires_grad_() for k, v in weights.items() if k != "lm_head.weight"}

    def loss_on(x: np.ndarray, y: np.ndarray) -> Any:
        logits = gpt_in_pytorch(w, torch.from_numpy(x), args.heads, args.layers)
        return functional.cross_entropy(logits.reshape(-1, len(LETTERS)), torch.from_numpy(y).reshape(-1))

    optimizer = torch.optim.AdamW(w.values(), lr=args.lr)
    for i, (x, y) in enumerate(batches(train_text, args.batch_size, args.steps, seed=1)):
        optimizer.param_groups[0]["lr"] = rate(i, args.steps, args.lr)
        optimizer.zero_grad()
        loss_on(x, y).backward()
        optimizer.step()
    with torch.no_grad():
        return float(np.mean([loss_on(x, y) for x, y in batches(test_text, 16, args.checks, seed=2)]))


def gpt_in_pytorch(w: dict[str, Any], tokens: Any, heads: int, layers: int) -> Any:
    """The logits of a GPT with the weights ``w``."""
    import torch.nn.functional as functional

    def normalised(x: Any, name: str) -> Any:
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][: tokens.shape[1]]
    for name in (f"transformer.h.{i}" for i in range(layers)):
        parts = linear(normalised(x, f"{name}.ln_1"), f"{name}.attn.c_attn")
        q, k, v = parts.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(mixed, f"{name}.attn.c_proj")
        inner = functional.gelu(linear(normalised(x, f"{name}.ln_2"), f"{name}.mlp.c_fc"), approximate="tanh")
        x = x + linear(inner, f"{name}.mlp.c_proj")
    return normalised(x, "transformer.ln_f") @ w["transformer.wte.weight"].T


# --- writing -------------------------------------------------------------------------------------------------


def numbers_of(text: str) -> list[int]:
    return [LETTERS.index(c) for c in text]


def write(model: models.GPT, prompt: str, seed: int) -> None:
    """Print a text as it is being written."""
    print(f"--- a sample\n{prompt}", end="")
    count = CONTEXT - len(prompt)
    for number in tn.generate(model, numbers_of(prompt), count, temperature=0.7, top_k=20, seed=seed, stream=True):
        print(LETTERS[number], end="", flush=True)
    print("\n---")


def check(model: models.GPT, prompt: str) -> None:
    """Write 256 characters with the cache and without it."""
    start = time.perf_counter()
    with_cache = tn.generate(model, numbers_of(prompt), 256)
    seconds = time.perf_counter() - start
    same = (with_cache == tn.generate(model, numbers_of(prompt), 256, use_cache=False)).sum()
    print(f"256 characters in {seconds:.2f} s, compilation included; {same} are those written without the cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="training steps (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="pieces of text a step (%(default)s)")
    parser.add_argument("--width", type=int, default=128, help="features (%(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--heads", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="AdamW's greatest learning rate (%(default)s)")
    parser.add_argument("--kilobytes", type=int, default=2000, help="of text, a tenth for validation (%(default)s)")
    parser.add_argument("--checks", type=int, default=10, help="batches of validation (%(default)s)")
    parser.add_argument("--prompt", default="    def ", help="what the sample begins with (%(default)r)")
    parser.add_argument("--compare", action="store_true", help="train the same model in PyTorch, too")
    args = parser.parse_args()

    train_text, test_text = library(args.kilobytes)
    print(f"{len(train_text)} characters for training, {len(test_text)} of other modules for validation")
    tn.seed(0)
    model = models.GPT(
        models.GPTConfig(
            vocab_size=len(LETTERS),
            n_positions=CONTEXT,
            n_embd=args.width,
            n_layer=args.layers,
            n_head=args.heads,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        )  # fmt: skip
    )
    weights = model.state_dict()
    loss = train(model, train_text, test_text, args)
    print(f"validation loss {loss:.4f}")
    if args.compare:
        theirs = train_in_pytorch(weights, train_text, test_text, args)
        print(f"PyTorch's validation loss {theirs:.4f}: ours is {100 * (loss / theirs - 1):+.2f}%")
    check(model, args.prompt)
    write(model, args.prompt, seed=0)


if __name__ == "__main__":
    main()

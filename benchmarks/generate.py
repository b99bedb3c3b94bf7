"""Text written token by token: Tenon beside PyTorch with a static cache, the same weights and prompt, greedy.

    python -m benchmarks.generate

The model has the size of examples/char_gpt.py. Each engine runs in a process of its own; the texts are compared before
anything is timed. PyTorch's cache has room for all tokens from the start and is written in place; its masked attention
looks at what is there.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.paired import Worker, compare, serve, table

ENGINES = ("tenon", "torch")
WIDTH, LAYERS, HEADS, CONTEXT, VOCABULARY = 128, 4, 4, 320, 96
PROMPT, TOKENS = 16, 256


def model() -> Any:
    """A GPT with weights so large that each token matters."""
    import tenon as tn

    tn.seed(0)
    config = tn.models.GPTConfig(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, initializer_range=0.2
    )
    return tn.models.GPT(config).eval()


def prompts(batch: int) -> np.ndarray:
    """Token ids (batch, PROMPT)."""
    return np.random.default_rng(1).integers(0, VOCABULARY, (batch, PROMPT))


def tenon_writer(batch: int) -> Callable[[], np.ndarray]:
    import tenon as tn

    gpt, given = model(), prompts(batch)
    return lambda: np.stack(tn.generate(gpt, given, TOKENS))


def torch_writer(batch: int) -> Callable[[], np.ndarray]:
    import torch
    import torch.nn.functional as functional

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    w = {k: torch.from_numpy(v) for k, v in model().state_dict().items()}
    names = [f"transformer.h.{i}" for i in range(LAYERS)]
    cache = {n: torch.zeros(2, batch, HEADS, CONTEXT, WIDTH // HEADS) for n in names}
    places = torch.arange(CONTEXT)
    given = torch.from_numpy(prompts(batch))

    def normalised(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        flat = torch.addmm(w[f"{name}.bias"], x.reshape(-1, x.shape[-1]), w[f"{name}.weight"])
        return flat.view(*x.shape[:-1], -1)

    def logits(tokens: torch.Tensor, first: int) -> torch.Tensor:
        here = places[first : first + tokens.shape[1]]
        seen = places[: first + tokens.shape[1]] <= here[:, None]
        x = w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][here]
        for name in names:
            parts = linear(normalised(x, f"{name}.ln_1"), f"{name}.attn.c_attn")
            q, *new = parts.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            for kept, values in zip(cache[name], new, strict=True):
                kept[:, :, first : first + tokens.shape[1]] = values
            k, v = cache[name][:, :, :, : first + tokens.shape[1]]
            mixed = functional.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(2)
            x = x + linear(mixed, f"{name}.attn.c_proj")
            inner = functional.gelu(linear(normalised(x, f"{name}.ln_2"), f"{name}.mlp.c_fc"), approximate="tanh")
            x = x + linear(inner, f"{name}.mlp.c_proj")
        return normalised(x[:, -1], "transformer.ln_f") @ w["transformer.wte.weight"].T

    def write() -> np.ndarray:
        with torch.inference_mode():
            found = [logits(given, 0).argmax(-1, keepdim=True)]
            for i in range(TOKENS - 1):
                found.append(logits(found[-1], PROMPT + i).argmax(-1, keepdim=True))
        return torch.cat(found, 1).numpy()

    return write


def worker(engine: str, batch: int) -> None:
    write = {"tenon": tenon_writer, "torch": torch_writer}[engine](batch)
    serve(write, {str(i): int(token) for i, token in enumerate(write().ravel())})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.batch)
        return
    names = [n for n in ENGINES if importlib.util.find_spec(n) is not None]
    workers = [Worker.start("benchmarks.generate", n, args.threads, ["--batch", str(args.batch)]) for n in names]
    for w in workers[1:]:
        same = statistics.mean(w.first[i] == token for i, token in workers[0].first.items())
        print(f"{w.name}: {100 * same:.0f}% of the tokens are the same")
    found = compare(workers, args.rounds, seconds=1)
    for w in workers:
        w.stop()
    print(f"{TOKENS} tokens, batch {args.batch}, {args.threads} threads, {platform.machine()}\n")
    print(table(found, workers[0].name))
    for name, times in found.items():
        print(f"{name}: {args.batch * TOKENS / statistics.median(times):.0f} tokens a second")


if __name__ == "__main__":
    main()

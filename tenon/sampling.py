"""How the next token is chosen, inside the program that computes its logits."""

from __future__ import annotations

import math
import operator

import numpy as np

from engine import dtypes
from engine.errors import TenonError
from engine.graph import apply
from engine.records import dataclass
from frontend import creation, random
from frontend import functional as F
from frontend.dispatch import call
from frontend.nn import Buffer, Module
from frontend.tensor import Tensor


@dataclass(frozen=True)
class Choice:
    """What :func:`generate` was asked: ``temperature`` 0 takes the likeliest token; else one is drawn with
    probabilities softmax(logits / temperature), of the ``top_k`` likeliest only, and of those that begin before their
    sum reaches ``top_p``."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise TenonError(f"generate: temperature must be a number of at least 0, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise TenonError(f"generate: top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise TenonError(f"generate: top_p must lie above 0 and at most at 1, not {self.top_p}")
        if self.seed is not None and not 0 <= operator.index(self.seed) < 2**63:
            raise TenonError(f"generate: a seed lies between 0 and 2**63 - 1, not {self.seed}")

    @property
    def kind(self) -> str:
        """Which program serves it: there is one each for the likeliest token, for draws, and for draws from a few."""
        if self.temperature == 0:
            return "greedy"
        return "drawn" if self.top_k is None and self.top_p in (None, 1) else "filtered"


class Sampler(Module):
    """The numbers of a :class:`Choice` as state of the programs that choose, so that all of them share one program.

    A draw depends on the seed, on how many tokens were chosen before, on the row and on the token, and on nothing else:
    with a cache and without, at every optimisation level, the same text comes out.
    """

    temperature: Buffer
    top_p: Buffer
    top_k: Buffer
    seed: Buffer
    count: Buffer

    def __init__(self) -> None:
        super().__init__()
        for name, start in (
            ("temperature", np.float32(1)), ("top_p", np.float32(1)), ("top_k", 0), ("seed", 0), ("count", 0),
        ):  # fmt: skip
            self.register_buffer(name, np.asarray(start), persistent=False)

    def start(self, choice: Choice) -> None:
        """Begin a text."""
        seed = choice.seed
        self.seed.data = np.asarray(random.default.generator.integers(2**63) if seed is None else seed)
        self.count.data = np.zeros((), np.int64)
        self.temperature.data = np.float32(choice.temperature)
        self.top_k.data = np.asarray(np.iinfo(np.int64).max if choice.top_k is None else choice.top_k)
        self.top_p.data = np.float32(1 if choice.top_p is None else choice.top_p)

    def choose(self, logits: Tensor, kind: str) -> Tensor:
        """A token for each row of ``logits`` (batch, vocab_size): (batch,), i64."""
        if kind != "greedy":
            logits = logits.to(dtypes.f32) / self.temperature
            logits = self._filtered(logits) if kind == "filtered" else logits
            # The greatest of logits with Gumbel noise is a draw from their softmax: Maddison et al. (2014), "A*
            # sampling".
            draw = Tensor.of(apply("random_uniform", self.seed.value(), self.count.value(), stream=0,
                                   shape=logits.value().shape, dtype=dtypes.f32))  # fmt: skip
            logits = logits - call("log", -call("log", draw))
        self.count.assign(self.count + 1)
        return logits.argmax(-1)

    def _filtered(self, logits: Tensor) -> Tensor:
        """Logits with -inf where ``top_k`` and ``top_p`` rule a token out."""
        ranked = logits.sort(-1, descending=True).values
        rank = creation.arange(ranked.shape[-1])
        ranked = call("where", rank < self.top_k, ranked, -math.inf)
        likely = F.softmax(ranked, -1)
        before = likely.cumsum(-1) - likely
        kept = (before < self.top_p) & (ranked > -math.inf)
        least = call("where", kept, ranked, math.inf).amin(-1, True)
        return call("where", logits >= least, logits, -math.inf)

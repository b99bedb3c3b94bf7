"""`tn.beam_search`: the likeliest outputs of an encoder-decoder, several followed at once."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from engine import dims
from engine.errors import IndexRangeError, ShapeError, TenonError, TraceError
from frontend import creation, ordering
from frontend import functional as F
from frontend.dispatch import call
from frontend.gathering import index_select, take_along_dim
from frontend.nest import flatten, unflatten
from frontend.tensor import Tensor
from tenon.compiling import compile
from tenon.executable import Executable
from tenon.generation import kept_for
from tenon.modes import mode
from tenon.specs import TensorSpec, spec


class Hypothesis(NamedTuple):
    """An output without its start and stop (length,), i64, and the sum of its tokens' log probabilities, divided by
    their number to the power ``length_penalty``."""

    tokens: np.ndarray
    score: float


class Search:
    """Two programs of an encoder-decoder: the encoder, and a step that follows ``beams`` outputs of each source."""

    def __init__(self, model: Any, rank: int, dtype: np.dtype, beams: int, stop: int, target: str):
        self.target = target

        def encode(source: Tensor) -> list[Tensor]:
            with mode(model, training=False):
                memory = model.encode(source)
            leaves, self.rebuild = flatten(memory, lambda x: isinstance(x, Tensor), _no_tensor)
            return leaves

        names = (f"S{i}" for i in range(1, rank))
        self.encode = compile(encode, spec("N", *names, dtype=dtype), target=target)
        self.step = self._step(model, beams, stop)

    def _step(self, model: Any, beams: int, stop: int) -> Executable:
        memory_types = [v.type for v in self.encode.graph.outputs]
        for t in memory_types:
            if not t.shape or t.shape[0] != dims.parse("N"):
                shape = dims.shape_text(t.shape)
                raise ShapeError(
                    f"beam_search: encode gave a tensor of shape {shape}; its first axis must be the source's"
                )
        rows = dims.parse(f"{beams}*N")
        specs = [TensorSpec((rows, *t.shape[1:]), t.dtype) for t in memory_types]

        def step(tokens: Tensor, scores: Tensor, place: Tensor, *memory: Tensor) -> tuple[Tensor, Tensor]:
            count, _, length = tokens.shape
            with mode(model, training=False):
                logits = model.decode(tokens.reshape(count * beams, length), unflatten(self.rebuild, memory))
            likely = F.log_softmax(index_select(logits, 1, place), -1).float()
            vocabulary = likely.shape[-1]
            # An output that has ended goes on with its stop, for nothing.
            ended = index_select(tokens, 2, place) == stop
            nothing = call("where", creation.arange(vocabulary) == stop, 0.0, -np.inf).float()
            likely = call("where", ended, nothing, likely.reshape(count, beams, vocabulary))
            sums = (scores.unsqueeze(-1) + likely).reshape(count, beams * vocabulary)
            best, where = ordering.topk(sums, beams)
            parents = take_along_dim(tokens, (where // vocabulary).unsqueeze(-1), 1)
            new = creation.arange(length) == place + 1
            return call("where", new, (where % vocabulary).unsqueeze(-1), parents), best

        chosen = spec("N", beams, "C", dtype="i64"), spec("N", beams), spec(dtype="i64")
        return compile(step, *chosen, *specs, target=self.target)

    def run(self, source: np.ndarray, start: int, stop: int, beams: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (N, beams, up to count + 1), the start first, and the sums of their log probabilities."""
        memory = [np.repeat(m, beams, 0) for m in self.encode(source)]
        tokens = np.full((len(source), beams, count + 1), stop)
        tokens[:, :, 0] = start
        scores = np.full((len(source), beams), -np.inf, np.float32)
        scores[:, 0] = 0  # all start alike: only one of them may go on
        for place in range(count):
            tokens, scores = self.step(tokens, scores, place, *memory)
            if (tokens[:, :, place + 1] == stop).all():
                break
        return tokens, scores


def _no_tensor(found: object, where: str) -> TraceError:
    return TraceError(f"encode returned {type(found).__name__} {found!r:.60}{where}; Tensors in nests were expected")


def beam_search(
    model: Any,
    source: np.ndarray,
    max_new_tokens: int,
    *,
    start: int,
    stop: int,
    beams: int = 4,
    length_penalty: float = 1.0,
    target: str = "cpu",
) -> list[list[Hypothesis]]:
    """For each row of ``source`` the ``beams`` best outputs of an encoder-decoder that the search has found, best
    first.

    Each output begins with the token ``start``, which the decoder reads first, and ends with ``stop``, or after
    ``max_new_tokens``. At every place the ``beams`` likeliest continuations of all outputs of a row go on. A
    ``length_penalty`` of 0 compares sums of log probabilities, 1 their means over the tokens.

    ``model.encode(source)`` gives Tensors, alone or in a nest, whose first axis is that of ``source`` (batch, ...), and
    runs once. ``model.decode(tokens, memory)`` gives logits (rows, length, vocab_size) for tokens (rows, length), i64;
    the logits at a place may depend on tokens up to there only. It always reads the full length, so that no step of the
    search needs another program. Programs are kept as long as the model is. ``target`` is as in ``tn.compile``.

    Raises TenonError for options out of range or more tokens than ``model.max_length``, ShapeError for a source without
    rows, IndexRangeError for a token outside the vocabulary.
    """
    source = np.asarray(source)
    beams, count = operator.index(beams), operator.index(max_new_tokens)
    if source.ndim < 2 or not len(source):
        raise ShapeError(f"beam_search: the source has shape {source.shape}; (batch, ...) was expected")
    for name, number in (("beams", beams), ("max_new_tokens", count)):
        if number < 1:
            raise TenonError(f"beam_search: {name} must be at least 1, not {number}")
    for part in ("encode", "decode"):
        if not hasattr(model, part):
            raise TenonError(f"beam_search: {type(model).__name__} has no method {part} (see docs/generation.md)")
    limit = getattr(model, "max_length", None)
    if limit is not None and count + 1 > limit:
        raise TenonError(
            f"beam_search: the start and {count} new tokens are {count + 1}; the model knows {limit} positions"
        )
    vocabulary = getattr(model, "vocab_size", None)
    for name, token in (("start", start), ("stop", stop)):
        if token < 0 or vocabulary is not None and token >= vocabulary:
            raise IndexRangeError(f"beam_search: {name} is {token}, which is no token of a vocabulary of {vocabulary}")
    kept = kept_for(model)
    key = ("beam search", source.ndim, source.dtype, beams, stop, target)
    if key not in kept:
        kept[key] = Search(model, source.ndim, source.dtype, beams, stop, target)
    tokens, scores = kept[key].run(source, start, stop, beams, count)
    return [_ranked(t, s, stop, length_penalty) for t, s in zip(tokens, scores, strict=True)]


def _ranked(tokens: np.ndarray, sums: np.ndarray, stop: int, length_penalty: float) -> list[Hypothesis]:
    """One row's outputs, best first; beams that nothing was left for are not among them."""
    found = []
    for row, total in zip(tokens[:, 1:], sums, strict=True):
        length = int((row == stop).argmax()) if (row == stop).any() else len(row)
        if np.isfinite(total):
            found.append(Hypothesis(row[:length], float(total) / min(length + 1, len(row)) ** length_penalty))
    return sorted(found, key=lambda h: -h.score)

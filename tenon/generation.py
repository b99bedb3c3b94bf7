"""``tn.generate``: a text written on, token by token.

Reading the prompt and each token after it are two compiled programs that share the model's weights and its cache.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from engine.errors import DTypeError, IndexRangeError, ShapeError, TenonError
from frontend.nn import Buffer, Module
from frontend.nn.cache import Cache
from frontend.nn.module import state_cells
from frontend.tensor import Tensor
from tenon.compiling import compile
from tenon.executable import Executable
from tenon.modes import mode
from tenon.sampling import Choice, Sampler
from tenon.specs import spec
from tenon.text_format import plural


class Generator:
    """The programs that write ``batch`` texts of up to ``capacity`` tokens, with their cache; without ``capacity``
    there is no cache, and every token reads the whole text again. A program is compiled when it is first needed.

    The model is handed in at each call and not kept, so that what it holds may be freed.
    """

    def __init__(self, model: Any, batch: int, capacity: int | None, target: str = "cpu"):
        self.target = target
        self.cache: Cache | None = None if capacity is None else model.make_cache(batch, capacity)
        self.sampler = Sampler()
        self.token = Buffer(np.zeros((batch, 1), np.int64))
        self.programs: dict[str, Executable] = {}

    def tokens(self, model: Any, prompts: np.ndarray, padding: np.ndarray, choice: Choice) -> Iterator[np.ndarray]:
        """The tokens (batch,) that follow ``prompts`` (batch, length), one after the other, without end."""
        self.sampler.start(choice)
        kind = choice.kind
        if self.cache is None:
            program = self._program(f"whole text, {kind}", lambda: self._whole(model, kind))
            text = prompts
            while True:
                chosen = program(text)
                yield chosen
                text = np.concatenate([text, chosen[:, None]], 1)
        prefill = self._program(f"prefill, {kind}", lambda: self._prefill(model, kind))
        step = self._program(f"step, {kind}", lambda: self._step(model, kind))
        yield prefill(prompts, padding)
        while True:
            yield step()

    def _program(self, name: str, make: Callable[[], Executable]) -> Executable:
        if name not in self.programs:
            self.programs[name] = make()
        return self.programs[name]

    def _prefill(self, model: Any, kind: str) -> Executable:
        cache: Any = self.cache

        def prefill(tokens: Tensor, padding: Tensor) -> Tensor:
            cache.start(padding)
            return self._next(model, tokens, kind)

        batch = self.token.shape[0]
        return compile(prefill, spec(batch, "T", dtype="i64"), spec(batch, dtype="i64"), target=self.target)

    def _step(self, model: Any, kind: str) -> Executable:
        def step() -> Tensor:
            return self._next(model, self.token, kind)

        return compile(step, target=self.target)

    def _next(self, model: Any, tokens: Tensor, kind: str) -> Tensor:
        """Read ``tokens``, choose what follows, and keep it for the next step."""
        cache: Any = self.cache
        with mode(model, training=False):
            logits = model(tokens, cache)
        cache.advance(tokens.shape[1])
        chosen = self.sampler.choose(logits[:, -1], kind)
        self.token.assign(chosen.unsqueeze(1))
        return chosen

    def _whole(self, model: Any, kind: str) -> Executable:
        def whole(tokens: Tensor) -> Tensor:
            with mode(model, training=False):
                return self.sampler.choose(model(tokens)[:, -1], kind)

        return compile(whole, spec(self.token.shape[0], "T", dtype="i64"), target=self.target)


_kept: weakref.WeakKeyDictionary[Module, dict[Any, dict[Any, Any]]] = weakref.WeakKeyDictionary()


def kept_for(model: Any) -> dict[Any, Any]:
    """What was compiled for the model with its present parameters and buffers; it lives as long as the model."""
    return _kept.setdefault(model, {}).setdefault(tuple(state_cells(model).values()), {})


def generate(
    model: Any,
    prompt: Sequence[int] | Sequence[Sequence[int]] | np.ndarray,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | Iterable[int] = (),
    seed: int | None = None,
    capacity: int | None = None,
    use_cache: bool = True,
    stream: bool = False,
    target: str = "cpu",
) -> Any:
    """The tokens that ``model`` writes behind ``prompt``: for token ids (length,) an array i64 of up to
    ``max_new_tokens``, which ends with the first of ``stop``; for several prompts, of any lengths, a list of arrays.
    ``stream`` gives an iterator instead: over ints, or for several prompts over arrays (batch,) with -1 where a text
    has ended.

    ``temperature`` 0 takes the likeliest token each time. Else it is drawn with probabilities softmax(logits /
    temperature), of the ``top_k`` likeliest, and of these only those that begin before the sum of the likelier ones
    reaches ``top_p`` (Holtzman et al., 2020, "The curious case of neural text degeneration"). The draws follow from
    ``seed``; without one, from ``tn.seed``.

    ``model(tokens, cache)`` gives logits (batch, T, vocab_size), of which the last count, and ``model.make_cache(batch,
    capacity)`` makes an ``nn.Cache``: ``models.GPT`` has both, and so may yours. ``capacity`` is how many tokens the
    cache holds, prompt included: ``model.max_length`` unless given. Without ``use_cache``, ``model(tokens)`` reads all
    of the text for every token. The programs are kept as long as the model is. ``target`` is as in ``tn.compile``; on a
    GPU the cache stays there, and a token is one launch.

    Raises, before anything runs: TenonError where prompt and new tokens are more than the capacity, or an option is out
    of range; IndexRangeError for an id that is not in ``model.vocab_size``; DTypeError and ShapeError for what are no
    ids.
    """
    prompts, single = _prompts(prompt)
    _check_ids(prompts, getattr(model, "vocab_size", None))
    choice = Choice(temperature, top_k, top_p, seed)
    count = operator.index(max_new_tokens)
    if count < 1:
        raise TenonError(f"generate: max_new_tokens must be at least 1, not {count}")
    length = max(map(len, prompts))
    limit = _capacity(model, capacity)
    if limit is not None and length + count > limit:
        what = "the cache holds" if use_cache else "the model knows positions for"
        raise TenonError(
            f"generate: a prompt of {plural(length, 'token')} and {count} new ones are {length + count}; {what} {limit}"
        )
    if use_cache and not hasattr(model, "make_cache"):
        raise TenonError(
            f"generate: {type(model).__name__} has no make_cache(batch, capacity): give it one (docs/generation.md), "
            "or pass use_cache=False"
        )
    if use_cache and limit is None:
        raise TenonError(f"generate: {type(model).__name__} has no max_length, so capacity= is needed")
    if not use_cache and any(len(p) != length for p in prompts):
        raise TenonError("generate: without a cache all prompts must have the same length")
    stops = frozenset((stop,) if isinstance(stop, (int, np.integer)) else map(operator.index, stop))
    tokens = _tokens(model, prompts, count, choice, stops, limit if use_cache else None, target)
    found = (int(t[0]) for t in tokens) if single else tokens
    return found if stream else _collected(found, len(prompts), single)


def _prompts(prompt: Any) -> tuple[list[np.ndarray], bool]:
    """The prompts as arrays, and whether there was only one, outside of any list."""
    if isinstance(prompt, str):
        raise DTypeError("generate: the prompt is text; token ids were expected, as a tokenizer makes them")
    given = list(prompt)
    single = not given or np.ndim(given[0]) == 0
    prompts = [np.asarray(p) for p in ([given] if single else given)]
    for i, array in enumerate(prompts):
        which = "the prompt" if single else f"prompt {i}"
        if array.ndim != 1 or not array.size:
            raise ShapeError(
                f"generate: {which} has shape {array.shape}; at least one token id, (length,), was expected"
            )
        if array.dtype.kind not in "iu":
            raise DTypeError(f"generate: {which} holds {array.dtype}; whole numbers, token ids, were expected")
    return [p.astype(np.int64) for p in prompts], single


def _check_ids(prompts: list[np.ndarray], vocab_size: int | None) -> None:
    for i, array in enumerate(prompts):
        wrong = np.flatnonzero((array < 0) | (array >= (np.inf if vocab_size is None else vocab_size)))
        if wrong.size:
            raise IndexRangeError(
                f"generate: token {array[wrong[0]]} (prompt {i}, place {wrong[0]}) is not in the vocabulary of "
                f"{vocab_size} tokens"
            )


def _capacity(model: Any, capacity: int | None) -> int | None:
    most = getattr(model, "max_length", None)
    if capacity is not None and most is not None and capacity > most:
        raise TenonError(f"generate: capacity is {capacity}; {type(model).__name__} knows {most} positions")
    return most if capacity is None else capacity


def _tokens(
    model: Any,
    prompts: list[np.ndarray],
    count: int,
    choice: Choice,
    stops: frozenset[int],
    capacity: int | None,
    target: str,
) -> Iterator[np.ndarray]:
    """Up to ``count`` times a token for each prompt, -1 where a text has ended."""
    length = max(map(len, prompts))
    padding = np.array([length - len(p) for p in prompts])
    padded = np.stack([np.concatenate([np.zeros(n, np.int64), p]) for n, p in zip(padding, prompts, strict=True)])
    free = kept_for(model).setdefault((len(prompts), capacity, target), [])  # those that write no text now
    generator = free.pop() if free else Generator(model, len(prompts), capacity, target)
    try:
        ended = np.zeros(len(prompts), bool)
        for number, chosen in enumerate(generator.tokens(model, padded, padding, choice), 1):
            yield np.where(ended, -1, chosen) if ended.any() else chosen
            if stops:
                ended |= [int(t) in stops for t in chosen]
            if number == count or ended.all():
                return
    finally:
        free.append(generator)


def _collected(tokens: Iterable[Any], batch: int, single: bool) -> Any:
    found = np.array(list(tokens), np.int64)
    return found if single else [row[row >= 0] for row in found.reshape(-1, batch).T]

"""tn.generate: with and without its cache, alone and in batches, drawn and not, for GPT and for models of one's own."""

from __future__ import annotations

import gc
import weakref
from functools import cache

import numpy as np
import pytest

import tenon as tn
from tenon import F, generation, models, nn
from tenon.sampling import Choice, Sampler

PROMPT = [3, 1, 4]


@cache
def gpt() -> models.GPT:
    """Weights that are large enough for each token to matter, and no ties."""
    tn.seed(0)
    sizes = dict(vocab_size=23, n_positions=32, n_embd=16, n_layer=2, n_head=2, n_inner=20, initializer_range=0.5)
    return models.GPT(models.GPTConfig(**sizes))


def programs(model: nn.Module) -> list[tn.Executable]:
    return [p for kept in generation.kept_for(model).values() for g in kept for p in g.programs.values()]


@pytest.mark.slow
def test_the_cache_changes_nothing():
    model = gpt()
    found = tn.generate(model, PROMPT, 29)
    assert found.shape == (29,) and found.dtype == np.int64 and len(set(found.tolist())) > 5
    np.testing.assert_array_equal(found, tn.generate(model, PROMPT, 29, use_cache=False))
    counts = [(p.compile_count, p.counters["bindings"]) for p in programs(model) if p.name == "step"]
    assert counts == [(1, 1)]  # one program and one binding for every length of the text
    np.testing.assert_array_equal(tn.generate(model, [*PROMPT, *found[:4]], 25), found[4:])
    assert len(programs(model)) == 3


@pytest.mark.slow
def test_shorter_prompts_of_a_batch_are_padded():
    model = gpt()
    prompts = [PROMPT, [2], [7, 1, 8, 2, 8]]
    together = tn.generate(model, prompts, 8)
    for prompt, found in zip(prompts, together, strict=True):
        np.testing.assert_array_equal(found, tn.generate(model, prompt, 8))
    stop = int(together[1][2])
    ended = tn.generate(model, prompts, 8, stop=stop)
    assert ended[1].tolist() == together[1][: together[1].tolist().index(stop) + 1].tolist()
    streamed = np.array(list(tn.generate(model, prompts, 8, stop=[stop], stream=True)))
    assert [row[row >= 0].tolist() for row in streamed.T] == [e.tolist() for e in ended]


@pytest.mark.slow
def test_draws_follow_from_the_seed_alone():
    model = gpt()
    options = dict(temperature=1.5, top_k=6, top_p=0.9)
    a = tn.generate(model, PROMPT, 20, **options, seed=3)
    np.testing.assert_array_equal(a, tn.generate(model, PROMPT, 20, **options, seed=3))
    np.testing.assert_array_equal(a, tn.generate(model, PROMPT, 20, **options, seed=3, use_cache=False))
    assert (a != tn.generate(model, PROMPT, 20, **options, seed=4)).any()
    tn.seed(5)
    b, c = (tn.generate(model, PROMPT, 20, **options) for _ in range(2))
    tn.seed(5)
    np.testing.assert_array_equal(b, tn.generate(model, PROMPT, 20, **options))
    assert (b != c).any()
    greedy = tn.generate(model, PROMPT, 20)
    np.testing.assert_array_equal(tn.generate(model, PROMPT, 20, temperature=2.0, top_k=1, seed=0), greedy)
    np.testing.assert_array_equal(tn.generate(model, PROMPT, 20, temperature=2.0, top_p=1e-6, seed=0), greedy)


@pytest.mark.slow
def test_streams_at_the_same_time_do_not_mix():
    model = gpt()
    a, b = tn.generate(model, PROMPT, 6), tn.generate(model, [5, 6], 6)
    both = list(
        zip(tn.generate(model, PROMPT, 6, stream=True), tn.generate(model, [5, 6], 6, stream=True), strict=True)
    )
    assert both == list(zip(a.tolist(), b.tolist(), strict=True))
    first = tn.generate(model, PROMPT, 6, stream=True)
    assert isinstance(next(first), int)
    del first  # what a stream that was given up used is free again
    np.testing.assert_array_equal(tn.generate(model, PROMPT, 6), a)


# --- drawing -----------------------------------------------------------------------------------------------------


def drawn(logits: np.ndarray, choice: Choice, calls: int) -> np.ndarray:
    sampler = Sampler()
    sampler.start(choice)
    exe = tn.compile(lambda x: sampler.choose(x, choice.kind), tn.spec("B", logits.shape[1]))
    return np.concatenate([exe(logits) for _ in range(calls)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "allowed"),
    [({}, 5), ({"top_k": 3}, 3), ({"top_p": 0.7}, 2), ({"top_k": 3, "top_p": 0.7}, 2), ({"top_p": 0.6}, 2)],
)
def test_frequencies_are_the_probabilities(options, allowed):
    probabilities = np.array([0.1, 0.4, 0.05, 0.3, 0.15])
    temperature = 2.0
    logits = np.tile(temperature * np.log(probabilities), (500, 1)).astype(np.float32)
    found = drawn(logits, Choice(temperature, seed=1, **options), 20)
    likely = np.sort(probabilities)[::-1][:allowed]
    expected = np.where(probabilities >= likely[-1], probabilities, 0) / likely.sum()
    np.testing.assert_allclose(np.bincount(found, minlength=5) / len(found), expected, atol=0.02)


# --- models of one's own -----------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A GRU that reads and writes tokens; what it remembers is its hidden state."""

    vocab_size = 11

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.gru = nn.GRU(8, 12, batch_first=True)
        self.head = nn.Linear(12, 11)

    class Cache(nn.Cache):
        def __init__(self, batch: int, capacity: int):
            super().__init__(batch, capacity)
            self.register_buffer("hidden", np.zeros((1, batch, 12), np.float32))

        def start(self, padding: tn.Tensor) -> None:
            super().start(padding)
            self.hidden.assign(tn.zeros(self.hidden.shape))

    def make_cache(self, batch: int, capacity: int) -> nn.Cache:
        return self.Cache(batch, capacity)

    def forward(self, tokens: tn.Tensor, cache: nn.Cache | None = None) -> tn.Tensor:
        out, hidden = self.gru(self.embedding(tokens), None if cache is None else cache.hidden)
        if cache is not None:
            cache.hidden.assign(hidden)
        return self.head(out)


@pytest.mark.slow
def test_a_recurrent_model_generates():
    tn.seed(2)
    model = Recurrent()
    found = tn.generate(model, [1, 2], 12, capacity=20)
    np.testing.assert_array_equal(found, tn.generate(model, [1, 2], 12, use_cache=False))
    np.testing.assert_array_equal(found, tn.generate(model, [1, 2], 12, capacity=20))


class Shared(nn.Module):
    """Attention in which two query heads share one head of keys and values."""

    max_length = vocab_size = 10

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(10, 8), nn.Embedding(10, 8)
        self.q, self.kv = nn.Linear(8, 8), nn.Linear(8, 8)

    def make_cache(self, batch: int, capacity: int) -> nn.KVCache:
        return nn.KVCache(1, batch, 1, capacity, 4)

    def forward(self, tokens: tn.Tensor, cache: nn.KVCache | None = None) -> tn.Tensor:
        batch, length = tokens.shape
        places = tn.arange(length) if cache is None else cache.positions(length)
        x = self.embedding(tokens) + self.positions(places)
        q = self.q(x).reshape(batch, length, 2, 4).transpose(1, 2)
        k, v = (part.unsqueeze(1) for part in self.kv(x).split(4, -1))
        if cache is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            mixed = cache.attend(0, q, k, v, enable_gqa=True)
        return mixed.transpose(1, 2).reshape(batch, length, 8) @ self.embedding.weight.T


def test_grouped_heads_share_a_cache():
    tn.seed(0)
    model = Shared()
    memory = model.make_cache(2, 10)
    ids = np.random.default_rng(0).integers(0, 10, (2, 6))

    def read(tokens):
        logits = model(tokens, memory)
        memory.advance(tokens.shape[1])
        return logits

    exe = tn.compile(read, tn.spec(2, "T", dtype="i64"), target="reference")
    parts = [exe(ids[:, :3]), exe(ids[:, 3:4]), exe(ids[:, 4:])]
    whole = tn.compile(model, tn.spec("B", "T", dtype="i64"), target="reference")(ids)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-6)
    assert memory.length.numpy() == 6
    kept = memory.keys0.numpy().copy()
    with pytest.raises(tn.IndexRangeError):
        exe(ids[:, :5])  # the cache holds 10
    assert memory.length.numpy() == 6 and (memory.keys0.numpy() == kept).all()


@pytest.mark.slow
def test_programs_live_as_long_as_their_model():
    tn.seed(0)
    model = Shared()
    tn.generate(model, [1], 2)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.slow
def test_new_weights_are_used():
    tn.seed(0)
    model = Shared()
    before = tn.generate(model, [1, 2, 3], 6)
    model.load_state_dict(Shared().state_dict())
    expected = tn.generate(model, [1, 2, 3], 6, use_cache=False)
    np.testing.assert_array_equal(tn.generate(model, [1, 2, 3], 6), expected)
    assert (expected != before).any()
    model.q = nn.Linear(8, 8)  # another parameter: the programs of the old one do not serve
    np.testing.assert_array_equal(tn.generate(model, [1, 2, 3], 6), tn.generate(model, [1, 2, 3], 6, use_cache=False))


# --- what cannot be asked -----------------------------------------------------------------------------------------


class Plain(nn.Module):
    def forward(self, tokens: tn.Tensor) -> tn.Tensor:
        raise AssertionError("nothing may run")


BAD = [
    (dict(prompt=[1, 2, 3], max_new_tokens=30), tn.TenonError, "3 tokens and 30 new ones are 33; the cache holds 32"),
    (dict(prompt=[1], max_new_tokens=8, capacity=6), tn.TenonError, "1 token and 8 new ones are 9; the cache holds 6"),
    (dict(prompt=[1, 2], max_new_tokens=31, use_cache=False), tn.TenonError, "33; the model knows positions for 32"),
    (dict(prompt=[1], max_new_tokens=8, capacity=64), tn.TenonError, "capacity is 64; GPT knows 32 positions"),
    (dict(prompt=[1, 23], max_new_tokens=1), tn.IndexRangeError, r"token 23 \(prompt 0, place 1\).*vocabulary of 23"),
    (dict(prompt=[[1], [2, -1]], max_new_tokens=1), tn.IndexRangeError, r"token -1 \(prompt 1, place 1\)"),
    (dict(prompt="abc", max_new_tokens=1), tn.DTypeError, "the prompt is text; token ids"),
    (dict(prompt=[0.5], max_new_tokens=1), tn.DTypeError, "holds float64"),
    (dict(prompt=[], max_new_tokens=1), tn.ShapeError, "at least one token"),
    (dict(prompt=[[1], []], max_new_tokens=1), tn.ShapeError, "prompt 1 has shape"),
    (dict(prompt=[1], max_new_tokens=0), tn.TenonError, "max_new_tokens must be at least 1, not 0"),
    (dict(prompt=[1], max_new_tokens=1, temperature=-1), tn.TenonError, "temperature must be"),
    (dict(prompt=[1], max_new_tokens=1, top_k=0), tn.TenonError, "top_k must be at least 1"),
    (dict(prompt=[1], max_new_tokens=1, top_p=1.5), tn.TenonError, "top_p must lie above 0"),
    (dict(prompt=[1], max_new_tokens=1, seed=-1), tn.TenonError, "seed lies between"),
    (dict(prompt=[[1], [1, 2]], max_new_tokens=1, use_cache=False), tn.TenonError, "must have the same length"),
    (dict(model=Plain(), prompt=[1], max_new_tokens=1), tn.TenonError, "Plain has no make_cache"),
    (dict(model=Recurrent(), prompt=[1], max_new_tokens=1), tn.TenonError, "Recurrent has no max_length, so capacity="),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_questions_are_told_before_anything_runs(arguments, error, message):
    with pytest.raises(error, match=message):
        tn.generate(**{"model": gpt(), "stream": True, **arguments})


def test_sizes_of_caches():
    with pytest.raises(tn.TenonError, match="KVCache: capacity must be at least 1, not 0"):
        nn.KVCache(1, 1, 1, 0, 4)

"""tn.beam_search: against every output there is, and what it refuses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tenon as tn
from engine.errors import IndexRangeError, ShapeError, TenonError
from tenon import F, nn

START, STOP, WORDS, LENGTH = 0, 1, 4, 3
SOURCE = np.array([[2, 3, 2], [3, 3, 1]])


class Translator(nn.Module):
    """Scores of the next token from the sum of a source and of all tokens so far."""

    vocab_size, max_length = WORDS, 6

    def __init__(self) -> None:
        super().__init__()
        tn.seed(4)
        self.read, self.written = nn.Embedding(WORDS, 8), nn.Embedding(WORDS, 8)
        self.score = nn.Linear(8, WORDS)

    def encode(self, source: tn.Tensor) -> dict[str, tn.Tensor]:
        return {"sum": self.read(source).sum(1)}

    def decode(self, tokens: tn.Tensor, memory: dict[str, tn.Tensor]) -> tn.Tensor:
        return self.score(F.tanh(self.written(tokens).cumsum(1) + memory["sum"].unsqueeze(1))) * 2


@pytest.fixture(scope="module")
def model() -> Translator:
    return Translator()


def all_outputs(model: Translator, penalty: float) -> list[dict[tuple[int, ...], float]]:
    """The score of each output of up to LENGTH tokens, for each source."""
    exe = tn.compile(
        lambda s, t: F.log_softmax(model.decode(t, model.encode(s)), -1),
        tn.spec("N", "S", dtype="i64"), tn.spec("N", "T", dtype="i64"),
    )  # fmt: skip
    found: list[dict[tuple[int, ...], float]] = []
    for source in SOURCE:
        scores = {}
        for length in range(LENGTH + 1):
            for body in itertools.product([t for t in range(WORDS) if t != STOP], repeat=length):
                written = (*body, STOP)[:LENGTH]
                likely = exe(source[None], np.array([[START, *written[:-1]]]))[0]
                total = sum(likely[i, t] for i, t in enumerate(written))
                scores[body] = float(total) / len(written) ** penalty
        found.append(scores)
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_enough_a_search_finds_the_best_of_all(model, penalty):
    expected = all_outputs(model, penalty)
    found = tn.beam_search(model, SOURCE, LENGTH, start=START, stop=STOP, beams=64, length_penalty=penalty)
    for scores, hypotheses in zip(expected, found, strict=True):
        ranked = sorted(scores.items(), key=lambda item: -item[1])
        assert len(hypotheses) == len(ranked)
        assert tuple(hypotheses[0].tokens) == ranked[0][0]
        for h in hypotheses:
            assert h.score == pytest.approx(scores[tuple(h.tokens)], rel=1e-4, abs=1e-5)


def test_one_beam_takes_the_likeliest_token_each_time(model):
    step = tn.compile(lambda s, t: model.decode(t, model.encode(s)), tn.spec("N", "S", dtype="i64"),
                      tn.spec("N", "T", dtype="i64"))  # fmt: skip
    found = tn.beam_search(model, SOURCE, 5, start=START, stop=STOP, beams=1)
    for source, (hypothesis,) in zip(SOURCE, found, strict=True):
        written = [START]
        while len(written) < 6:
            written.append(int(step(source[None], np.array([written]))[0, -1].argmax()))
            if written[-1] == STOP:
                break
        assert hypothesis.tokens.tolist() == [t for t in written[1:] if t != STOP]


@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (TenonError, {"beams": 0}, "beams must be at least 1, not 0"),
        (TenonError, {"max_new_tokens": 9}, "9 new tokens are 10; the model knows 6 positions"),
        (IndexRangeError, {"stop": 7}, "stop is 7, which is no token of a vocabulary of 4"),
        (ShapeError, {"source": np.zeros(3, np.int64)}, r"\(3,\); \(batch, ...\) was expected"),
        (TenonError, {"model": nn.Linear(2, 2)}, "Linear has no method encode"),
    ],
)
def test_what_it_refuses(model, error, options, words):
    given = {"model": model, "source": SOURCE, "max_new_tokens": 3, "start": START, "stop": STOP} | options
    with pytest.raises(error, match=words):
        tn.beam_search(given.pop("model"), given.pop("source"), given.pop("max_new_tokens"), **given)

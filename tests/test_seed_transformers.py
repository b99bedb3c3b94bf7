"""The attention and the Transformers of the articles that Tenon began with, in its DSL, beside PyTorch."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn, optim

torch = pytest.importorskip("torch")

OURS = SimpleNamespace(nn=nn, softmax=F.softmax, relu=F.relu, array=tn.tensor, concat=tn.concat)
THEIRS = SimpleNamespace(
    nn=torch.nn, softmax=torch.softmax, relu=torch.relu, array=torch.from_numpy, concat=torch.concat
)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- the helper classes that the articles call and do not print ----------------------------------------------------


def positional_encoding(lib: Any, time: int) -> Any:
    """``PositionalEncoding(input_size, hidden_size)``: adds sines and cosines (Vaswani et al. 2017, 3.5) to embedded
    tokens whose positions lie along axis ``time``. The articles give the size of the vocabulary for the number of
    positions; so it is here."""

    class PositionalEncoding(lib.nn.Module):
        def __init__(self, input_size, hidden_size):
            super().__init__()
            angles = np.arange(input_size)[:, None] / 10000 ** (np.arange(0, hidden_size, 2) / hidden_size)
            waves = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(input_size, 1, hidden_size)
            waves = waves if time == 0 else waves.swapaxes(0, time)
            self.register_buffer("waves", lib.array(waves.astype(np.float32)))

        def forward(self, x):
            length = x.size(time)
            return x + (self.waves[:length] if time == 0 else self.waves[:, :length])

    return PositionalEncoding


def multi_head_attention(lib: Any) -> Any:
    """``MultiHeadAttention(hidden_size, num_heads)`` by the formulas of the first article (3.3.1 and 3.3.2)."""

    class MultiHeadAttention(lib.nn.Module):
        def __init__(self, hidden_size, num_heads):
            super().__init__()
            self.num_heads = num_heads
            self.query, self.key, self.value = (lib.nn.Linear(hidden_size, hidden_size) for _ in range(3))
            self.out = lib.nn.Linear(hidden_size, hidden_size)

        def heads(self, x):
            return x.reshape(x.size(0), x.size(1), self.num_heads, -1).transpose(1, 2)

        def forward(self, q, k, v):
            q, k, v = self.heads(self.query(q)), self.heads(self.key(k)), self.heads(self.value(v))
            weights = lib.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)), -1)
            heads = (weights @ v).transpose(1, 2)
            return self.out(heads.reshape(heads.size(0), heads.size(1), -1))

    return MultiHeadAttention


def position_wise_feed_forward(lib: Any) -> Any:
    """``PositionWiseFeedForward(hidden_size, inner_size)``: FFN of the fourth article (3.3.6)."""

    class PositionWiseFeedForward(lib.nn.Module):
        def __init__(self, hidden_size, inner_size):
            super().__init__()
            self.widen, self.narrow = lib.nn.Linear(hidden_size, inner_size), lib.nn.Linear(inner_size, hidden_size)

        def forward(self, x):
            return self.narrow(lib.relu(self.widen(x)))

    return PositionWiseFeedForward


# --- the two classes -----------------------------------------------------------------------------------------------


def sequence_to_sequence(lib: Any, *sizes: int) -> Any:
    """``class Transformer`` of the first article (4.3). Mended: PositionalEncoding and ``import math`` were missing;
    the decoder was given the source's mask as its memory, and the memory as the target's mask:
    ``decoder(trg, src_mask, output)``. ``num_layers`` is kept, as printed, and one layer made of each kind."""

    class Transformer(lib.nn.Module):
        def __init__(self, input_size, hidden_size, num_layers, num_heads):
            super().__init__()
            self.input_size = input_size
            self.hidden_size = hidden_size
            self.num_layers = num_layers
            self.num_heads = num_heads
            self.pos_encoding = positional_encoding(lib, 0)(input_size, hidden_size)

            self.embedding = lib.nn.Embedding(input_size, hidden_size)
            self.encoder = lib.nn.TransformerEncoderLayer(hidden_size, num_heads)
            self.decoder = lib.nn.TransformerDecoderLayer(hidden_size, num_heads)

        def forward(self, src, trg, src_mask, trg_mask):
            src = self.embedding(src) * math.sqrt(self.hidden_size)
            trg = self.embedding(trg) * math.sqrt(self.hidden_size)

            src = self.pos_encoding(src)
            trg = self.pos_encoding(trg)

            output = self.encoder(src, src_mask)
            return self.decoder(trg, output, trg_mask)

    return Transformer(*sizes)


def classifier(lib: Any, *sizes: int) -> Any:
    """``class Transformer`` of the second article (4.3); ``Transformer(10, 8, 2, 2, 2)`` is its call. Mended: its three
    helper classes were missing; the positional encoding was called on token ids, ``embedding(x) + pos_encoding(x)``;
    ``num_classes`` was not used, and a loss of classes had no scores to judge: here they come from the tokens' mean.
    As printed, all layers have the same weights, and nothing is added to what goes around a layer."""

    class Transformer(lib.nn.Module):
        def __init__(self, input_size, hidden_size, num_layers, num_heads, num_classes):
            super().__init__()
            self.input_size = input_size
            self.hidden_size = hidden_size
            self.num_layers = num_layers
            self.num_heads = num_heads
            self.pos_encoding = positional_encoding(lib, 1)(input_size, hidden_size)
            self.embedding = lib.nn.Embedding(input_size, hidden_size)
            self.multihead_attention = multi_head_attention(lib)(hidden_size, num_heads)
            self.position_wise_feed_forward = position_wise_feed_forward(lib)(hidden_size, hidden_size)
            self.norm1 = lib.nn.LayerNorm(hidden_size)
            self.norm2 = lib.nn.LayerNorm(hidden_size)
            self.dropout = lib.nn.Dropout(0.1)
            self.fc = lib.nn.Linear(hidden_size, num_classes)

        def forward(self, x):
            x = self.pos_encoding(self.embedding(x))
            x = self.dropout(x)
            for _ in range(self.num_layers):
                x = self.multihead_attention(x, x, x)
                x = self.norm1(x)
                x = self.position_wise_feed_forward(x)
                x = self.norm2(x)
            return self.fc(x.mean(1))

    return Transformer(*sizes)


def pair(make: Any, *sizes: int) -> tuple[Any, Any]:
    """The class in both libraries with the same weights, in eval mode: dropout draws other numbers in each."""
    ours, theirs = make(OURS, *sizes), make(THEIRS, *sizes)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours.eval(), theirs.eval()


def same_weights(ours: Any, theirs: Any) -> None:
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_first_transformer_learns_as_in_pytorch():
    ours, theirs = pair(sequence_to_sequence, 10, 8, 2, 2)
    sgd, other = optim.SGD(ours.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)

    @tn.function
    def step(
        src: tn.spec("S", "B", dtype="i64"),  # type: ignore[valid-type]
        trg: tn.spec("T", "B", dtype="i64"),  # type: ignore[valid-type]
        src_mask: tn.spec("S", "S"),  # type: ignore[valid-type]
        trg_mask: tn.spec("T", "T"),  # type: ignore[valid-type]
        wanted: tn.spec("T", "B", 8),  # type: ignore[valid-type]
    ):
        loss = F.mse_loss(ours(src, trg, src_mask, trg_mask), wanted)
        sgd.minimize(loss)
        return loss

    rng = np.random.default_rng(0)
    for s, t in ((6, 4), (3, 5)):
        src, trg, wanted = rng.integers(0, 10, (s, 2)), rng.integers(0, 10, (t, 2)), random(t, 2, 8, seed=t)
        masks = np.zeros((s, s), np.float32), np.triu(np.full((t, t), -np.inf, np.float32), 1)
        masks[0][:, -1] = -np.inf
        other.zero_grad()
        found = theirs(*map(torch.from_numpy, (src, trg, *masks)))
        loss = torch.nn.functional.mse_loss(found, torch.from_numpy(wanted))
        loss.backward()
        other.step()
        assert np.isclose(step(src, trg, *masks, wanted), loss.item(), rtol=1e-5)
    same_weights(ours, theirs)


@pytest.mark.slow
def test_the_second_transformer_learns_as_in_pytorch_and_with_dropout():
    ours, theirs = pair(classifier, 10, 8, 2, 2, 2)
    ours.dropout.p = 0.0  # a training step is traced in training mode
    sgd, other = optim.SGD(ours.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    specs = [tn.spec("B", "T", dtype="i64"), tn.spec("B", dtype="i64")]
    step = tn.train_step(ours, nn.CrossEntropyLoss(), sgd, specs=specs)
    rng = np.random.default_rng(0)
    for batch, steps in ((3, 6), (5, 10)):
        x, y = rng.integers(0, 10, (batch, steps)), rng.integers(0, 2, batch)
        other.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        other.step()
        assert np.isclose(step(x, y), loss.item(), rtol=1e-5)
    same_weights(ours, theirs)

    # As the article sets it up: dropout, and Adam at 0.01. The class is whether the first token is a small one.
    ours.dropout.p = 0.1
    adam = optim.Adam(ours.parameters(), lr=0.01)
    step = tn.train_step(ours, nn.CrossEntropyLoss(), adam, specs=specs)
    x = rng.integers(0, 10, (32, 3))
    losses = [step(x, (x[:, 0] < 5).astype(np.int64)) for _ in range(150)]
    assert losses[-1] < losses[0] / 2


# --- formulas ------------------------------------------------------------------------------------------------------


def attention(lib: Any, q: Any, k: Any, v: Any, scale: float) -> Any:
    return lib.softmax(q @ k.T * scale, -1) @ v


def multi_head(lib: Any, x: Any, parts: Any, out: Any) -> Any:
    """Heads side by side, each with parts of its own of what queries, keys and values are made with."""
    heads = [attention(lib, x @ q, x @ k, x @ v, 1 / math.sqrt(q.shape[1])) for q, k, v in parts]
    return lib.concat(heads, -1) @ out


def formulas(lib: Any, x: Any, w: Any, waves: Any) -> list[Any]:
    """What the articles print as formulas, each by the same names in both libraries."""
    attend = attention(lib, x, x, x, 1 / math.sqrt(4))  # the first article's 3.3.1
    scaled = attention(lib, x, x, x, 0.7)  # the second's 3.3: the linear map "a" of one number is a scale
    parts = [[w[3 * head + i, :, :2] for i in range(3)] for head in range(2)]
    positioned = lib.softmax(multi_head(lib, x, parts, w[6]) + waves, -1)  # the second's 3.4

    def feed_forward(x):
        return lib.relu(x @ w[7] + w[8, 0]) @ w[9] + w[8, 1]

    # The fourth's 3.3.6: Decoder(x + Encoder(x)), each FFN(MultiHead(x W, x W, x W)). Mended: its W^E and W^D are one
    # matrix for queries, keys and values, and the heads have none: so every head would be the same. Here W^E comes
    # first, and each head has its parts of what it gives.
    def block(x, matrix):
        return feed_forward(multi_head(lib, x @ matrix, parts, w[6]))

    both = block(x + block(x, w[10]), w[11])
    return [attend, scaled, positioned, both]


def test_the_formulas_and_their_gradients():
    x, w, waves = random(5, 4), random(12, 4, 4, seed=1) / 2, random(5, 4, seed=2)

    def loss(x, w):
        return sum((part * tn.tensor(waves)).sum() for part in formulas(OURS, x, w, tn.tensor(waves)))

    specs = tn.spec(5, 4), tn.spec(12, 4, 4)
    value, slopes = tn.compile(tn.value_and_grad(loss, (0, 1)), *specs, target="reference")(x, w)
    given = [torch.from_numpy(a).requires_grad_() for a in (x, w)]
    expected = sum((part * torch.from_numpy(waves)).sum() for part in formulas(THEIRS, *given, torch.from_numpy(waves)))
    expected.backward()
    assert np.isclose(value, expected.item(), rtol=1e-5)
    for ours, theirs in zip(slopes, given, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-4, atol=1e-4)


# The attention of the fourth article's code (4.1.4): K = h W1 + b1, V = h W2 + b2, h = softmax(K K' / |K|) V, step by
# step over X. Mended: a state (5, 1) cannot be multiplied with W1 (5, 2), and X is never read: here keys and values
# are made of the step's three points and their states together, so W1 is (2 + 2, 5) and W2 (2 + 2, 2), since what V
# gives, the next state, is compared with y, of two. As printed, scores are divided by the lengths of the keys. It
# updates within each step; these are the gradients of all steps' losses.
POINTS = np.arange(1, 13, dtype=np.float32).reshape(2, 3, 2) / 12
WANTED = np.array([[1, 2], [3, 4]], np.float32)


def attend_step(lib: Any, h: Any, x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
    both = lib.concat([x, h], -1)
    k, v = both @ w1 + b1, both @ w2 + b2
    scores = k @ k.T / (k**2).sum(1).sqrt().unsqueeze(1)
    return lib.softmax(scores, -1) @ v


def test_the_attention_over_steps_and_its_gradients():
    weights = [random(4, 5), random(5, seed=1), random(4, 2, seed=2), random(2, seed=3)]

    def loss(*weights):
        def step(h, given):
            x, y = given
            h = attend_step(OURS, h, x, *weights)
            return h, ((h - y) ** 2).sum()

        return F.scan(step, tn.zeros(3, 2), (tn.tensor(POINTS), tn.tensor(WANTED)))[1].sum()

    specs = [tn.spec(*w.shape) for w in weights]
    value, slopes = tn.compile(tn.value_and_grad(loss, (0, 1, 2, 3)), *specs, target="reference")(*weights)
    given = [torch.from_numpy(w).requires_grad_() for w in weights]
    h, expected = torch.zeros(3, 2), torch.zeros(())
    for x, y in zip(torch.from_numpy(POINTS), torch.from_numpy(WANTED), strict=True):
        h = attend_step(THEIRS, h, x, *given)
        expected = expected + ((h - y) ** 2).sum()
    expected.backward()
    assert np.isclose(value, expected.item(), rtol=1e-5)
    for ours, theirs in zip(slopes, given, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-4, atol=1e-5)

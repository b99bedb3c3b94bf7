"""The recurrent code of the articles that Tenon began with, in its DSL, beside PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn, optim

torch = pytest.importorskip("torch")


def classifier(nn: Any, zeros: Any, *sizes: int) -> Any:
    """``class RNN`` of two articles as they print it, in the vocabulary of ``nn``; ``RNN(10, 8, 2, 2)`` is the call."""

    class RNN(nn.Module):
        def __init__(self, input_size, hidden_size, num_layers, num_classes):
            super().__init__()
            self.hidden_size = hidden_size
            self.num_layers = num_layers
            self.lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=True)
            self.fc = nn.Linear(hidden_size, num_classes)

        def forward(self, x):
            h0 = zeros(self.num_layers, x.size(0), self.hidden_size).to(x.device)
            c0 = zeros(self.num_layers, x.size(0), self.hidden_size).to(x.device)
            out, (hn, cn) = self.lstm(x, (h0, c0))
            return self.fc(out[:, -1, :])

    return RNN(*sizes)


@pytest.mark.slow
def test_rnn_10_8_2_2_trains_as_in_pytorch():
    ours, theirs = classifier(nn, tn.zeros, 10, 8, 2, 2), classifier(torch.nn, torch.zeros, 10, 8, 2, 2)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    adam, other = optim.Adam(ours.parameters(), lr=0.01), torch.optim.Adam(theirs.parameters(), lr=0.01)
    step = tn.train_step(ours, nn.CrossEntropyLoss(), adam, specs=[tn.spec("B", "T", 10), tn.spec("B", dtype="i64")])
    rng = np.random.default_rng(0)
    for batch, steps in ((3, 6), (5, 4)):
        x, y = rng.standard_normal((batch, steps, 10)).astype(np.float32), rng.integers(0, 2, batch)
        other.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        other.step()
        assert np.isclose(step(x, y), loss.item(), rtol=1e-5)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-4, atol=1e-5)


class Gated(nn.Module):
    """The gated cell of the first article (3.2.1). Mended: it multiplies ``x_t`` and ``h_{t-1}`` with the same matrix
    ``W_u``, which takes inputs and states of one size only; here, as in PyTorch, each has its own."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        for gate in "ifgo":
            setattr(self, f"x_{gate}", nn.Linear(inputs, hidden))
            setattr(self, f"h_{gate}", nn.Linear(hidden, hidden, bias=False))

    def forward(self, x):
        def cell(carry, x):
            h, c = carry
            i, f, g, o = (getattr(self, f"x_{gate}")(x) + getattr(self, f"h_{gate}")(h) for gate in "ifgo")
            c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
            h = F.sigmoid(o) * F.tanh(c)
            return (h, c), h

        nothing = tn.zeros(x.shape[1], self.hidden)
        return F.scan(cell, (nothing, nothing), x)[1]


def test_the_gated_cell_is_an_lstm():
    ours, theirs = Gated(3, 5), torch.nn.LSTM(3, 5)
    weights = ours.state_dict()
    state = {"weight_ih_l0": "x_{}.weight", "weight_hh_l0": "h_{}.weight", "bias_ih_l0": "x_{}.bias"}
    state = {k: torch.from_numpy(np.concatenate([weights[v.format(g)] for g in "ifgo"])) for k, v in state.items()}
    theirs.load_state_dict({**state, "bias_hh_l0": torch.zeros(20)})
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)

    def loss(x):
        return (ours(x) ** 2).sum()

    given = torch.from_numpy(x).requires_grad_()
    expected = (theirs(given)[0] ** 2).sum()
    expected.backward()
    value, slope = tn.compile(tn.value_and_grad(loss), tn.spec("T", "B", 3), target="reference")(x)
    assert np.isclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(slope, given.grad.numpy(), rtol=1e-4, atol=1e-6)


# The LSTM cell of the last article (2.2.4.3), two units and one input. Mended: its weights are (2, 2, 1), which three
# rows of state and input cannot be multiplied with: here a unit has a row of three, its number repeated. What it calls
# np.sigmoid NumPy has not. Its gradients by hand break off: these are of the loss (y - h)^2 that they start from.
STATE, TARGET = np.zeros((2, 1), np.float32), np.array([[0], [1]], np.float32)
WEIGHT, BIAS = np.array([[-0.5] * 3, [0.5] * 3], np.float32), np.zeros((1,), np.float32)


def unit(concat: Any, sigmoid: Any, tanh: Any, x: Any, h: Any, c: Any, weights: Any, biases: Any) -> Any:
    both = concat([h, x])
    i, f, o = (sigmoid(weights[k] @ both + biases[k]) for k in range(3))
    c = f * c + i * tanh(weights[3] @ both + biases[3])
    return o * tanh(c), c


def test_the_cell_written_in_numpy_and_its_gradients():
    weights, biases = np.stack([WEIGHT] * 4), np.stack([BIAS] * 4)
    xs = np.array([[[1]], [[-2]]], np.float32)

    def loss(weights, biases):
        def step(carry, x):
            h, c = unit(tn.concat, F.sigmoid, F.tanh, x, *carry, weights, biases)
            return (h, c), None

        return ((tn.tensor(TARGET) - F.scan(step, (tn.tensor(STATE),) * 2, tn.tensor(xs))[0][0]) ** 2).sum()

    slopes = tn.grad(loss, (0, 1))
    found = tn.compile(slopes, tn.spec(4, 2, 3), tn.spec(4, 1), target="reference")(weights, biases)
    given = [torch.from_numpy(a).requires_grad_() for a in (weights, biases)]
    h = c = torch.from_numpy(STATE)
    for x in torch.from_numpy(xs):
        h, c = unit(torch.cat, torch.sigmoid, torch.tanh, x, h, c, *given)
    ((torch.from_numpy(TARGET) - h) ** 2).sum().backward()
    for ours, theirs in zip(found, given, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-4, atol=1e-7)


# The vanilla RNN of the fourth article: h = tanh(h W + x R + b), y = h V + c. Mended: it multiplies states with W,
# (hidden, inputs), and inputs with R, (hidden, hidden); here W is (hidden, hidden) and R (inputs, hidden). Its output
# uses W and b again, which have not the size of y: here V and c. Its gradients are made up: these are of its loss.
def vanilla(x: Any, y: Any, w: Any, r: Any, b: Any, v: Any, c: Any) -> Any:
    def step(h, pair):
        x, y = pair
        h = F.tanh(h @ w + x @ r + b)
        return h, ((h @ v + c - y) ** 2).sum()

    return F.scan(step, tn.zeros(1, 5), (x.unsqueeze(1), y.unsqueeze(1)))[1].sum()


def test_the_vanilla_rnn_and_its_gradients():
    rng = np.random.default_rng(0)
    x, y = np.array([[1], [2], [3], [4], [5]], np.float32), np.arange(1, 11, dtype=np.float32).reshape(5, 2)
    weights = [rng.standard_normal(s).astype(np.float32) for s in ((5, 5), (1, 5), (5,), (5, 2), (2,))]
    specs = [tn.spec("T", 1), tn.spec("T", 2), *(tn.spec(*w.shape) for w in weights)]
    found = tn.compile(tn.value_and_grad(vanilla, (2, 3, 4, 5, 6)), *specs, target="reference")(x, y, *weights)
    w, r, b, v, c = given = [torch.from_numpy(a).requires_grad_() for a in weights]
    h, loss = torch.zeros(1, 5), torch.zeros(())
    for t in range(5):
        h = torch.tanh(h @ w + torch.from_numpy(x[t]) @ r + b)
        loss = loss + ((h @ v + c - torch.from_numpy(y[t])) ** 2).sum()
    loss.backward()
    assert np.isclose(found[0], loss.item(), rtol=1e-5)
    for ours, theirs in zip(found[1], given, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-4, atol=1e-4)

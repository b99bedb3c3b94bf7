"""Whole programs for the target cuda, held to the interpreter and to the CPU: in the simulator, and on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from compiled import difference
from op_samples import SAMPLES, Sample
from test_compiled_ops import OTHERS, of_dtype, together

import tenon as tn
from engine import interpreter
from engine.dtypes import f32
from engine.options import Options
from engine.verify import verify
from frontend import functional as F
from frontend import nn, optim
from passes.autodiff import expand_gradients
from tenon import backends

OP_SAMPLES = {f"{i}-{s.op}": s for i, s in enumerate([*SAMPLES, *OTHERS])}
SLACK = 2e-6
"""What sums in another order than the interpreter's may differ by where they nearly cancel."""


def check_op(sample: Sample) -> None:
    """The op of a sample, its floats in float32, gives on the GPU what the interpreter gives."""
    graph, inputs = together([of_dtype(sample, f32)])
    expected = interpreter.run(verify(expand_gradients(graph), expanded=True), inputs, {})[0]
    built = backends.get("cuda").build(graph, {}, Options())
    found = built.executor.run(inputs)
    wrong = [why for a, b in zip(found, expected, strict=True) if (why := difference(a, np.asarray(b), slack=SLACK))]
    assert not wrong, f"{wrong}\n{graph}"


# --- the models that Tenon was asked for first, at toy sizes ------------------------------------------------------


class CNN(nn.Module):
    """As examples/digits_cnn.py has it, for images of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(4, 8, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(8 * 2 * 2, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        return self.fc2(F.relu(self.fc1(x.reshape(-1, 8 * 2 * 2))))


class LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        return self.fc(self.lstm(x)[0][:, -1])


class Encoder(nn.Module):
    """A language model over 11 tokens: two layers, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 16, 0.1, "gelu", batch_first=True, norm_first=True)
        self.tokens = nn.Embedding(11, 16)
        self.positions = nn.Embedding(5, 16)
        self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(16))
        self.head = nn.Linear(16, 11)

    def forward(self, x: tn.Tensor) -> tn.Tensor:
        return self.head(self.blocks(self.tokens(x) + self.positions.weight)).reshape(-1, 11)


def _images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, 2)


def _sequences() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, 3, 4)).astype(np.float32), rng.integers(0, 3, 2)


def _texts() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 11, (2, 5)), rng.integers(0, 11, 10)


MODELS = {"cnn": (CNN, _images), "lstm": (LSTM, _sequences), "encoder": (Encoder, _texts)}


def trained(make: Callable[[], nn.Module], x: np.ndarray, y: np.ndarray, target: str):
    """The losses of two steps of Adam, and after them the parameters and, by the same names, the means of their
    gradients."""
    tn.seed(0)
    model = make()
    adam = optim.Adam(model.parameters(), lr=0.01)
    specs = [tn.spec("B", *x.shape[1:], dtype=x.dtype), tn.spec("N", dtype="i64")]
    step = tn.train_step(model, F.cross_entropy, adam, specs, target=target)
    losses = [float(step(x, y)) for _ in range(2)]
    moments = adam.state_dict()
    means = {name: moments[f"exp_avg.{i}"] for i, (name, _) in enumerate(model.named_parameters())}
    return losses, model.state_dict(), means


def check_seed(name: str) -> None:
    """Training the model on the GPU gives the CPU's losses, gradients and parameters."""
    make, data = MODELS[name]
    x, y = data()
    wanted, parameters, gradients = trained(make, x, y, "cpu")
    losses, found, slopes = trained(make, x, y, "cuda")
    np.testing.assert_allclose(losses, wanted, 1e-4)
    for key, value in gradients.items():
        bound = 1e-4 * np.abs(value).max()
        assert bound > 0, key
        np.testing.assert_allclose(slopes[key], value, 0, bound, err_msg=f"the gradient of {key}")
    for key, value in parameters.items():
        got = found[key]
        if key.endswith("in_proj_bias"):  # a key's has no gradient but rounding, which Adam divides by itself
            got, value = (np.delete(a, np.s_[a.size // 3 : 2 * a.size // 3]) for a in (got, value))
        np.testing.assert_allclose(got, value, 1e-4, 1e-6, err_msg=key)

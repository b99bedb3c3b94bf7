"""What a user reads after a mistake: what was given, what was expected, and the line where it happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenon as tn
from engine import op
from engine.graph import TensorType
from engine.op import Op
from frontend.dispatch import call
from tenon import F, nn, optim

TARGETS = ("reference", "cpu")
HERE = Path(__file__)


def assert_explains(action: Callable[[], Any], error: type[tn.TenonError], words: Iterable[str], line: str) -> None:
    """``action`` raises ``error`` with all ``words``, naming the line of this file that holds ``line``."""
    with pytest.raises(error) as caught:
        action()
    text = str(caught.value)
    for word in words:
        assert word in text, text
    (number,) = (n for n, found in enumerate(HERE.read_text(encoding="utf-8").splitlines(), 1) if f"# {line}" in found)
    assert f"{HERE.name}:{number} in " in text, text


class Net(nn.Module):
    """A small CNN for 8x8 images; its second layer takes ``features``, and 3 * 4 * 4 would be right."""

    def __init__(self, features: int = 48) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.fc = nn.Linear(features, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.fc(x.flatten(1))  # the dense layer


IMAGES = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
IMAGE = tn.spec("B", 1, 8, 8)


# --- arrays that do not fit ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=TARGETS)
def net(request):
    return tn.compile(Net(), IMAGE, target=request.param)


@pytest.mark.parametrize(
    ("array", "error", "words"),
    [
        (IMAGES[0], tn.ShapeError, ["input 'x' has shape (1, 8, 8)", "expected (B, 1, 8, 8)", "rank 3 instead of 4"]),
        (IMAGES[:, :, :7], tn.ShapeError, ["(4, 1, 7, 8)", "expected (B, 1, 8, 8) with B=4: axis 2 is 7 instead of 8"]),
        (IMAGES.astype(np.float64), tn.DTypeError, ["input 'x' has dtype float64", "expected f32"]),
        (IMAGES.astype(np.int32), tn.DTypeError, ["input 'x' has dtype int32", "expected f32"]),
        (IMAGES.astype(str), tn.DTypeError, ["input 'x' has dtype <U32", "expected f32"]),
    ],
    ids=["rank", "size", "f64", "i32", "text"],
)
def test_an_array_that_does_not_fit(net, array, error, words):
    def run():
        net(array)  # the call with that array

    assert_explains(run, error, words, "the call with that array")


def test_sizes_that_contradict_each_other():
    exe = tn.compile(lambda x, y: x + y, tn.spec("B", 3), tn.spec("B", 3), target="reference")

    def run():
        exe(np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32))  # two batches

    assert_explains(run, tn.ShapeError, ["'y' has shape (4, 3)", "expected (B, 3)", "B is already 2"], "two batches")


# --- a class that is out of range ----------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("label", [5, -1, 2**40])
def test_a_class_out_of_range_changes_no_state(target, label):
    tn.seed(1)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 5))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    @tn.function(target=target)
    def step(x: tn.spec("B", 6), y: tn.spec("B", dtype="i64")):
        loss = F.cross_entropy(model(x), y)  # the loss with labels
        optimizer.minimize(loss)
        return loss

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(33, 6)).astype(np.float32), rng.integers(0, 5, 33)
    step(x, y)
    cells = step.executable.cells
    assert {"0.weight", "adam.exp_avg.0.weight", "adam.step", "adam.lr", "rng.step"} <= cells.keys()
    before = {name: (cell.array.tobytes(), cell.version) for name, cell in cells.items()}
    wrong = y.copy()
    wrong[-1] = label
    words = [f"index {label} is out of range", "expected 0 <= index < 5"]
    assert_explains(lambda: step(x, wrong), tn.IndexRangeError, words, "the loss with labels")
    assert {name: (cell.array.tobytes(), cell.version) for name, cell in cells.items()} == before
    step(x, y)
    assert all((cell.array.tobytes(), cell.version) != before[name] for name, cell in cells.items() if "step" in name)


# --- Python that asks a symbolic value ----------------------------------------------------------------------


def branches(x):
    if x.sum() > 0:  # an if
        return x
    return -x


def repeats(x):
    while (x < 3).any():  # a while
        x = x + 1
    return x


def asserts(x):
    assert x[0] == 0  # an assert
    return x


def chooses(x):
    return x.sum() and x  # an and


def converts(x):
    return x * float(x.sum())  # a float


def indexes(x):
    return [x, -x][x[0].long()]  # a list


def counts(x):
    return sum(x[i] for i in range(x.shape[0]))  # a range


def compares(x):
    return x if x.shape[0] > 3 else -x  # a size


def leaves(x):
    return tn.tensor(np.asarray(x.numpy()))  # an array


@pytest.mark.parametrize(
    ("function", "words", "line"),
    [
        (branches, ["truth of a tensor", "bool[()]", "tn.where"], "an if"),
        (repeats, ["truth of a tensor", "bool[()]", "tn.where"], "a while"),
        (asserts, ["truth of a tensor", "bool[()]"], "an assert"),
        (chooses, ["truth of a tensor", "f32[()]"], "an and"),
        (converts, ["number in a tensor (float())", "f32[()]"], "a float"),
        (indexes, ["index from a tensor", "i64[()]"], "a list"),
        (counts, ["size B is symbolic", "range", "integer in the spec"], "a range"),
        (compares, ["size B is symbolic", "B > 3"], "a size"),
        (leaves, ["array of a tensor", 'f32["B"]', "return it"], "an array"),
    ],
)
def test_python_control_flow_on_a_symbolic_value(function, words, line):
    assert_explains(lambda: tn.compile(function, tn.spec("B")), tn.TraceError, words, line)


# --- what is not supported ----------------------------------------------------------------------------------


def test_an_op_that_no_kernel_runs(monkeypatch):
    """The reference runs any op; the CPU names the one that has neither a kernel nor a decomposition."""
    median = Op("median", "composite", ("x",), lambda x: TensorType((), x.dtype), np.median)
    monkeypatch.setitem(op._OPS, "median", median)

    def centre(x):
        return x - call("median", x)  # the median

    exe = tn.compile(centre, tn.spec(3, dtype="f64"), target="reference")
    assert exe(np.array([1.0, 7.0, 3.0])).tolist() == [-2, 4, 0]
    words = ["the backend cpu has no kernel for median of f64", "no decomposition"]
    assert_explains(lambda: tn.compile(centre, tn.spec(3, dtype="f64")), tn.UnsupportedError, words, "the median")


def test_a_dtype_that_an_op_does_not_take():
    def convolve(x, w):
        return F.conv2d(x, w)  # the convolution

    specs = tn.spec("B", 1, 8, 8, dtype="i32"), tn.spec(1, 1, 3, 3, dtype="i32")
    words = ["conv2d takes floating point tensors", "not i32"]
    assert_explains(lambda: tn.compile(convolve, *specs), tn.DTypeError, words, "the convolution")


def test_a_dtype_that_does_not_exist():
    def make():
        return tn.spec(3, dtype="complex64")  # the spec

    assert_explains(make, tn.DTypeError, ["no dtype 'complex64'", "expected one of bool, i8", "f32"], "the spec")


def test_changing_a_tensor_in_place():
    def change(x):
        x[0] = 1  # the assignment
        return x

    words = ["cannot be changed in place", "tn.where"]
    assert_explains(lambda: tn.compile(change, tn.spec(3)), tn.UnsupportedError, words, "the assignment")


def test_backward():
    def train(x):
        x.sum().backward()  # the backward call
        return x

    words = ["optimizer.minimize(loss)", "tn.grad"]
    assert_explains(lambda: tn.compile(train, tn.spec(3)), tn.UnsupportedError, words, "the backward call")


# --- shapes inside a model ----------------------------------------------------------------------------------


def test_a_layer_of_the_wrong_size():
    words = ["matmul: (B, 48) and (40, 5) do not fit", "(48)", "(40)"]
    assert_explains(lambda: tn.compile(Net(40), IMAGE), tn.ShapeError, words, "the dense layer")


def test_shapes_that_do_not_broadcast():
    def add(x, y):
        return x + y  # the sum

    words = ["(B, 3) and (4,) do not broadcast", "3 against 4"]
    assert_explains(lambda: tn.compile(add, tn.spec("B", 3), tn.spec(4)), tn.ShapeError, words, "the sum")


def test_an_assumption_about_a_size_is_checked_when_it_is_known():
    def halve(x):
        return x.view(2, -1).sum(0)  # the view

    exe = tn.compile(halve, tn.spec("B"))
    assert exe(np.arange(6, dtype=np.float32)).tolist() == [3, 5, 7]
    words = ["(B,) cannot be reshaped to (2, ", "B=5"]
    assert_explains(lambda: exe(np.zeros(5, np.float32)), tn.ShapeError, words, "the view")


# --- weights ------------------------------------------------------------------------------------------------


def test_a_state_dict_of_another_model():
    model = Net()
    before = model.state_dict()
    given = {
        "conv.weight": before["conv.weight"] + 1,
        "conv.bias": np.zeros(4, np.float32),
        "fc.weight": np.zeros((5, 48), np.complex64),
        "fc2.bias": np.zeros(5, np.float32),
    }

    def load():
        model.load_state_dict(given)  # the load

    words = [
        "does not fit Net, and nothing was loaded", "missing: fc.bias", "unexpected: fc2.bias",
        "conv.bias: shape (4,) was given, (3,) expected", "fc.weight: dtype complex64 was given, f32 expected",
    ]  # fmt: skip
    assert_explains(load, tn.StateError, words, "the load")
    for name, array in model.state_dict().items():
        assert array.tobytes() == before[name].tobytes()

"""Recurrent layers: one op for all steps whatever their number, the same on any number of threads, and clear errors."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tenon as tn
from engine import graph
from engine.dtypes import as_dtype
from engine.errors import DTypeError, IndexRangeError, ShapeError, TenonError, UnsupportedError
from frontend.dispatch import call
from passes.simplify import simplify
from tenon import F, nn, optim

INPUT, HIDDEN = 3, 5


def sequence(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class Reader(nn.Module):
    """The last state of an LSTM, classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(INPUT, HIDDEN, 2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * HIDDEN, 2)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


def trained(*sizes: object, model: nn.Module | None = None) -> tn.functions.Function:
    model = Reader() if model is None else model
    adam = optim.Adam(model.parameters())
    return tn.train_step(model, F.cross_entropy, adam, specs=[tn.spec(*sizes, INPUT), tn.spec(sizes[0], dtype="i64")])


@pytest.mark.slow
def test_a_symbolic_length_is_compiled_once():
    step = trained("B", "T")
    short = float(step(sequence(4, 28, INPUT), np.array([0, 1, 1, 0])))
    kernels = {k.key for k in step.executable.stages["program"].kernels}
    long = float(step(sequence(2, 2800, INPUT), np.array([0, 1])))
    assert np.isfinite([short, long]).all()
    assert step.executable.compile_count == 1
    assert {k.key for k in step.executable.stages["program"].kernels} == kernels


@pytest.mark.slow
def test_the_graph_does_not_grow_with_the_length():
    graphs = {}
    for steps in (28, 2800):
        exe = tn.compile(Reader().eval(), tn.spec(4, steps, INPUT))
        exe(sequence(4, steps, INPUT))
        stages = exe.stages
        graphs[steps] = (
            len(stages["trace"].nodes),
            len(stages["fuse"].nodes),
            {k.key for k in stages["program"].kernels},
        )
    assert graphs[28] == graphs[2800]


@pytest.mark.slow
def test_results_are_bit_equal_on_any_number_of_threads(monkeypatch):
    def run(threads: str) -> list[np.ndarray]:
        monkeypatch.setenv("TENON_THREADS", threads)
        tn.seed(0)
        model = Reader()
        step = trained("B", "T", model=model)
        for seed in range(3):
            step(sequence(41, 7, INPUT, seed=seed), np.arange(41) % 2)
        return list(model.state_dict().values())

    for one, two in zip(run("1"), run("2"), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("kind", "hidden"), [("LSTM", 128), ("GRU", 128), ("RNN", 256)])
def test_few_examples_share_out_the_hidden_units(monkeypatch, kind, hidden):
    """Weights of this size are divided among the threads for up to 16 examples, which changes no bit of any."""
    layer = getattr(nn, kind)(INPUT, hidden)
    inputs = tn.spec("T", "B", INPUT), tn.spec("B", dtype="i64")
    exe = tn.compile(lambda x, lengths: layer(x, lengths=lengths), *inputs)
    x, lengths = sequence(5, 20, INPUT), np.arange(20) % 5 + 1
    found = {}
    for threads, threading in (("1", "openmp"), ("2", "openmp"), ("3", "openmp"), ("2", "python")):
        monkeypatch.setenv("TENON_THREADS", threads)
        monkeypatch.setenv("TENON_THREADING", threading)
        exe.reload()
        for batch in (1, 3, 16, 20):
            out, state = exe(x[:, :batch].copy(), lengths[:batch])
            last = state[0] if kind == "LSTM" else state
            found[threads, threading, batch] = np.concatenate([out[:, :1], last[:, :1]])
    first = found["1", "openmp", 20]
    assert all(np.array_equal(f, first) for f in found.values())
    expected = tn.compile(lambda x, lengths: layer(x, lengths=lengths), *inputs, target="reference")(x, lengths)
    np.testing.assert_allclose(exe(x, lengths)[0], expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(exe(x[:, :3].copy(), lengths[:3])[0], expected[0][:, :3], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rnn_tanh", "lstm", "gru"])
def test_every_number_of_examples_and_units(name):
    """The microkernel's remainders, against the reference."""
    gates = {"rnn_tanh": 1, "lstm": 4, "gru": 3}[name]
    for units in (7, 33):
        specs = [tn.spec("T", "B", gates * units), tn.spec(gates * units, units), tn.spec(gates * units)]

        def loss(x, weight, bias, name=name):
            more = (bias,) if name == "gru" else ()
            found = call(name, x, weight, *more, given="bias" if more else "")
            return (found[0] * found[0]).sum() + found[1].sum() + bias.sum()

        both = [tn.compile(tn.grad(loss, (0, 1, 2)), *specs, target=t) for t in ("cpu", "reference")]
        for batch in (0, 1, 2, 3, 4, 5, 8, 11, 33, 45):
            arrays = [sequence(3, batch, gates * units), sequence(gates * units, units) * 0.3, sequence(gates * units)]
            for found, expected in zip(*(exe(*arrays) for exe in both), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=f"{batch} examples")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_floats_that_are_only_stored(dtype):
    model = nn.LSTM(INPUT, HIDDEN, dtype=dtype)

    def loss(x):
        return model(x)[0].float().square().sum()

    x = sequence(4, 3, INPUT).astype(as_dtype(dtype).numpy)
    found, expected = (tn.compile(tn.grad(loss), tn.spec(4, 3, INPUT, dtype=dtype), target=t)(x)
                       for t in ("cpu", "reference"))  # fmt: skip
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=0.1, atol=0.01)


@pytest.mark.slow
def test_dropout_between_layers_is_the_same_everywhere(monkeypatch):
    model = nn.LSTM(INPUT, HIDDEN, 3, dropout=0.5)

    def loss(x):
        return (model(x)[0] ** 2).sum()

    def slope(**options):
        tn.seed(3)
        return tn.compile(tn.grad(loss), tn.spec("T", 2, INPUT), **options)(sequence(6, 2, INPUT))

    expected = slope(target="reference")
    assert np.abs(expected - slope(target="reference")).max() == 0
    for options in ({"level": 0}, {"level": 2}):
        for threads in ("1", "2"):
            monkeypatch.setenv("TENON_THREADS", threads)
            np.testing.assert_allclose(slope(**options), expected, rtol=1e-4, atol=1e-6)


def test_dropout_acts_in_training_only():
    model = nn.GRU(INPUT, HIDDEN, 2, dropout=1.0)
    x = sequence(4, 2, INPUT)
    drawn = model.train()(x)[0].numpy()
    constant = model.train()(x * 2)[0].numpy()
    np.testing.assert_array_equal(drawn, constant)  # nothing of the first layer gets through
    assert np.abs(model.eval()(x)[0].numpy() - drawn).max() > 1e-3


def test_zeros_to_start_from_are_nothing():
    model = nn.LSTM(INPUT, HIDDEN, 2)

    def loss(x):
        zeros = tn.zeros(2, x.shape[1], HIDDEN)
        return model(x, (zeros, zeros))[0].sum()

    trace = tn.compile(tn.grad(loss), tn.spec("T", "B", INPUT), target="reference").stages["trace"]
    assert [n.attrs["given"] for n in simplify(trace).nodes if n.op.name == "lstm"] == ["", ""]


def test_what_lies_behind_a_length_does_not_matter():
    model = nn.GRU(INPUT, HIDDEN, bidirectional=True)
    x, lengths = sequence(5, 2, INPUT), np.array([2, 5])

    def run(x):
        def everything(x):
            out, last = model(x, lengths=lengths)
            weight = model.weight_ih_l0.value()
            slopes = graph.apply("grad", (out.square().sum() + last.sum()).value(), x.value(), weight)
            return out, last, *map(tn.Tensor.of, slopes)

        return tn.compile(everything, tn.spec(*x.shape), target="reference")(x)

    expected = run(x)
    x[2:, 0] = np.nan
    for found, before in zip(run(x), expected, strict=True):
        np.testing.assert_array_equal(found, before)
    assert (expected[0][2:, 0] == 0).all()


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([2, 0], r"length 0 is out of range: expected 1 <= length < 6"),
        ([6, 5], r"length 6 is out of range: expected 1 <= length < 6"),
        ([-1, 5], r"length -1 is out of range"),
    ],
)
def test_lengths_out_of_range(lengths, message):
    with pytest.raises(IndexRangeError, match=message):
        nn.LSTM(INPUT, HIDDEN)(sequence(5, 2, INPUT), lengths=np.array(lengths))


@pytest.mark.slow
def test_lengths_out_of_range_in_a_compiled_program():
    model = nn.LSTM(INPUT, HIDDEN)
    exe = tn.compile(lambda x, n: model(x, lengths=n)[0], tn.spec("T", "B", INPUT), tn.spec("B", dtype="i64"))
    x = sequence(5, 2, INPUT)
    exe(x, np.array([5, 1]))
    for bad in (0, 6):
        with pytest.raises(IndexRangeError, match=f"length {bad} is out of range: expected 1 <= length < "):
            exe(x, np.array([5, bad]))


X = sequence(5, 2, INPUT)
BAD_CALLS = [
    (lambda: nn.LSTM(INPUT, HIDDEN)(X, lengths=np.array([5, 1, 1])), ShapeError, r"lengths has shape \(3,\), \(2,\)"),
    (lambda: nn.LSTM(INPUT, HIDDEN)(X, lengths=np.array([1.0, 2.0])), DTypeError, "lengths are integers, not f64"),
    (lambda: nn.LSTM(INPUT, HIDDEN)(X[:, 0], lengths=np.array([1])), ShapeError, "lengths are for a batch"),
    (lambda: nn.LSTM(INPUT, HIDDEN)(sequence(5, 2, 4)), ShapeError, "the last axis is input_size 3, not 4"),
    (lambda: nn.LSTM(INPUT, HIDDEN)(sequence(3)), ShapeError, r"3 axes, or 2 for one example, not \(3,\)"),
    (lambda: nn.LSTM(INPUT, HIDDEN)(X.astype(np.float64)), DTypeError, "the parameters are f32, the input is f64"),
    (lambda: nn.LSTM(INPUT, HIDDEN)(X[:0]), ShapeError, "a sequence of 0 steps"),
    (lambda: nn.LSTM(INPUT, HIDDEN)(X, sequence(1, 2, HIDDEN)), ShapeError, r"a pair \(h_0, c_0\)"),
    (lambda: nn.GRU(INPUT, HIDDEN, 2)(X, sequence(1, 2, HIDDEN)), ShapeError, r"shape \(1, 2, 5\), \(2, 2, 5\)"),
    (lambda: nn.GRU(INPUT, HIDDEN)(X, sequence(1, 3, HIDDEN)), ShapeError, r"h_0 has shape \(1, 3, 5\), \(1, 2, 5\)"),
    (lambda: nn.LSTM(INPUT, HIDDEN, proj_size=5), ShapeError, "less than hidden_size 5"),
    (lambda: nn.RNN(INPUT, HIDDEN, nonlinearity="gelu"), TenonError, "'tanh' or 'relu', not 'gelu'"),
    (lambda: nn.RNN(INPUT, 0), ShapeError, "hidden_size must be a positive integer, not 0"),
    (lambda: nn.LSTM(INPUT, HIDDEN, dropout=1.5), TenonError, "a probability from 0 to 1, not 1.5"),
    (lambda: nn.LSTMCell(INPUT, HIDDEN)(X[0], X[0]), ShapeError, r"a pair \(h, c\)"),
    (lambda: nn.GRUCell(INPUT, HIDDEN)(X[0], sequence(2, 4)), ShapeError, r"the state has shape \(2, 4\), \(N, 5\)"),
    (lambda: nn.RNNCell(INPUT, HIDDEN)(X), ShapeError, r"the input has shape \(5, 2, 3\)"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "error", "message"), BAD_CALLS)
def test_what_is_wrong_is_said(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()


def test_dropout_of_a_single_layer_is_warned_of():
    with pytest.warns(UserWarning, match=re.escape("LSTM: dropout acts between layers, and there is only one")):
        nn.LSTM(INPUT, HIDDEN, dropout=0.5)


def test_a_second_gradient_needs_a_known_length():
    model = nn.GRU(INPUT, HIDDEN)

    def penalty(x):
        return (tn.grad(lambda x: model(x)[0].sum())(x) ** 2).sum()

    tn.compile(tn.grad(penalty), tn.spec(2, 1, INPUT), target="reference")(sequence(2, 1, INPUT))
    with pytest.raises(UnsupportedError, match="the second gradient of gru needs a known number of steps, not T"):
        tn.compile(tn.grad(penalty), tn.spec("T", 1, INPUT), target="reference")(sequence(2, 1, INPUT))

"""tn.compile, tn.function, tn.train_step and gradients, as a user calls them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn, optim

TARGETS = ("reference", "cpu")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(4, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


# --- compile -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_one_program_serves_every_batch_size(target):
    model = Net()
    exe = tn.compile(model, tn.spec("B", 4), target=target)
    w1, b1, w2, b2 = (p.numpy() for p in model.parameters())
    for batch in (1, 7, 64, 0, 7):
        x = rows(batch)
        np.testing.assert_allclose(exe(x), np.maximum(x @ w1.T + b1, 0) @ w2.T + b2, rtol=1e-5, atol=1e-6)
    assert exe.compile_count == 1
    if target == "cpu":
        assert exe.counters["calls"] == 5
        assert exe.counters["bindings"] == 4


class Pair(NamedTuple):
    low: object
    high: object


def test_outputs_keep_the_nest_that_was_returned():
    def f(x):
        return {"pair": Pair(x - 1, x + 1), "list": [x, (x * 2,)], "none": None}

    got = tn.compile(f, tn.spec(2), target="reference")(np.array([1, 2], np.float32))
    assert type(got["pair"]) is Pair and type(got["list"]) is list and type(got["list"][1]) is tuple
    assert got["none"] is None
    assert got["pair"].high.tolist() == [2, 3]
    assert got["list"][1][0].tolist() == [2, 4]


@pytest.mark.parametrize("target", TARGETS)
def test_out_is_filled_and_returned(target):
    exe = tn.compile(lambda x: (x + 1, x * 2), tn.spec(3), target=target)
    out = (np.zeros(3, np.float32), np.zeros(3, np.float32))
    got = exe(np.arange(3, dtype=np.float32), out=out)
    assert got[0] is out[0] and got[1] is out[1]
    assert out[0].tolist() == [1, 2, 3] and out[1].tolist() == [0, 2, 4]


def test_outputs_are_fresh():
    exe = tn.compile(lambda x: x, tn.spec(2))
    x = np.ones(2, np.float32)
    first = exe(x)
    x[:] = 5
    assert first.tolist() == [1, 1]
    assert exe(x).tolist() == [5, 5]


def test_inputs_go_by_place_or_by_name():
    exe = tn.compile(lambda a, b: a - b, tn.spec(), tn.spec(), target="reference")
    one, two = np.float32(1), np.float32(2)
    assert exe(one, two) == exe(one, b=two) == exe(b=two, a=one) == -1
    with pytest.raises(tn.TenonError, match="'a' of .* both by place and by name"):
        exe(one, a=two)


def test_a_module_is_traced_in_its_mode():
    model = nn.Sequential(nn.Dropout(0.5), nn.Identity())
    x = np.ones((64, 4), np.float32)
    training = tn.compile(model, tn.spec("B", 4), target="reference")
    model.eval()
    evaluation = tn.compile(model, tn.spec("B", 4), target="reference")
    assert set(np.unique(training(x))) == {0.0, 2.0}
    assert (evaluation(x) == x).all()


@pytest.mark.parametrize("target", TARGETS)
def test_dropout_draws_anew_each_call_and_repeats_with_the_seed(target):
    exe = tn.compile(lambda x: F.dropout(x, 0.5, training=True), tn.spec(64), target=target)
    x = np.ones(64, np.float32)
    tn.seed(3)
    first, second = exe(x), exe(x)
    tn.seed(3)
    assert (first != second).any()
    assert (exe(x) == first).all()


@pytest.mark.parametrize("level", (0, 1, 2, 3))
def test_levels_agree(level):
    model = Net()
    x = rows(9)
    expected = tn.compile(model, tn.spec("B", 4), target="reference")(x)
    got = tn.compile(model, tn.spec("B", 4), level=level)(x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_an_executable_tells_what_it_is():
    exe = tn.compile(Net(), tn.spec("B", 4), name="classify")
    assert repr(exe) == '<Executable classify(x: f32["B", 4]) on cpu, level 2>'
    assert "def classify(" in str(exe.graph)
    report = exe.report
    assert report.nodes == len(exe.graph.nodes) == 7
    assert 0 < report.kernels <= report.nodes
    assert report.compiled + report.loaded + report.shared >= 1
    assert "7 nodes" in str(report)


# --- state -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_a_training_step_updates_the_model_that_other_programs_read(target):
    model = nn.Linear(3, 1)
    predict = tn.compile(model, tn.spec("B", 3), target=target)
    step = tn.train_step(
        model,
        F.mse_loss,
        optim.SGD(model.parameters(), lr=0.1),
        [tn.spec("B", 3), tn.spec("B", 1)],
        target=target,
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(8, 1)).astype(np.float32)
    for _ in range(3):
        w, b = model.weight.numpy().astype(np.float64), model.bias.numpy().astype(np.float64)
        error = x @ w.T + b - y
        assert step(x, y) == pytest.approx((error**2).mean(), rel=1e-5)
        np.testing.assert_allclose(model.weight.numpy(), w - 0.1 * 2 * error.T @ x / 8, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(model.bias.numpy(), b - 0.1 * 2 * error.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(predict(x), x @ model.weight.numpy().T + model.bias.numpy(), rtol=1e-5, atol=1e-6)
    assert model.training


def test_a_function_takes_its_specs_from_the_annotations_or_the_decorator():
    @tn.function
    def double(x: tn.spec(2)):
        return 2 * x

    @tn.function(specs=[tn.spec("N")], target="reference")
    def triple(x):
        return 3 * x

    assert "not compiled yet" in repr(double)
    assert double(np.ones(2, np.float32)).tolist() == [2, 2]
    assert triple(x=np.ones(3, np.float32)).tolist() == [3, 3, 3]
    assert triple.__name__ == "triple" and triple.executable.name == "triple"


def test_a_function_called_in_a_trace_becomes_part_of_it():
    @tn.function
    def inner(x: tn.spec(2)):
        return x + 1

    exe = tn.compile(lambda x: inner(x) * 2, tn.spec(2), target="reference")
    assert exe(np.zeros(2, np.float32)).tolist() == [2, 2]


def test_a_bad_label_leaves_the_model_as_it_was():
    model = Net()
    step = tn.train_step(
        model, F.cross_entropy, optim.SGD(model.parameters(), lr=1.0), [tn.spec("B", 4), tn.spec("B", dtype="i64")]
    )
    before = [np.array(p.numpy()) for p in model.parameters()]
    with pytest.raises(tn.IndexRangeError, match="3"):
        step(rows(2), np.array([0, 3]))
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert (parameter.numpy() == old).all()
    step(rows(2), np.array([0, 2]))


# --- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_gradients_nest(target):
    def f(x):
        return (x**3).sum()

    x = np.array([1, 2, 3], np.float32)
    first = tn.compile(tn.grad(f), tn.spec(3), target=target)
    second = tn.compile(tn.grad(lambda x: tn.grad(f)(x).sum()), tn.spec(3), target=target)
    np.testing.assert_allclose(first(x), 3 * x**2, rtol=1e-5)
    np.testing.assert_allclose(second(x), 6 * x, rtol=1e-5)


def test_value_and_grad_of_several_arguments():
    def f(a, b):
        return (a * b).sum()

    exe = tn.compile(tn.value_and_grad(f, (0, 1)), tn.spec(2), tn.spec(2), target="reference")
    value, (da, db) = exe(np.array([1, 2], np.float32), np.array([3, 4], np.float32))
    assert value == 11
    assert da.tolist() == [3, 4] and db.tolist() == [1, 2]


def test_a_gradient_is_that_of_its_own_use():
    def f(x):
        return tn.grad(lambda z: (z * x).sum())(x)  # z and x are the same tensor, and only z is differentiated

    assert tn.compile(f, tn.spec(2), target="reference")(np.array([3, 4], np.float32)).tolist() == [3, 4]


# --- looking inside ----------------------------------------------------------------------------------------


def test_memory_is_known_before_anything_runs():
    exe = tn.compile(Net(), tn.spec("B", 4))
    small, large = exe.memory(B=1), exe.memory(B=100)
    assert small.state == large.state == 4 * (4 * 8 + 8 + 8 * 3 + 3)
    assert large.inputs == 100 * 4 * 4 and large.outputs == 100 * 3 * 4
    assert small.arena < large.arena
    assert large.total == sum(getattr(large, n) for n in large.__dataclass_fields__)
    assert "arena" in str(large)
    assert exe.counters["calls"] == 0


def test_threads_do_not_change_results(monkeypatch):
    monkeypatch.setenv("TENON_THREADS", "1")
    exe = tn.compile(Net(), tn.spec("B", 4))
    x = rows(33)
    expected = exe(x)
    origin = (exe.report.compiled, exe.report.loaded, exe.report.shared)
    tn.set_num_threads(3)
    assert (exe.report.compiled, exe.report.loaded, exe.report.shared) == origin
    assert tn.get_num_threads() == 3
    assert (exe(x) == expected).all()
    assert exe.compile_count == 1
    with pytest.raises(tn.TenonError, match="at least 1"):
        tn.set_num_threads(0)


def test_devices_name_the_processor():
    (cpu,) = tn.devices()
    assert cpu.target == "cpu" and cpu.threads >= 1 and cpu.processor in str(cpu)


# --- errors ------------------------------------------------------------------------------------------------


def _branch(x):
    return x if x.sum() > 0 else -x


def _count(x):
    return sum(x[i] for i in range(x.shape[0]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tn.compile(3), tn.TenonError, "takes a Module or a function of Tensors, not int 3"),
        (
            lambda: tn.compile(abs, tn.spec(2), target="tpu"),
            tn.UnsupportedError,
            "no target 'tpu'; expected one of 'cpu'",
        ),
        (lambda: tn.compile(abs, tn.spec(2), level=7), tn.TenonError, "level is 7; expected one of 0, 1, 2"),
        (lambda: tn.compile(abs, 3), tn.TenonError, "got int 3 where a spec was expected"),
        (lambda: tn.compile(Net()), tn.TenonError, r"Net\(x\) was given 0 specs"),
        (lambda: tn.compile(lambda x: 1.5, tn.spec()), tn.TraceError, "returned float 1.5; a traced function returns"),
        (lambda: tn.compile(lambda x: [x, "y"], tn.spec()), tn.TraceError, r"returned str 'y' at \[1\]"),
        (lambda: tn.compile(_branch, tn.spec(2)), tn.TraceError, "control flow"),
        (lambda: tn.compile(_count, tn.spec("B")), tn.TraceError, "B is symbolic"),
        (lambda: tn.spec("B", 1.5), tn.ShapeError, "float 1.5; an integer or a dim's name"),
        (lambda: tn.spec("B/2"), tn.ShapeError, "size is 'B/2'"),
        (lambda: tn.spec(-1), tn.ShapeError, "size is -1"),
        (lambda: tn.spec(2, dtype="f12"), tn.DTypeError, "no dtype 'f12'"),
        (lambda: tn.grad(abs)(np.ones(2)), tn.TraceError, "the gradient of abs needs a traced program"),
        (lambda: tn.grad(abs, "x"), tn.TenonError, "argnums is 'x'"),
        (lambda: tn.compile(tn.grad(abs, 2), tn.spec()), tn.TenonError, "argument 2 of abs, which was called with 1"),
        (lambda: tn.compile(tn.grad(abs), tn.spec(3)), tn.ShapeError, "of a scalar, not of a tensor of shape"),
        (lambda: tn.compile(tn.grad(lambda x: 1), tn.spec(3)), tn.TraceError, "returned int 1"),
        (lambda: tn.train_step(None, None, None, [tn.spec(2)]), tn.TenonError, "and got 1"),
    ],
)
def test_misuse_is_explained(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_function_without_specs_is_explained():
    @tn.function
    def f(x, y: int):
        return x

    with pytest.raises(tn.TenonError, match="argument 'x' of f has no annotation; a spec was expected"):
        f(np.ones(2))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ([np.ones((2, 5), np.float32)], tn.ShapeError, r"\(2, 5\).*\(B, 4\)"),
        ([np.ones(4, np.float32)], tn.ShapeError, r"\(4,\).*\(B, 4\)"),
        ([np.ones((2, 4), np.complex64)], tn.DTypeError, "complex64"),
        ([], tn.TenonError, "x"),
        ([rows(1), rows(1)], tn.TenonError, "2"),
    ],
)
def test_arrays_that_do_not_fit_are_explained(target, arrays, error, message):
    exe = tn.compile(Net(), tn.spec("B", 4), target=target)
    with pytest.raises(error, match=message):
        exe(*arrays)


def test_sizes_for_memory_are_checked():
    exe = tn.compile(Net(), tn.spec("B", 4))
    with pytest.raises(tn.ShapeError, match=r"needs the size of B: memory\(B=64\)"):
        exe.memory()
    with pytest.raises(tn.ShapeError, match="no dim 'N'; its dims are: B"):
        exe.memory(B=1, N=2)
    with pytest.raises(tn.UnsupportedError, match="not planned|no program"):
        tn.compile(Net(), tn.spec("B", 4), target="reference").memory(B=1)

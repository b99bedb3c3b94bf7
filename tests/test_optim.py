"""Optimizers, traced and run on the reference, against PyTorch step by step; groups, state, and messages."""

from __future__ import annotations

import numpy as np
import pytest
from frontend_tools import Traced, close, traced
from graph_tools import tensor

from engine.errors import ShapeError, StateError, TenonError, TraceError
from frontend import functional as F
from frontend import nn, optim
from frontend.nn import init

rng = np.random.default_rng(0)
X = rng.normal(size=(8, 5)).astype(np.float32)
Y = rng.integers(0, 3, 8)


def mlp(nn, dtype=None):
    kind = {} if dtype is None else {"dtype": dtype}
    return nn.Sequential(nn.Linear(5, 4, **kind), nn.Tanh(), nn.Linear(4, 3, **kind))


def training(model, optimizer, dtype="f32"):
    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    return Traced(step, tensor("B", 5, dtype=dtype), tensor("B", dtype="i64"), name="step")


OPTIMIZERS = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "SGD dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "SGD nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "SGD maximize": ("SGD", {"lr": 0.01, "maximize": True}),
    "Adam": ("Adam", {"lr": 0.01}),
    "Adam decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}),
    "Adam amsgrad": ("Adam", {"lr": 0.05, "amsgrad": True, "betas": (0.8, 0.5)}),
    "Adam no memory": ("Adam", {"lr": 0.01, "betas": (0.0, 0.999), "maximize": True}),
    "AdamW": ("AdamW", {"lr": 0.01, "weight_decay": 0.3}),
    "AdamW amsgrad": ("AdamW", {"lr": 0.01, "amsgrad": True, "maximize": True}),
    "Adamax": ("Adamax", {"lr": 0.01, "weight_decay": 0.1}),
    "NAdam": ("NAdam", {"lr": 0.01, "weight_decay": 0.1}),
    "NAdam decoupled": ("NAdam", {"momentum_decay": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "RMSprop": ("RMSprop", {"lr": 0.01, "weight_decay": 0.1}),
    "RMSprop centered": ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True, "eps": 1e-3}),
    "Adagrad": ("Adagrad", {"lr": 0.1, "weight_decay": 0.1}),
    "Adagrad decay": ("Adagrad", {"lr": 0.1, "lr_decay": 0.3, "initial_accumulator_value": 0.2, "maximize": True}),
    "Adadelta": ("Adadelta", {"lr": 0.7, "rho": 0.8, "weight_decay": 0.1}),
}


COUNTS_FOR_NOTHING = ("RMSprop", "Adadelta")
"""PyTorch keeps a step counter for these that nothing reads."""


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_steps_as_pytorch(name, dtype):
    torch = pytest.importorskip("torch")
    kind, options = OPTIMIZERS[name]
    theirs = mlp(torch.nn, torch.float32 if dtype == "f32" else torch.float64)
    ours = mlp(nn, dtype)
    ours.load_state_dict(theirs.state_dict())
    optimizer = getattr(optim, kind)(ours.parameters(), **options)
    step = training(ours, optimizer, dtype)
    other = getattr(torch.optim, kind)(theirs.parameters(), **options)
    x = X.astype(dtype.replace("f", "float"))
    # PyTorch keeps NAdam's product of momenta in f32, also for f64 parameters.
    tolerance = 2e-5 if dtype == "f32" else 1e-6 if kind == "NAdam" else 1e-11
    for _ in range(10):
        other.zero_grad()
        expected = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(Y))
        expected.backward()
        other.step()
        close(step(x, Y), expected.detach().numpy(), tolerance)
    for k, v in theirs.state_dict().items():
        close(ours.state_dict()[k], v.numpy(), 10 * tolerance)
    state = optimizer.state_dict()
    for i, p in enumerate(other.param_groups[0]["params"]):
        for k, v in other.state[p].items():
            if v is not None and not (k == "step" and kind in COUNTS_FOR_NOTHING):
                close(state[f"{k}.{i}"], v.numpy(), 10 * tolerance)


def test_the_learning_rate_changes_without_tracing_again():
    model = mlp(nn)
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    step = training(model, optimizer)
    first = step(X, Y)
    assert step(X, Y) == first
    optimizer.lr = 0.5
    assert optimizer.param_groups[0]["lr"] == 0.5
    step(X, Y)
    assert step(X, Y) < first
    optimizer.param_groups[0]["lr"] = 0.0
    assert step(X, Y) == step(X, Y)


def test_the_lr_that_was_given_is_the_lr_that_is_read():
    assert optim.Adam(mlp(nn).parameters()).lr == 1e-3


def test_state_has_names_to_recognise():
    model = mlp(nn)
    step = training(model, optim.Adam(model.parameters()))
    weights = ["0.weight", "0.bias", "2.weight", "2.bias"]
    moments = {f"adam.{m}.{w}" for m in ("exp_avg", "exp_avg_sq") for w in weights}
    assert set(step.trace.cells) == {*weights, *moments, "adam.lr", "adam.step"}
    assert set(step.graph.updates) == {*weights, *moments, "adam.step"}


def test_parameter_groups():
    model = mlp(nn)
    head = model[2]
    groups = [{"params": model[0].parameters()}, {"params": head.parameters(), "lr": 0.0, "momentum": 0.0}]
    optimizer = optim.SGD(groups, lr=0.1, momentum=0.9)
    assert [dict(g)["momentum"] for g in optimizer.param_groups] == [0.9, 0.0]
    assert repr(optimizer.param_groups[1]).startswith("ParameterGroup(2 parameters, lr=0.0, momentum=0.0")
    before = model.state_dict()
    step = training(model, optimizer)
    step(X, Y)
    after = model.state_dict()
    assert [np.array_equal(before[k], after[k]) for k in before] == [False, False, True, True]
    assert {"sgd.lr.0", "sgd.lr.1"} <= set(step.trace.cells)
    with pytest.raises(TenonError, match=r"different learning rates \[0.0, 0.1\]"):
        _ = optimizer.lr
    with pytest.raises(TenonError, match="'momentum' is a constant of the training step"):
        optimizer.param_groups[0]["momentum"] = 0.5
    with pytest.raises(TenonError, match="no option 'beta'"):
        optimizer.param_groups[0]["beta"] = 0.5
    with pytest.raises(TenonError, match="at least 0, not -1"):
        optimizer.lr = -1


def test_frozen_and_unused_parameters_stay():
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3))
    unused = nn.Linear(7, 7)
    model[0].requires_grad_(False)
    optimizer = optim.Adam([*model.parameters(), *unused.parameters()], lr=0.1, weight_decay=0.1)
    before, idle = model.state_dict(), unused.state_dict()
    step = training(model, optimizer)
    step(X, Y)
    changed = [not np.array_equal(before[k], v) for k, v in model.state_dict().items()]
    assert changed == [False, False, True, True]
    np.testing.assert_array_equal(unused.weight.numpy(), idle["weight"])
    assert sorted(optimizer.state_dict()) == sorted(
        ["lr.0", *(f"{k}.{i}" for i in (2, 3) for k in ("exp_avg", "exp_avg_sq", "step"))]
    )
    step(X, Y)
    model[0].requires_grad_(True)  # joins at its own step 0, in a new trace
    training(model, optimizer)(X, Y)
    steps = [int(optimizer.state_dict()[f"step.{i}"]) for i in range(4)]
    assert steps == [1, 1, 3, 3]


def test_resuming_from_saved_state_is_exact():
    def start():
        model = mlp(nn)
        for i, p in enumerate(model.parameters()):
            p.data = np.linspace(-1, 1, p.numel()).reshape(p.shape) * (i + 1) / 3
        return model, optim.Adam(model.parameters(), lr=0.05)

    model, optimizer = start()
    step = training(model, optimizer)
    for _ in range(3):
        step(X, Y)
    saved, moments = model.state_dict(), optimizer.state_dict()
    straight = [step(X, Y) for _ in range(3)]

    resumed, other = start()
    other.lr = 7.0
    resumed.load_state_dict(saved)
    other.load_state_dict(moments)  # before its step is traced ...
    again = training(resumed, other)
    assert len({id(s["step"]) for s in other.state.values()}) == 1
    assert [again(X, Y) for _ in range(3)] == straight
    resumed.load_state_dict(saved)
    other.load_state_dict(moments)  # ... and after
    assert [again(X, Y) for _ in range(3)] == straight


def test_loading_state_is_all_or_nothing():
    model = mlp(nn)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    training(model, optimizer)(X, Y)
    state = optimizer.state_dict()
    bad = {k: v for k, v in state.items() if k != "momentum_buffer.1"} | {"exp_avg.0": np.zeros(1), "lr.0": np.ones(())}
    bad["momentum_buffer.0"] = np.zeros((2, 2))
    with pytest.raises(StateError) as caught:
        optimizer.load_state_dict(bad)
    for words in (
        "does not fit this SGD, and nothing was loaded",
        "missing: momentum_buffer.1",
        "unexpected: exp_avg.0",
        "momentum_buffer.0: shape (2, 2) was given, (4, 5) expected",
    ):
        assert words in str(caught.value)
    assert optimizer.lr == 0.1


def test_two_optimizers_in_one_step():
    """A GAN's step: the second loss sees what the first update made, and no gradient flows through that update."""
    a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    init.constant_(a.weight, 2.0)
    init.constant_(b.weight, 3.0)
    first, second = optim.SGD(a.parameters(), lr=0.1), optim.SGD(b.parameters(), lr=0.1)

    def step(x):
        loss = (a(b(x)) ** 2).sum()
        first.minimize(loss)
        other = a(b(x)).sum()
        second.minimize(other)
        return loss, other

    program = traced(step, (1, 1))
    program(np.ones((1, 1), np.float32))
    new_a = 2 - 0.1 * 2 * 6 * 3
    close(a.weight.numpy(), [[new_a]])
    close(b.weight.numpy(), [[3 - 0.1 * new_a]], 1e-5)
    assert {"sgd.lr", "sgd.lr_1"} <= set(program.trace.cells)


def test_two_steps_in_one_program():
    model = nn.Linear(1, 1, bias=False)
    init.constant_(model.weight, 1.0)
    optimizer = optim.SGD(model.parameters(), lr=0.25)

    def step(x):
        for _ in range(2):
            optimizer.minimize((model(x) ** 2).sum())

    traced(step, (1, 1))(np.ones((1, 1), np.float32))
    close(model.weight.numpy(), [[0.25]])


def test_a_loss_from_before_an_update_is_still_differentiated_there():
    model = nn.Linear(1, 1, bias=False)
    init.constant_(model.weight, 1.0)
    optimizer = optim.SGD(model.parameters(), lr=0.25)

    def step(x):
        one, two = (model(x) ** 2).sum(), (model(x) ** 3).sum()
        optimizer.minimize(one)
        optimizer.minimize(two)

    traced(step, (1, 1))(np.ones((1, 1), np.float32))
    close(model.weight.numpy(), [[1 - 0.25 * 2 - 0.25 * 3]])


def test_messages_while_tracing():
    model = mlp(nn)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TraceError, match=r"optimizer.minimize\(loss\) needs a traced program.*tn.function"):
        optimizer.minimize(model(X).sum())
    with pytest.raises(ShapeError, match=r"gradient is taken of a scalar, not of a tensor of shape \(B, 3\)"):
        traced(lambda x: optimizer.minimize(model(x)), ("B", 5))
    with pytest.raises(TenonError, match="depends on none of the 4 trainable parameters of this SGD"):
        traced(lambda x: optimizer.minimize(x.sum()), ("B", 5))
    with pytest.raises(TenonError, match="depends on none"):
        traced(lambda x: optimizer.minimize(model(x).detach().sum()), ("B", 5))

    def mixed(x):
        before = model(x).sum()
        optimizer.minimize(before)
        optimizer.minimize(before + model(x).sum())

    with pytest.raises(TraceError, match=r"\d\.(bias|weight) was updated between two uses"):
        traced(mixed, ("B", 5))


@pytest.mark.parametrize(
    ("error", "make", "words"),
    [
        (TenonError, lambda p: optim.SGD([], lr=0.1), "at least one parameter"),
        (TypeError, lambda p: optim.SGD(p[0], lr=0.1), "not one Parameter"),
        (TypeError, lambda p: optim.SGD([1.0], lr=0.1), "takes parameters, not float 1.0"),
        (TenonError, lambda p: optim.SGD([p[0], p[0]], lr=0.1), "given to the optimizer twice"),
        (TenonError, lambda p: optim.SGD(p, lr=-1), "learning rate is at least 0, not -1"),
        (TenonError, lambda p: optim.SGD(p, nesterov=True), "nesterov needs a momentum above 0"),
        (TenonError, lambda p: optim.SGD(p, momentum=-1), "momentum must be at least 0, not -1"),
        (TenonError, lambda p: optim.Adam(p, betas=(0.9, 1.0)), "betas must be at least 0 and below 1, not 1.0"),
        (TenonError, lambda p: optim.Adam([{"params": p, "momentum": 1}]), "Adam has no option 'momentum'"),
        (TypeError, lambda p: optim.Adam([{"lr": 1}]), 'dict with "params"'),
    ],
)
def test_messages(error, make, words):
    with pytest.raises(error, match=words):
        make(list(mlp(nn).parameters()))

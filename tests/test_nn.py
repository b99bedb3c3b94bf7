"""Modules: PyTorch's attributes, keys, initialisation and printing; state read by programs, and loading it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from frontend_tools import close, traced

from engine.errors import DTypeError, ShapeError, StateError, TenonError, TraceError, UnsupportedError
from frontend import nn, random
from frontend.nn import init
from frontend.nn.module import state_cells
from frontend.tensor import as_tensor


def cnn(nn):
    """The seed's model, smaller, written once for Tenon and for PyTorch."""

    class CNN(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 4, kernel_size=3, stride=1, padding=1)
            self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
            self.head = nn.Sequential(
                nn.Flatten(), nn.Linear(4 * 4 * 4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 10)
            )

        def forward(self, x):
            return self.head(self.pool(nn.functional.relu(self.conv1(x))))

    return CNN()


KEYS = ["conv1.weight", "conv1.bias", "head.1.weight", "head.1.bias", "head.4.weight", "head.4.bias"]


def test_keys_logits_and_printing_are_pytorchs():
    torch = pytest.importorskip("torch")
    theirs, ours = cnn(torch.nn), cnn(nn)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == KEYS
    assert repr(ours) == repr(theirs)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    x = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(x)).numpy()
    close(ours.eval()(x).numpy(), expected, 1e-5)
    program = traced(ours, ("B", 1, 8, 8))
    assert list(program.trace.cells) == KEYS
    close(program(x), expected, 1e-5)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})


@pytest.mark.parametrize(
    "text",
    [
        "Conv2d(2, 4, (3, 5), stride=(2, 1), padding=1, dilation=2, groups=2, bias=False)",
        "Conv2d(2, 4, 3, padding='same')", "Linear(3, 4, bias=False)",
        "MaxPool2d(2, ceil_mode=True)", "ReLU(inplace=True)", "ReLU()", "Sigmoid()",
        "Tanh()", "Softmax(dim=1)", "LogSoftmax(dim=-1)", "Dropout(0.3)", "Flatten(0, 1)", "Identity(3, a=4)",
        "CrossEntropyLoss()", "MSELoss(reduction='sum')", "L1Loss()", "NLLLoss()", "Sequential()",
    ],
)  # fmt: skip
def test_layers_print_as_pytorchs(text):
    torch = pytest.importorskip("torch")
    assert repr(eval(f"nn.{text}")) == repr(eval(f"torch.nn.{text}", {"torch": torch}))


def test_initialisation_is_pytorchs():
    random.seed(0)
    layer = nn.Conv2d(16, 64, 3)
    bound = 1 / np.sqrt(16 * 9)
    for p in layer.parameters():
        a = p.numpy()
        assert a.min() >= -bound and a.max() <= bound and abs(a).max() > 0.9 * bound and abs(a.mean()) < 0.2 * bound
    random.seed(0)
    np.testing.assert_array_equal(nn.Conv2d(16, 64, 3).weight.numpy(), layer.weight.numpy())
    assert layer.weight.dtype.name == "f32" and nn.Linear(2, 3, dtype="f64").weight.dtype.name == "f64"


@pytest.mark.parametrize(
    ("fill", "deviation"),
    [
        (lambda p: init.kaiming_uniform_(p, nonlinearity="relu"), np.sqrt(2 / 200)),
        (lambda p: init.kaiming_normal_(p, mode="fan_out"), np.sqrt(2 / 300)),
        (lambda p: init.xavier_uniform_(p), np.sqrt(2 / 500)),
        (lambda p: init.xavier_normal_(p, gain=2), 2 * np.sqrt(2 / 500)),
        (lambda p: init.normal_(p, std=0.3), 0.3),
        (lambda p: init.uniform_(p, -1, 1), 1 / np.sqrt(3)),
        (lambda p: init.trunc_normal_(p), 0.8796),
        (lambda p: init.constant_(p, 3), 0),
        (lambda p: init.orthogonal_(p, 2.0), 2 / np.sqrt(300)),
        (lambda p: init.sparse_(p, 0.3, std=0.5), 0.5 * np.sqrt(0.7)),
    ],
)
def test_init(fill, deviation):
    random.seed(1)
    p = nn.Parameter(np.zeros((300, 200), np.float32))
    assert fill(p) is p
    assert abs(p.numpy().std() - deviation) <= 0.02 * deviation
    assert p.cell.version == 1


def test_init_messages():
    vector = nn.Parameter(np.zeros(3))
    with pytest.raises(ShapeError, match=r"at least 2 axes.*\(3,\)"):
        init.xavier_uniform_(vector)
    with pytest.raises(TenonError, match="unknown nonlinearity 'gelu'.*leaky_relu"):
        init.calculate_gain("gelu")
    assert init.calculate_gain("leaky_relu", 0.2) == np.sqrt(2 / 1.04)
    np.testing.assert_array_equal(init.eye_(nn.Parameter(np.zeros((2, 3)))).numpy(), np.eye(2, 3))


def test_orthogonal_and_identity_weights():
    for shape in ((5, 3), (3, 5), (4, 2, 3)):
        w = init.orthogonal_(nn.Parameter(np.zeros(shape))).numpy().reshape(shape[0], -1)
        few = w @ w.T if w.shape[0] < w.shape[1] else w.T @ w
        close(few, np.eye(len(few)))
    w = init.sparse_(nn.Parameter(np.zeros((10, 4))), 0.25).numpy()
    assert ((w == 0).sum(0) == 3).all()
    torch = pytest.importorskip("torch")
    for shape, groups in (((4, 2, 3), 2), ((3, 5, 3, 3), 1), ((6, 2, 2, 3, 1), 3)):
        found = init.dirac_(nn.Parameter(np.zeros(shape)), groups)
        close(found.numpy(), torch.nn.init.dirac_(torch.zeros(shape), groups).numpy())


def test_walking_the_tree():
    model = cnn(nn)
    assert [n for n, _ in model.named_modules()][:4] == ["", "conv1", "pool", "head"]
    assert [n for n, _ in model.named_children()] == ["conv1", "pool", "head"]
    assert [n for n, _ in model.named_parameters()] == KEYS == list(state_cells(model))
    assert next(iter(state_cells(model, "net"))) == "net.conv1.weight"
    assert model.get_submodule("head.4") is model.head[4] is model.head[-1]
    assert model.get_parameter("head.1.bias") is model.head[1].bias
    with pytest.raises(AttributeError, match="'bias' in 'head.1.bias' is not a buffer"):
        model.get_buffer("head.1.bias")
    assert len(model.head) == 5 and len(model.head[1:3]) == 2
    model.tied = model.conv1
    assert len(list(model.parameters())) == 6  # each once, as in PyTorch
    assert "tied.weight" in model.state_dict() and "conv1.weight" in model.state_dict()
    seen: list[str] = []
    model.apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "CNN"
    assert not model.eval().head[3].training and model.train().head[3].training
    assert not any(p.requires_grad for p in model.requires_grad_(False).parameters())


def test_attributes():
    layer = nn.Linear(2, 3)
    assert "weight" in dir(layer)
    with pytest.raises(TypeError, match=r"Linear.weight is a Parameter and cannot become"):
        layer.weight = np.zeros((3, 2))
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'wieght'"):
        _ = layer.wieght
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"]
    del layer.weight
    assert not list(layer.parameters())
    layer.extra = nn.ReLU()
    assert isinstance(layer.extra, nn.ReLU)

    class Forgets(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(TenonError, match=r"Forgets.__init__ must call super\(\).__init__\(\)"):
        Forgets()
    with pytest.raises(NotImplementedError, match=r"Module has no forward"):
        nn.Module()(1)
    with pytest.raises(KeyError, match="without dots"):
        layer.register_buffer("a.b", np.zeros(1))
    with pytest.raises(KeyError, match="already has the attribute 'forward'"):
        layer.register_buffer("forward", np.zeros(1))


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("total", np.zeros((), np.float32))
        self.register_buffer("scratch", np.zeros(2, np.float32), persistent=False)

    def forward(self, x):
        self.total = self.total + x.sum()
        return x + self.total


def test_buffers_are_state_that_a_program_writes():
    model = Counts()
    assert list(model.state_dict()) == ["total"] and [n for n, _ in model.named_buffers()] == ["total", "scratch"]
    program = traced(model, (2,))
    close(program(np.ones(2, np.float32)), [3, 3])
    close(program(np.ones(2, np.float32)), [5, 5])
    assert model.total.numpy() == 4
    close(model(np.ones(2, np.float32)).numpy(), [7, 7])  # at once, too
    with pytest.raises(ShapeError, match=r"total has the shape \(\) and cannot be assigned a value of shape \(2,\)"):
        traced(lambda x: (model(x), setattr(model, "total", x)), (2,))
    with pytest.raises(DTypeError, match="total is f32 and cannot be assigned a value of i64"):
        traced(lambda x: (model(x), setattr(model, "total", x.sum().long())), (2,))


def test_programs_share_parameters():
    model = nn.Linear(2, 1)
    doubled, plain = traced(lambda x: model(x) * 2, ("B", 2)), traced(model, ("B", 2))
    x = np.ones((3, 2), np.float32)
    model.weight.data = np.array([[3.0, 4.0]])
    init.zeros_(model.bias)
    close(plain(x), [[7], [7], [7]])
    close(doubled(x), [[14], [14], [14]])
    assert model.weight.cell.version == 2


def test_two_models_with_the_same_names():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    assert list(traced(lambda x: a(b(x)), (2,)).trace.cells) == ["weight", "bias", "weight_1", "bias_1"]


def test_parameters():
    p = nn.Parameter(np.arange(4.0).reshape(2, 2))
    assert p.requires_grad and p.dtype.name == "f64" and p.shape == (2, 2)
    close((p * 2).sum().numpy(), 12)
    assert not p.data.flags.writeable
    with pytest.raises(ShapeError, match=r"\(3,\) does not fit state of shape \(2, 2\)"):
        p.data = np.zeros(3)
    with pytest.raises(DTypeError, match="only floating point parameters can be trained, not i64"):
        nn.Parameter(np.zeros(2, np.int64))
    assert nn.Parameter(np.zeros(2, np.int64), requires_grad=False).dtype.name == "i64"
    assert nn.Parameter([1.0]).dtype.name == "f32"
    with pytest.raises(TraceError, match="made from known numbers"):
        traced(lambda x: nn.Parameter(x * 2), (2,))
    with pytest.raises(TraceError, match="the array of a Parameter"):
        traced(lambda x: x + p.data, (2,))
    assert repr(nn.Parameter([1.5])) == "Parameter containing:\n[1.5], dtype=f32, requires_grad=True"


def test_copies_are_their_own():
    model = cnn(nn)
    other = copy.deepcopy(model)
    init.zeros_(other.conv1.weight)
    assert model.conv1.weight.numpy().any()
    close(other.head[4].bias.numpy(), model.head[4].bias.numpy())
    restored = pickle.loads(pickle.dumps(model.head))
    close(restored[4].bias.numpy(), model.head[4].bias.numpy())
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    assert len(list(copy.deepcopy(tied).parameters())) == 3


def test_loading_is_all_or_nothing_and_says_why():
    model = cnn(nn)
    before = model.state_dict()
    bad = dict(before)
    bad["conv1.weight"] = np.zeros((4, 1, 3, 5))
    bad["head.1.bias"] = np.zeros(8, np.complex64)
    bad["head.4.bias"] = before["head.4.bias"] + 1
    del bad["conv1.bias"], bad["head.1.weight"]
    bad["fc.weight"] = np.zeros(1)
    with pytest.raises(StateError) as caught:
        model.load_state_dict(bad)
    text = str(caught.value)
    for words in (
        "does not fit CNN, and nothing was loaded",
        "missing: conv1.bias, head.1.weight",
        "unexpected: fc.weight",
        "conv1.weight: shape (4, 1, 3, 5) was given, (4, 1, 3, 3) expected",
        "head.1.bias: dtype complex64 was given, f32 expected",
    ):
        assert words in text
    for k, v in model.state_dict().items():
        np.testing.assert_array_equal(v, before[k])
    found = model.load_state_dict({"head.4.bias": before["head.4.bias"] + 1, "other": 1}, strict=False)
    assert found.missing_keys == KEYS[:-1] and found.unexpected_keys == ["other"]
    close(model.head[4].bias.numpy(), before["head.4.bias"] + 1)
    before["head.4.bias"][...] = 9  # a state_dict is a copy
    assert (model.head[4].bias.numpy() != 9).all()


def test_to():
    model = cnn(nn)
    assert model.to("cpu") is model.to("f32") is model.cpu() is model
    for move in (lambda: model.to("cuda"), model.cuda):
        with pytest.raises(UnsupportedError, match="not on cuda"):
            move()


@pytest.mark.parametrize(
    ("error", "make", "words"),
    [
        (TenonError, lambda: nn.Conv2d(3, 4, 3, groups=2), "3 and 4 channels do not split into 2 groups"),
        (ShapeError, lambda: nn.Conv2d(3, 4, (1, 2, 3)), "kernel_size must be an integer or 2 of them"),
        (TenonError, lambda: nn.Dropout(-1), "p must lie between 0 and 1, not -1"),
        (TenonError, lambda: nn.MSELoss("median"), "MSELoss: reduction must be one of mean, sum, none"),
        (TypeError, lambda: nn.Sequential(3), "'0' must be a Module, not int 3"),
        (ShapeError, lambda: nn.Linear(3, 4)(np.zeros((2, 5), np.float32)), "the last axis of the first"),
    ],
)
def test_messages(error, make, words):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        make()


def test_losses_and_activations():
    x, y = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    classes = np.array([0, 1, 2, 1])
    close(nn.CrossEntropyLoss()(x, classes).numpy(), nn.NLLLoss()(nn.LogSoftmax(1)(x), classes).numpy())
    close(nn.MSELoss()(x, y).numpy(), ((x - y) ** 2).mean())
    close(nn.L1Loss("none")(x, y).numpy(), abs(x - y))
    close(nn.Softmax(-1)(x).sum(-1).numpy(), np.ones(4, np.float32))
    close(nn.Sequential({"a": nn.Tanh(), "b": nn.Sigmoid()})(x).numpy(), 1 / (1 + np.exp(-np.tanh(x))))
    close(nn.Sequential(nn.Identity()).append(nn.Flatten(0))(x).numpy(), x.reshape(-1))
    assert nn.Dropout(0.5).eval()(as_tensor(x)).numpy() is not None

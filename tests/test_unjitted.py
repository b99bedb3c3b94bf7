"""TENON_JIT=0: kernels run in Python as they are written, give what the reference gives, and stay inside of buffers."""

from __future__ import annotations

import re
import traceback

import numpy as np
import pytest
from compiled import check, difference
from op_samples import SAMPLES
from test_compiled_ops import OTHERS, together

import tenon as tn
from benchmarks.engines import tenon_program
from benchmarks.models import CASES
from engine import dtypes, interpreter
from engine.errors import BoundsError
from passes.autodiff import expand_gradients
from runtime.checked_memory import CheckedMemory
from runtime.cpu.unjitted import UnjittedExecutor
from runtime.cpu.unjitted_words import importer
from tenon import F, nn, optim

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _unjitted(monkeypatch):
    monkeypatch.setenv("TENON_JIT", "0")


def normal(*shape):
    return RNG.normal(size=shape).astype("f4")


def check_step(exe, *inputs):
    """Outputs and new state are the reference's."""
    assert isinstance(exe.executor, UnjittedExecutor)
    graph = expand_gradients(exe.graph)
    state = {name: np.array(cell.array) for name, cell in exe.cells.items()}
    outputs, after = interpreter.run(graph, inputs, state)
    found = exe(*inputs)
    for got, expected in zip(found if isinstance(found, tuple) else (found,), outputs, strict=True):
        assert difference(np.asarray(got), expected, slack=1e-6) is None
    for name in graph.updates:
        assert difference(exe.cells[name].array, after[name], slack=1e-5) is None, name


# --- every kind of kernel --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 2])
def test_every_op(level):
    for sample in (*SAMPLES, *OTHERS):
        check(*together([sample]), levels=(level,))


def test_few_sequences_that_share_out_hidden_units():
    layer = nn.LSTM(3, 128)
    exe = tn.compile(lambda x: layer(x)[0], tn.spec("T", "B", 3))
    check_step(exe, normal(2, 1, 3))


class CNN(nn.Module):
    """The seed's, smaller."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, kernel_size=3, stride=1, padding=1)
        self.conv2 = nn.Conv2d(4, 8, kernel_size=3, stride=1, padding=1)
        self.fc1 = nn.Linear(8 * 2 * 2, 16)
        self.fc2 = nn.Linear(16, 10)
        self.dropout = nn.Dropout(0.25)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = self.dropout(F.relu(self.fc1(x.flatten(1))))
        return self.fc2(x)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.encoder(self.embedding(x)).mean(1))


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


@pytest.mark.slow
def test_a_body_in_registers():
    wide = nn.Sequential(nn.Conv2d(3, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU6())
    chain = nn.Sequential(wide, nn.Conv2d(48, 48, 3, padding=1, groups=48)).eval()
    exe = tn.compile(chain, tn.spec("B", 3, 3, 4))
    assert any("own_rows" in k.source for k in exe.program.kernels)
    check_step(exe, normal(1, 3, 3, 4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "word"),
    [
        ((nn.Conv2d(3, 16, 3, stride=2), nn.ReLU()), "_taps_sums"),
        ((nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), "largest_rows"),
        ((nn.Conv2d(8, 8, 3, padding=1, groups=2),), "_fold4"),
        ((nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()), "tile_"),
    ],
    ids=["few channels", "pooled", "groups", "ordered state"],
)
def test_convolutions(layers, word):
    net, channels = nn.Sequential(*layers), layers[0].in_channels
    exe = tn.compile(net.eval(), tn.spec("B", channels, 6, 17))
    assert any(word in k.source for k in exe.program.kernels)
    check_step(exe, normal(2, channels, 6, 17))
    net.train()
    optimizer = optim.SGD(net.parameters(), 0.1)

    def step(x):
        loss = (net(x) ** 2).mean()
        optimizer.minimize(loss)
        return loss

    check_step(tn.compile(step, tn.spec("B", channels, 6, 17)), normal(2, channels, 6, 17))


@pytest.mark.parametrize("case", ["gpt:train", "seq2seq:train", "resnet18:train", "mobile:infer1"])
def test_every_word_of_a_model(case):
    exe, words = tenon_program(CASES[case]), importer(CheckedMemory())
    for kernel in exe.program.kernels:
        for module, names in re.findall(r"^from (runtime\.cpu\.\w+) import (.+)$", kernel.source, re.M):
            found = words(module, fromlist=names.split(", "))
            assert all(callable(getattr(found, name)) for name in names.split(", "))


@pytest.mark.parametrize(
    ("model", "spec", "inputs"),
    [
        (CNN, tn.spec("B", 1, 8, 8), normal(3, 1, 8, 8)),
        (Sequence, tn.spec("B", 4, 5), normal(3, 4, 5)),
        (Encoder, tn.spec("B", 6, dtype="i64"), RNG.integers(0, 11, (3, 6))),
    ],
    ids=["cnn", "lstm", "encoder"],
)
def test_training_steps(model, spec, inputs):
    net = model()
    # The bias of keys has no gradient but rounding, which Adam would make steps of.
    encoder = model is Encoder
    optimizer = optim.SGD(net.parameters(), 0.1, momentum=0.9) if encoder else optim.Adam(net.parameters(), lr=1e-3)
    step = tn.train_step(net, F.cross_entropy, optimizer, [spec, tn.spec("B", dtype="i64")]).executable
    for _ in range(2):
        check_step(step, inputs, RNG.integers(0, 3, 3))


def test_loops_and_branches():
    def body(carry, x):
        carry = F.tanh(carry * 0.5 + x)
        return carry, carry * 2

    def f(x):
        last, every = F.scan(body, x[0], x)
        return F.cond(last.sum() > 0, lambda: every + 1, lambda: every * 2)

    exe = tn.compile(f, tn.spec("T", 3))
    for sign in (1, -1):
        check_step(exe, sign * np.abs(normal(4, 3)))


def test_a_users_kernel():
    def twice(x, out):
        for i in range(x.size):
            out[i] = 2 * x[i]

    op = tn.custom_op("twice_here", lambda x: 2 * x, kernel=twice)
    check_step(tn.compile(op, tn.spec("N")), normal(5))


def test_a_bad_label_is_told_and_state_stays():
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    specs = [tn.spec("B", 3), tn.spec("B", dtype="i64")]
    step = tn.train_step(model, F.cross_entropy, optimizer, specs)
    before = model.weight.numpy().copy()
    with pytest.raises(tn.IndexRangeError, match="index 7 is out of range"):
        step(normal(2, 3), np.array([0, 7]))
    np.testing.assert_array_equal(model.weight.numpy(), before)


# --- what is wrong is caught -----------------------------------------------------------------------------------


def test_reaching_outside_of_a_buffer_is_caught_with_the_kernels_line(monkeypatch):
    from runtime import emit

    plain = emit.load
    monkeypatch.setattr(emit, "load", lambda dtype, pointer, index, scope: plain(dtype, pointer, f"{index} + 1", scope))
    exe = tn.compile(lambda x: tn.exp(x) * 2, tn.spec("N"))
    with pytest.raises(BoundsError, match=r"the kernel exp_mul_kernel reads 4 bytes at byte 20 of input\.x, which has "
                       r"20: line \d+, v0 = load_f32\(") as caught:  # fmt: skip
        exe(normal(5))
    frames = traceback.extract_tb(caught.value.__traceback__)
    (line,) = [f.line for f in frames if f.filename.startswith("<tenon exp_mul_kernel")]
    assert "load_f32" in line  # the source is in linecache


def test_memory_knows_its_bounds():
    memory = CheckedMemory()
    at = memory.add("a", np.zeros((2, 3), np.float32))
    with pytest.raises(BoundsError, match="reads 16 bytes at byte 12 of a, which has 24"):
        memory.view(at + 12, (4,), (4,), np.dtype(np.float32), "reads")
    with pytest.raises(BoundsError, match="belongs to no buffer"):
        memory.load(12, np.dtype(np.float32))
    with pytest.raises(BoundsError, match="writes 4 bytes at byte -4 of a"):
        memory.store(at - 4, 1.0, np.dtype(np.float32))


def test_nothing_is_compiled(monkeypatch):
    from runtime.cpu import compile as compiling

    def refuse(*_args, **_kwargs):
        raise AssertionError("compiled")

    monkeypatch.setattr(compiling, "compile_kernels", refuse)
    exe = tn.compile(lambda x: (x * 1.25).sum(), tn.spec("N"))
    assert exe(np.ones(4, "f4")) == 5 and exe.report.compiled == 0
    assert exe.memory(N=4).total > 0
    assert exe.counters["calls"] == 1
    with pytest.raises(tn.UnsupportedError, match="TENON_JIT=0"):
        exe.profile(np.ones(4, "f4"))
    half = tn.compile(lambda x: x * 2, tn.spec("N", dtype=dtypes.bf16))
    assert half(np.ones(3, dtypes.bf16.numpy)).tolist() == [2, 2, 2]

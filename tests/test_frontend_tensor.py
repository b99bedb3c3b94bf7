"""Tensor: the same meaning symbolic and concrete, and errors that tell the user what to do."""

from __future__ import annotations

import numpy as np
import pytest
from frontend_tools import Traced, close, traced
from graph_tools import tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import dims
from engine.errors import DTypeError, ShapeError, TenonError, TraceError, UnsupportedError
from frontend import creation as C
from frontend import drawing, elementwise, shaping, stubs
from frontend.tensor import Tensor, as_tensor
from frontend.trace import Trace

X = np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 3, 4)

EXPRESSIONS = {
    "arithmetic": (lambda x: (2 * x - 1) / 4 + x**2 - (1 - x), lambda x: (2 * x - 1) / 4 + x**2 - (1 - x)),
    "floor": (lambda x: x // 0.3 + x % 0.3, lambda x: x // np.float32(0.3) + x % np.float32(0.3)),
    "reflected": (lambda x: 2 / (3 + x) + 2**x + 7 // (x + 3), lambda x: 2 / (3 + x) + 2**x + 7 // (x + 3)),
    "compare": (lambda x: (x > 0) & (x <= 1) | ~(x != 0.5), lambda x: (x > 0) & (x <= 1) | ~(x != 0.5)),
    "integers": (
        lambda x: (x.long() << 2) ^ (x.int() >> 1),
        lambda x: (x.astype(np.int64) << 2) ^ (x.astype(np.int32) >> 1),
    ),
    "unary": (lambda x: -abs(+x), lambda x: -abs(x)),
    "array on the left": (lambda x: X + x, lambda x: X + x),
    "matmul": (lambda x: x @ x.mT, lambda x: x @ x.swapaxes(1, 2)),
    "matrix by vector": (lambda x: x @ x[0, 0], lambda x: x @ x[0, 0]),
    "vector by matrix": (lambda x: x[0, 0] @ x.mT, lambda x: x[0, 0] @ x.swapaxes(1, 2)),
    "dot": (lambda x: x[0, 0] @ x[0, 1], lambda x: x[0, 0] @ x[0, 1]),
    "reshape": (lambda x: x.view(4, -1), lambda x: x.reshape(4, -1)),
    "flatten": (lambda x: x.flatten(1), lambda x: x.reshape(2, 12)),
    "unflatten": (lambda x: x.unflatten(2, (2, -1)), lambda x: x.reshape(2, 3, 2, 2)),
    "permute": (lambda x: x.permute(2, 0, -2), lambda x: x.transpose(2, 0, 1)),
    "transpose": (lambda x: x.transpose(0, -1), lambda x: x.swapaxes(0, -1)),
    "T": (lambda x: x.T, lambda x: x.T),
    "squeeze": (lambda x: x.unsqueeze(1).unsqueeze(-1).squeeze(), lambda x: x),
    "squeeze one": (lambda x: x.unsqueeze(1).squeeze(1).squeeze(0), lambda x: x),
    "expand": (lambda x: x[:, :1].expand(5, -1, 3, -1), lambda x: np.broadcast_to(x[:, :1], (5, 2, 3, 4))),
    "slice": (lambda x: x[1:, ::2, None, -3:-1], lambda x: x[1:, ::2, None, -3:-1]),
    "backwards": (lambda x: x[::-1, 2:0:-1], lambda x: x[::-1, 2:0:-1]),
    "clipped": (lambda x: x[-9:9, 2:1], lambda x: x[-9:9, 2:1]),
    "integer index": (lambda x: x[..., -1], lambda x: x[..., -1]),
    "sum": (lambda x: x.sum(dim=(0, -1)), lambda x: x.sum((0, 2))),
    "mean": (lambda x: x.mean(1, keepdim=True), lambda x: x.mean(1, keepdims=True)),
    "prod": (lambda x: x.prod(), lambda x: x.prod()),
    "variance": (lambda x: x.var(dim=1), lambda x: x.var(1, ddof=1)),
    "deviation": (lambda x: x.std(correction=0), lambda x: x.std()),
    "max of all": (lambda x: x.max(), lambda x: x.max()),
    "max values": (lambda x: x.max(1).values, lambda x: x.max(1)),
    "min indices": (lambda x: x.min(dim=-1, keepdim=True)[1], lambda x: x.argmin(-1, keepdims=True)),
    "elementwise max": (lambda x: x.max(-x), lambda x: np.maximum(x, -x)),
    "argmax of all": (lambda x: x.argmax(), lambda x: x.argmax()),
    "any": (lambda x: (x > 1.9).any(0), lambda x: (x > 1.9).any(0)),
    "all": (lambda x: (x > -3).all(), lambda x: (x > -3).all()),
    "clamp": (lambda x: x.clamp(-1, max=0.5), lambda x: x.clip(-1, 0.5)),
    "where": (lambda x: x.where(x > 0, 0.0), lambda x: np.where(x > 0, x, np.float32(0))),
    "methods": (lambda x: x.abs().sqrt().exp().log().tanh(), lambda x: np.tanh(np.log(np.exp(np.sqrt(np.abs(x)))))),
    "logsumexp": (
        lambda x: x.logsumexp((0, 2), keepdim=True),
        lambda x: np.log(np.exp(x).sum((0, 2), keepdims=True)),
    ),
    "cast": (lambda x: x.to("float64").to(x).double().bool(), lambda x: x.astype(bool)),
    "concat": (lambda x: shaping.concat([x, x * 2], -1), lambda x: np.concatenate([x, x * 2], -1)),
    "stack": (lambda x: shaping.stack([x, x * 2], -1), lambda x: np.stack([x, x * 2], -1)),
    "parts": (lambda x: shaping.stack([part.sum(0) for part in x]), lambda x: x.sum(1)),
    "arange": (lambda x: x + C.arange(1, 9, 2), lambda x: (x + np.arange(1, 9, 2)).astype(np.float64)),
    "float arange": (lambda x: x * C.arange(0.0, 1.0, 0.25), lambda x: x * np.arange(0, 1, 0.25, np.float32)),
    "eye": (lambda x: C.eye(3, 4) + x, lambda x: np.eye(3, 4, dtype=np.float32) + x),
    "filled": (
        lambda x: C.zeros(4) + C.ones((3, 1)) + C.full((2, 1, 1), 0.5) + C.full_like(x, 2) + C.zeros_like(x),
        lambda x: np.full((2, 3, 4), 3.5, np.float32),
    ),
    "linspace": (lambda x: x + C.linspace(0, 1, 4), lambda x: x + np.linspace(0, 1, 4, dtype=np.float32)),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_same_symbolic_concrete_and_in_numpy(name):
    function, reference = EXPRESSIONS[name]
    expected = np.asarray(reference(X))
    concrete = function(as_tensor(X)).numpy()
    assert concrete.dtype == expected.dtype
    close(concrete, expected, 1e-5)
    symbolic = traced(function, (2, 3, 4))(X)
    assert symbolic.dtype == expected.dtype
    close(symbolic, expected, 1e-5)


SYMBOLIC = {
    "reshape": lambda x: x.view(-1, 12),
    "batch kept": lambda x: x.view(x.size(0), -1),
    "flatten all": lambda x: x.flatten(),
    "size as a number": lambda x: x.sum() / x.shape[0] + x.shape[0] * 2,
    "last": lambda x: x[-1],
    "some": lambda x: x[1:, :, ::3],
    "backwards": lambda x: x[::-1],
    "variance": lambda x: x.var(0),
    "ones": lambda x: C.ones(x.shape[0], 1, 1) + x,
    "expand": lambda x: C.eye(3, 4).expand(x.size(0), -1, -1) + x,
    "arange": lambda x: C.arange(x.shape[0]),
    "odd": lambda x: x[: x.shape[0] // 2 * 2].reshape(-1, 2, 3, 4),
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_one_trace_serves_every_batch(name):
    program = traced(SYMBOLIC[name], ("B", 3, 4))
    for batch in (2, 5):
        x = np.random.default_rng(batch).normal(size=(batch, 3, 4)).astype(np.float32)
        close(program(x), SYMBOLIC[name](as_tensor(x)).numpy(), 1e-5)


def test_dtypes_of_python_numbers():
    x = as_tensor(X)
    assert str((x * 2).dtype) == str((x / 3).dtype) == str((x + x.numel()).dtype) == "f32"
    assert traced(lambda x: x / x.shape[0], ("B",)).graph.outputs[0].dtype.name == "f32"
    assert C.tensor([1.0, 2.0]).dtype.name == "f32"
    assert C.tensor([1, 2]).dtype.name == "i64"
    assert C.tensor([True]).dtype.name == "bool"
    assert as_tensor(np.zeros(2)).dtype.name == "f64"
    assert C.full((2,), 1).dtype.name == "i64"
    assert C.arange(3.0).dtype.name == "f32"


def test_concrete_tensors():
    x = C.tensor([[1.5, 2.0]])
    assert x.tolist() == [[1.5, 2.0]]
    assert x[0, 0].item() == 1.5 and float(x[0, 1]) == 2.0 and int(x[0, 1]) == 2 and bool(x[0, 0] > 1)
    assert len(x) == 1 and x.dim() == 2 and x.numel() == 2 and x.size(-1) == 2 and x.shape == (1, 2)
    assert [10, 20, 30][C.tensor(2)] == 30
    assert x.to("cpu") is x and x.cpu() is x and x.device == "cpu"
    assert repr(x) == "tensor([[1.5, 2. ]], dtype=f32)"
    assert np.asarray(x).flags.writeable is False
    assert np.array(x, np.float64).dtype == np.float64
    assert (x == None) is False  # noqa: E711  (not a tensor: Python's own answer)


def test_a_constant_used_twice_is_one_node():
    table = as_tensor(X)
    program = traced(lambda x: x + table * table, (2, 3, 4))
    assert [n.op.name for n in program.graph.nodes].count("constant") == 1


def message(error: type[Exception], function, *shapes, dtype="f32") -> str:
    with pytest.raises(error) as caught:
        traced(function, *(shapes or [("B", 3, 4)]), dtype=dtype)
    assert "test_frontend_tensor.py" in str(caught.value)  # the user's own line
    return str(caught.value)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: 1 if x.sum() > 0 else 2, ["truth of a tensor", "tn.where(condition, a, b)", "bool[()]"]),
        (lambda x: float(x.sum()), ["number in a tensor", "known only when the program runs"]),
        (lambda x: int(x.sum()), ["integer in a tensor", "f32[()]"]),
        (lambda x: x.sum().item(), ["item()", "return it from the function"]),
        (lambda x: x.numpy(), ["array of a tensor", 'f32["B", 3, 4]']),
        (lambda x: np.asarray(x), ["array of a tensor"]),
        (lambda x: x.tolist(), ["tolist()"]),
        (lambda x: [1, 2][x.sum().long()], ["an index from a tensor"]),
        (lambda x: list(x), ["one by one", "there are B"]),
        (lambda x: len(x), ["len()", "first axis is B"]),
        (lambda x: range(x.shape[0]), ["the size B is symbolic", "count with it", "integer in the spec"]),
        (lambda x: x.shape[0] > 4, ["branch on B > 4", "known only when the program runs"]),
        (lambda x: x.shape[0] <= 4, ["branch on B <= 4"]),
        (lambda x: bool(x.shape[0]), ["the size B is symbolic", "branch on it"]),
        (lambda x: x.shape[0] / 2, ["use //"]),
        (lambda x: 0.5 / x.shape[0], ["divide a tensor by it"]),
        (lambda x: float(x.shape[0]), ["divide or multiply a tensor"]),
    ],
)
def test_python_control_flow_on_symbolic_values(function, words):
    text = message(TraceError, function)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("error", "function", "words"),
    [
        (ShapeError, lambda x: x[0].view(-1, 7), ["(3, 4)", "(-1, 7)", "12 elements do not divide by 7"]),
        (ShapeError, lambda x: x.view(-1, -1), ["only one size can be -1"]),
        (ShapeError, lambda x: x.view(2.5), ["a size is an integer", "2.5"]),
        (ShapeError, lambda x: x.sum(3), ["sum: axis 3 does not exist", "3 axes"]),
        (ShapeError, lambda x: x.sum((1, -2)), ["one axis twice"]),
        (ShapeError, lambda x: x.permute(0, 1), ["(0, 1)", "3 axes of (B, 3, 4)"]),
        (ShapeError, lambda x: x[0, 0, 0, 0], ["4 indices are too many", "(B, 3, 4)"]),
        (ShapeError, lambda x: x[:, 5], ["index 5 does not exist in axis 1", "(B, 3, 4)"]),
        (ShapeError, lambda x: x[:, ::0], ["step of a slice cannot be 0"]),
        (ShapeError, lambda x: x + x.mT, ["do not broadcast"]),
        (ShapeError, lambda x: x @ x, ["matmul", "(B, 3, 4)"]),
        (ShapeError, lambda x: x @ x.sum(), ["multiply with *"]),
        (ShapeError, lambda x: x.expand(4), ["expand", "(4,)"]),
        (ShapeError, lambda x: x.size(5), ["axis 5 does not exist"]),
        (ShapeError, lambda x: shaping.stack([]), ["at least one tensor"]),
        (UnsupportedError, lambda x: x[x > 0], ["where(mask, a, b)", "mask"]),
        (UnsupportedError, lambda x: x.__setitem__(0, 1), ["in place", "tn.where"]),
        (UnsupportedError, lambda x: x.sum().backward(), ["optimizer.minimize(loss)", "tn.grad"]),
        (UnsupportedError, lambda x: x.to("cuda:0"), ["cuda:0", "tn.compile"]),
        (DTypeError, lambda x: x & 1, ["bitand", "f32"]),
        (DTypeError, lambda x: x.to("complex64"), ["complex64", "f32"]),
        (DTypeError, lambda x: elementwise.exp([1, 2]), ["exp", "list", "[1, 2]"]),
        (DTypeError, lambda x: x.long().var(), ["var takes floating point", "i64"]),
    ],
)
def test_messages(error, function, words):
    text = message(error, function)
    for word in words:
        assert word in text


def test_undecided_sizes_become_assumptions_that_calls_check():
    def branch(x):
        return x * 2 if x.shape[0] == 1 else x + 1

    program = traced(branch, ("B",))
    close(program(np.ones(3, np.float32)), [2, 2, 2])
    with pytest.raises(TenonError, match="traced with B != 1"):
        program(np.ones(1, np.float32))
    assert not traced(lambda x: x if x.shape[0] == x.shape[0] else None, ("B",)).graph.assumptions


def test_a_slice_beside_a_symbolic_size_is_checked():
    program = traced(lambda x: x[2:4], ("B",))
    close(program(np.arange(5, dtype=np.float32)), [2, 3])
    with pytest.raises(TenonError, match="slice: 2:4:1"):
        program(np.arange(3, dtype=np.float32))


def test_symbolic_sizes_are_sizes():
    b = traced(lambda x: x, ("B", 6)).graph.inputs[0]
    shape = Tensor.shape.fget(_tensor_of(b))
    size = shape[0]
    assert str(size) == "B" and shape.numel() == size * 6 and hash(size) == hash(shape[0])
    assert size * 6 // 6 == size and size - size == 0 and (2 * size) % 2 == 0 and -size + size == 0
    with pytest.raises(TraceError, match="compare it with 3"):
        _ = size == 3


def _tensor_of(value):
    with Trace():
        return Tensor.of(value)


def test_a_value_cannot_leave_its_program():
    kept = []
    traced(lambda x: kept.append(x + 1), (3,))
    with pytest.raises(TraceError, match="whose tracing has ended"):
        traced(lambda x: x + kept[0], (3,))
    with pytest.raises(TraceError, match="whose tracing has ended"):
        kept[0].item()


def test_random_numbers_are_state_of_the_program():
    from frontend import random

    random.seed(7)
    program = Traced(
        lambda x: (drawing.rand(x.shape) + x * 0, drawing.randn(x.size(0), 50)), tensor("B", dims.parse("4"))
    )
    assert list(program.trace.cells) == ["rng.seed", "rng.step"]
    x = np.zeros((20, 4), np.float32)
    first, normal = program(x)
    second, _ = program(x)
    assert random.default.step.array == 2
    assert (first != second).mean() > 0.9 and first.min() >= 0 and first.max() < 1
    assert abs(normal.mean()) < 0.15 and abs(normal.std() - 1) < 0.1
    random.seed(7)
    np.testing.assert_array_equal(program(x)[0], first)
    random.seed(7)
    a = drawing.rand(3)
    random.seed(7)
    np.testing.assert_array_equal(a.numpy(), drawing.rand(3).numpy())
    with pytest.raises(TenonError, match="between 0 and"):
        random.seed(-1)


def test_elementwise_functions_come_from_the_records():
    assert elementwise.exp.__doc__ == "e to the power x\n\nPyTorch: torch.exp."
    assert set(elementwise.__all__) >= {"exp", "logical_and", "where", "maximum", "bitwise_left_shift"}
    with pytest.raises(TypeError, match=r"exp\(\) takes 1 arguments"):
        elementwise.exp(1, 2)
    assert stubs.stub() == stubs.PATH.read_text(encoding="utf-8"), "run python -m frontend.stubs"


def test_a_reshape_that_depends_on_the_batch_is_checked_by_each_call():
    program = traced(lambda x: x.view(-1, 8), ("B", 3, 4))
    assert program(np.zeros((2, 3, 4), np.float32)).shape == (3, 8)
    with pytest.raises(ShapeError, match=r"\(B, 3, 4\) cannot be reshaped"):
        program(np.zeros((3, 3, 4), np.float32))


bound = st.none() | st.integers(-6, 6)
steps = st.none() | st.integers(1, 3) | st.integers(-3, -1)
entries = st.builds(slice, bound, bound, steps) | st.integers(-3, 2) | st.none() | st.just(Ellipsis)


@settings(max_examples=150, deadline=None)
@given(st.lists(entries, max_size=5).map(tuple))
def test_indexing_is_numpys(key):
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    try:
        expected = array[key]
    except IndexError:
        with pytest.raises(ShapeError):
            as_tensor(array)[key]
        return
    np.testing.assert_array_equal(as_tensor(array)[key].numpy(), expected)


def test_the_command_that_writes_the_stub(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stubs, "PATH", tmp_path / "elementwise.pyi")
    monkeypatch.setattr("sys.argv", ["stubs", "--check"])
    assert stubs.main() == 1
    assert "run python -m frontend.stubs" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["stubs"])
    assert stubs.main() == 0
    monkeypatch.setattr("sys.argv", ["stubs", "--check"])
    assert stubs.main() == 0

"""F against PyTorch, traced and at once; and the messages of what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from frontend_tools import close, traced
from graph_tools import tensor

from engine.errors import DTypeError, IndexRangeError, ShapeError, TenonError, TraceError
from frontend import functional as F
from frontend import random
from frontend.tensor import as_tensor

rng = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


IMAGE, WEIGHT, BIAS = array(2, 4, 9, 8), array(6, 4, 3, 2), array(6)
LOGITS, CLASSES = array(5, 7), np.array([0, 6, 3, 3, 1])
DENSE, DENSE_CLASSES = array(2, 4, 3, 5), rng.integers(0, 4, (2, 3, 5))

CASES = {
    "linear": (lambda f, x, w, b: f.linear(x, w, b), (array(2, 3, 4), array(5, 4), array(5))),
    "linear of a vector": (lambda f, x, w: f.linear(x, w), (array(4), array(5, 4))),
    "conv2d": (lambda f, x, w, b: f.conv2d(x, w, b), (IMAGE, WEIGHT, BIAS)),
    "conv2d strides": (
        lambda f, x, w, b: f.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        (IMAGE, WEIGHT, BIAS),
    ),
    "conv2d groups": (lambda f, x, w: f.conv2d(x, w, groups=2, padding=1), (IMAGE, array(6, 2, 3, 3))),
    "conv2d same": (lambda f, x, w: f.conv2d(x, w, padding="same"), (IMAGE, array(6, 4, 3, 5))),
    "conv2d same, even": (lambda f, x, w: f.conv2d(x, w, padding="same", dilation=(3, 1)), (IMAGE, array(6, 4, 2, 4))),
    "conv2d valid": (lambda f, x, w: f.conv2d(x, w, padding="valid"), (IMAGE, WEIGHT)),
    "conv2d of one image": (lambda f, x, w, b: f.conv2d(x, w, b), (IMAGE[0], WEIGHT, BIAS)),
    "max_pool2d": (lambda f, x: f.max_pool2d(x, 2), (IMAGE,)),
    "max_pool2d strides": (lambda f, x: f.max_pool2d(x, (3, 2), stride=(1, 2), padding=1, dilation=(2, 1)), (IMAGE,)),
    "max_pool2d ceil": (lambda f, x: f.max_pool2d(x, 2, 3, ceil_mode=True), (IMAGE,)),
    "max_pool2d indices": (
        lambda f, x: f.max_pool2d(x, 3, 2, padding=1, return_indices=True)[1],
        (IMAGE,),
    ),
    "max_pool2d of one image": (lambda f, x: f.max_pool2d(x, 2, return_indices=True)[1], (IMAGE[0],)),
    "softmax": (lambda f, x: f.softmax(x, dim=-1), (LOGITS,)),
    "log_softmax": (lambda f, x: f.log_softmax(x, dim=0), (LOGITS,)),
    "relu": (lambda f, x: f.relu(x, inplace=False), (LOGITS,)),
    "sigmoid": (lambda f, x: f.sigmoid(x), (LOGITS,)),
    "pad": (lambda f, x: f.pad(x, (1, 2, 0, 3), value=1.5), (IMAGE,)),
    "crop": (lambda f, x: f.pad(x, (-1, 2, 3, -2)), (IMAGE,)),
    "cross_entropy": (lambda f, x, y: f.cross_entropy(x, y), (LOGITS, CLASSES)),
    "cross_entropy sum": (lambda f, x, y: f.cross_entropy(x, y, reduction="sum"), (LOGITS, CLASSES)),
    "cross_entropy none": (lambda f, x, y: f.cross_entropy(x, y, reduction="none"), (DENSE, DENSE_CLASSES)),
    "cross_entropy dense": (lambda f, x, y: f.cross_entropy(x, y), (DENSE, DENSE_CLASSES)),
    "cross_entropy of one": (lambda f, x, y: f.cross_entropy(x, y), (LOGITS[0], np.array(3))),
    "nll_loss": (lambda f, x, y: f.nll_loss(f.log_softmax(x, dim=1), y), (LOGITS, CLASSES)),
    "nll_loss dense": (lambda f, x, y: f.nll_loss(x, y, reduction="none"), (DENSE, DENSE_CLASSES)),
    "mse_loss": (lambda f, x, y: f.mse_loss(x, y), (array(3, 4), array(3, 4))),
    "mse_loss none": (lambda f, x, y: f.mse_loss(x, y, reduction="none"), (array(3, 4), array(3, 4))),
    "l1_loss": (lambda f, x, y: f.l1_loss(x, y, reduction="sum"), (array(3, 4), array(3, 4))),
    "one_hot": (lambda f, y: f.one_hot(y, 7), (CLASSES,)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", CASES)
def test_as_pytorch_traced_and_at_once(name):
    torch = pytest.importorskip("torch")
    function, arrays = CASES[name]
    expected = function(torch.nn.functional, *map(torch.from_numpy, arrays)).numpy()
    at_once = function(F, *arrays).numpy()
    assert at_once.dtype == expected.dtype
    close(at_once, expected, 2e-5)
    program = _program(lambda *xs: function(F, *xs), arrays)
    close(program(*arrays), expected, 2e-5)


def _program(function, arrays):
    from frontend_tools import Traced

    return Traced(function, *(tensor(*a.shape, dtype=a.dtype.name) for a in arrays))


def test_symbolic_batch_and_image_size():
    program = traced(
        lambda x, w: F.max_pool2d(F.conv2d(x, w, padding="same"), 2, return_indices=True)[1],
        ("B", 4, "H", "W"),
        (6, 4, 2, 3),
    )
    w = array(6, 4, 2, 3)
    for shape in ((2, 4, 8, 6), (1, 4, 5, 9)):
        x = array(*shape)
        expected = F.max_pool2d(F.conv2d(x, w, padding="same"), 2, return_indices=True)[1]
        close(program(x, w), expected.numpy())


def test_dropout():
    random.seed(3)
    x = np.full((40, 50), 2.0, np.float32)
    program = traced(lambda x: F.dropout(x, 0.25), ("B", 50))
    y = program(x)
    assert y.dtype == np.float32 and set(np.unique(y)) == {0, np.float32(2) * np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.04
    assert not np.array_equal(y, program(x))
    random.seed(3)
    np.testing.assert_array_equal(program(x), y)
    np.testing.assert_array_equal(program(x[:7]).shape, (7, 50))
    assert set(np.unique(F.dropout(x, 0.25).numpy())) == set(np.unique(y))
    assert traced(lambda x: F.dropout(x, 0.25, training=False), (3,)).ops() == []
    assert traced(lambda x: F.dropout(x, 0.0), (3,)).ops() == []
    assert not F.dropout(x, 1.0).numpy().any()


def test_two_dropouts_draw_from_two_streams():
    program = traced(lambda x: (F.dropout(x), F.dropout(x)), (100,))
    a, b = program(np.ones(100, np.float32))
    assert not np.array_equal(a, b)


def test_one_hot_counts_the_classes_of_known_indices():
    assert F.one_hot(np.array([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(ShapeError, match="num_classes is needed"):
        traced(F.one_hot, (3,), dtype="i64")


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_a_class_out_of_range_fails_the_call(loss):
    program = _program(loss, (LOGITS, CLASSES))
    for bad in (7, -1):
        with pytest.raises(IndexRangeError, match=rf"index {bad} is out of range: expected 0 <= index < 7"):
            program(LOGITS, np.array([0, bad, 1, 2, 3]))
    with pytest.raises(IndexRangeError):
        loss(LOGITS, np.array([0, 7, 1, 2, 3]))


@pytest.mark.parametrize(
    ("error", "function", "words"),
    [
        (ShapeError, lambda: F.conv2d(array(2, 3), WEIGHT), ["conv2d takes (N, C, H, W)", "(2, 3)"]),
        (ShapeError, lambda: F.conv2d(IMAGE, WEIGHT, stride=(1, 2, 3)), ["conv2d: stride", "(1, 2, 3)"]),
        (ShapeError, lambda: F.conv2d(IMAGE, array(6, 3, 3, 3)), ["4 channels", "expects 3"]),
        (ShapeError, lambda: F.conv2d(IMAGE, array(6, 4, 12, 3)), ["window of 12", "axis of 9"]),
        (TenonError, lambda: F.conv2d(IMAGE, WEIGHT, padding="full"), ["same", "valid", "'full'"]),
        (TenonError, lambda: F.conv2d(IMAGE, WEIGHT, stride=2, padding="same"), ["stride of 1"]),
        (ShapeError, lambda: F.max_pool2d(IMAGE, 2, padding=2), ["half the kernel"]),
        (ShapeError, lambda: F.max_pool2d(IMAGE, 2, padding=1, dilation=9), ["step over an axis of"]),
        (TenonError, lambda: F.dropout(LOGITS, 1.5), ["p must lie between 0 and 1", "1.5"]),
        (DTypeError, lambda: F.cross_entropy(LOGITS, LOGITS[:, 0]), ["integer class indices", "f32"]),
        (ShapeError, lambda: F.cross_entropy(LOGITS, CLASSES[:4]), ["5 examples", "4"]),
        (ShapeError, lambda: F.cross_entropy(LOGITS, CLASSES[:, None]), ["(5, 7)", "(5,)", "(5, 1)"]),
        (ShapeError, lambda: F.nll_loss(DENSE, CLASSES), ["(2, 4, 3, 5)", "(2, 3, 5)", "(5,)"]),
        (TenonError, lambda: F.cross_entropy(LOGITS, CLASSES, reduction="avg"), ["mean, sum, none", "'avg'"]),
        (TenonError, lambda: F.l1_loss(LOGITS, LOGITS, "avg"), ["mean, sum, none", "'avg'"]),
        (ShapeError, lambda: F.mse_loss(array(5, 1), array(5)), ["(5, 1)", "(5,)", "must be alike"]),
        (ShapeError, lambda: F.l1_loss(array(5, 1), array(5, 4)), ["(5, 1)", "(5, 4)"]),
        (ShapeError, lambda: F.pad(LOGITS, (1, 2, 3)), ["two numbers an axis", "(1, 2, 3)"]),
        (TenonError, lambda: F.pad(LOGITS, (1, 1), mode="mirror"), ["constant, reflect, replicate", "'mirror'"]),
        (TypeError, lambda: F.softmax(LOGITS), ["dim"]),
    ],
)
def test_messages(error, function, words):
    with pytest.raises(error) as caught:
        function()
    for word in words:
        assert word in str(caught.value)


def test_random_needs_a_trace_that_holds_its_state():
    from engine.graph import Builder
    from frontend import drawing

    with Builder(), pytest.raises(TraceError, match="a random number needs a traced program"):
        drawing.rand(3)


def test_numpy_arrays_and_tensors_mix():
    close(F.maximum(as_tensor(LOGITS), -LOGITS).numpy(), abs(LOGITS))
    close(F.where(LOGITS > 0, LOGITS, 0).numpy(), LOGITS.clip(0))

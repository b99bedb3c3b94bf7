"""Arrays as users bring them: any layout, read-only, empty; they give what the same numbers in plain order give."""

from __future__ import annotations

import numpy as np
import pytest
from oracle_cases import small_cnn

import tenon as tn
from tenon import F, nn, optim

TARGETS = ("reference", "cpu")


IMAGE = tn.spec("B", 2, 10, 6)
LABEL = tn.spec("B", dtype="i64")


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 2, 10, 6)).astype(np.float32)


def labels(count: int) -> np.ndarray:
    return np.arange(count) % 3


# --- layouts ------------------------------------------------------------------------------------------------


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.setflags(write=False)
    return a


def unaligned(a: np.ndarray) -> np.ndarray:
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


LAYOUTS = {
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every other column": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "a window of more": lambda a: np.pad(a, [(1, 2)] * a.ndim)[(slice(1, -2),) * a.ndim],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "backwards in every axis": lambda a: np.flip(np.flip(a).copy()),
    "last axis first": lambda a: np.moveaxis(np.moveaxis(a, -1, 0).copy(), 0, -1),
    "Fortran order": np.asfortranarray,
    "read-only": read_only,
    "unaligned": unaligned,
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "nested lists": lambda a: a.tolist(),
    "a subclass": lambda a: np.ma.masked_array(a),
}


@pytest.fixture(scope="module", params=TARGETS)
def evaluate(request):
    """The logits and the loss of one model."""
    model = small_cnn(nn)

    def logits_and_loss(x, y):
        logits = model(x)
        return logits, F.cross_entropy(logits, y)

    return tn.compile(logits_and_loss, IMAGE, LABEL, target=request.param)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_nothing(evaluate, layout):
    x, y = images(9), labels(9)
    logits, loss = evaluate(x, y)
    brought = LAYOUTS[layout](x), LAYOUTS[layout](y)
    found = evaluate(*brought)
    assert found[0].tobytes() == logits.tobytes() and found[1].tobytes() == loss.tobytes()
    assert np.array_equal(brought[0], x) and np.array_equal(brought[1], y), "an input was written to"


def test_one_row_for_all(evaluate):
    """Strides of 0: a broadcast row."""
    x, y = np.broadcast_to(images(1), (5, 2, 10, 6)), np.broadcast_to(labels(1), 5)
    logits, loss = evaluate(x, y)
    expected = evaluate(x.copy(), y.copy())
    assert np.array_equal(logits, expected[0]) and np.array_equal(loss, expected[1])
    assert np.allclose(logits, logits[0], rtol=1e-5)


def test_out_may_have_any_layout(evaluate):
    x, y = images(4), labels(4)
    logits, loss = evaluate(x, y)
    out = np.zeros((3, 8), np.float32).T[::2], np.zeros((), np.float32)
    found = evaluate(x, y, out=out)
    assert found[0] is out[0] and found[1] is out[1]
    assert np.array_equal(out[0], logits) and out[1] == loss


# --- no rows, one row, many -----------------------------------------------------------------------------------


def training(target: str):
    model = small_cnn(nn)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, tn.train_step(model, F.cross_entropy, optimizer, [IMAGE, LABEL], target=target)


@pytest.mark.parametrize("target", TARGETS)
def test_no_rows_train_nothing(target):
    """As in PyTorch the mean over no rows is NaN, and its gradient is zero."""
    model, step = training(target)
    before = model.state_dict()
    assert np.isnan(step(images(0), labels(0)))
    for name, array in model.state_dict().items():
        assert array.tobytes() == before[name].tobytes(), name
    assert np.isfinite(step(images(5), labels(5)))
    predict = tn.compile(model, IMAGE, target=target)
    assert predict(images(0)).shape == (0, 3)


def test_no_rows_train_as_in_pytorch():
    torch = pytest.importorskip("torch")
    theirs = small_cnn(torch.nn)
    ours, step = training("cpu")
    ours.load_state_dict(theirs.state_dict())
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for count in (5, 0, 3):
        x, y = images(count, seed=count), labels(count)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(step(x, y), loss.item(), rtol=1e-5)
        for name, tensor in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[name], tensor.numpy(), rtol=1e-4, atol=1e-6)


def test_sums_and_maxima_over_no_rows():
    exe = tn.compile(lambda x: (x.sum(0), x.sum(), x.mean(), x.prod(1), (x > 0).all()), tn.spec("B", 3))
    total, overall, mean, products, every = exe(np.zeros((0, 3), np.float32))
    assert total.tolist() == [0, 0, 0] and overall == 0 and np.isnan(mean) and products.shape == (0,) and every


def test_one_program_trains_on_batches_of_any_size():
    """Two copies in step: compiled once, and on the reference."""
    ours, step = training("cpu")
    theirs, reference = training("reference")
    theirs.load_state_dict(ours.state_dict())
    for count in (1, 7, 64, 1000, 7):
        x, y = images(count, seed=count), labels(count)
        np.testing.assert_allclose(step(x, y), reference(x, y), rtol=1e-5)
        for name, array in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[name], array, rtol=1e-4, atol=1e-6)
    assert step.executable.compile_count == 1
    assert step.executable.counters["bindings"] == 4

"""Programs that take no more memory than they may: values are computed again, and results stay the same."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from engine import interpreter
from engine.errors import ShapeError, TenonError, UnsupportedError
from engine.verify import verify
from tenon import F, nn, optim

BATCH, WIDTH, LAYERS = 256, 32, 6
rng = np.random.default_rng(5)
X = rng.normal(size=(BATCH, WIDTH)).astype(np.float32)
Y = rng.integers(0, WIDTH, BATCH)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        return self.dropout(F.tanh(self.linear(x))) + x


def training(**options):
    """A step with dropout, and the model that it trains."""
    tn.seed(1)
    model = nn.Sequential(*(Layer() for _ in range(LAYERS)))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        optimizer.minimize(loss)
        return loss

    return tn.compile(step, tn.spec("B", WIDTH), tn.spec("B", dtype="i64"), **options), model


def arena(exe) -> int:
    return exe.memory(B=BATCH).arena


@pytest.fixture(scope="module")
def whole():
    """The step without a limit: its executable, the losses of two calls, and the weights after them."""
    exe, model = training()
    losses = [float(exe(X, Y)) for _ in range(2)]
    return exe, losses, model.state_dict()


@pytest.mark.parametrize("share", [0.8, 0.6])
def test_a_limit_is_kept_and_changes_no_result(whole, share: float) -> None:
    """Masks of dropout are drawn twice and are the same, else losses and weights would differ."""
    exe, losses, weights = whole
    limit = int(share * arena(exe))
    small, model = training(memory_limit=limit, memory_at={"B": BATCH})
    assert arena(small) <= limit
    np.testing.assert_allclose([float(small(X, Y)) for _ in range(2)], losses, rtol=1e-6)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, weights[name], rtol=1e-6, atol=1e-6, err_msg=name)
    assert np.isfinite(small(X[:3], Y[:3]))  # any other size works too


def test_no_more_is_computed_again_than_the_limit_asks(whole) -> None:
    exe = whole[0]

    def products(share: float) -> int:
        small = training(memory_limit=int(share * arena(exe)), memory_at={"B": BATCH})[0]
        graph = small.stages["rematerialise"]
        verify(graph, expanded=True)
        return sum(n.op.name == "matmul" for n in graph.nodes)

    found = [products(share) for share in (1.0, 0.8, 0.6)]
    assert found == sorted(found) and found[0] == sum(n.op.name == "matmul" for n in exe.stages["layout"].nodes)


def test_the_changed_graph_means_the_same(whole) -> None:
    """Before it is lowered: by the references of its ops."""
    small = training(memory_limit=int(0.6 * arena(whole[0])), memory_at={"B": BATCH})[0]
    before, after = small.stages["layout"], small.stages["rematerialise"]
    assert any(n.op.name == "later" for n in after.nodes)
    inputs = {v.node.attrs["name"]: a[:64] for v, a in zip(before.inputs, (X, Y), strict=True)}
    state = {name: cell.array.copy() for name, cell in small._traced.cells.items()}
    (loss,), updates = interpreter.run(before, inputs, state)
    (other,), others = interpreter.run(after, inputs, state)
    np.testing.assert_allclose(other, loss, rtol=1e-6)
    for name, value in updates.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-6, err_msg=name)


def test_what_cannot_be_reached_is_told_with_what_can() -> None:
    with pytest.raises(
        TenonError, match=r"memory_limit is 1,000 bytes, and step needs at least [\d,]+ bytes .* at B=64"
    ):
        training(memory_limit=1000, memory_at={"B": 64})


@pytest.mark.parametrize("given", ["200", "many MB", "-1 MB", -1, 1.5, True])
def test_limits_are_bytes_or_texts_with_units(given) -> None:
    with pytest.raises(TenonError, match=r'memory_limit is .*; expected bytes, or a text such as "200 MB"'):
        tn.compile(F.relu, tn.spec(3), memory_limit=given)


def test_units_of_memory() -> None:
    from tenon.memory import bytes_of

    assert [bytes_of(t) for t in ("7 B", "1.5 MB", "2KiB", "1 gib", 5)] == [7, 1_500_000, 2048, 2**30, 5]


def test_a_limit_needs_the_sizes_for_which_it_holds() -> None:
    with pytest.raises(ShapeError, match=r'depends on B: memory_limit needs memory_at=\{"B": 64\}'):
        tn.compile(F.relu, tn.spec("B", 3), memory_limit="1 MB")
    with pytest.raises(ShapeError, match="has no dim 'N'; its dims are: B"):
        tn.compile(F.relu, tn.spec("B", 3), memory_limit="1 MB", memory_at={"N": 3})
    with pytest.raises(UnsupportedError, match="memory_limit needs a target whose memory is planned"):
        tn.compile(F.relu, tn.spec(3), memory_limit="1 MB", target="reference")


def test_every_way_to_train_takes_a_limit() -> None:
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    limit = {"memory_limit": 10, "memory_at": {"B": 64}}
    trainer = tn.Trainer(model, optimizer, F.cross_entropy, **limit)
    step = tn.train_step(model, F.cross_entropy, optimizer, [tn.spec("B", WIDTH), tn.spec("B", dtype="i64")], **limit)
    again = tn.function(specs=[tn.spec("B", WIDTH)], **limit)(lambda x: F.softmax(model(x), -1))
    for run in (lambda: trainer.fit(X, Y, verbose=0), lambda: step(X, Y), lambda: again(X)):
        with pytest.raises(TenonError, match="memory_limit is 10 bytes"):
            run()
    trainer.predict(X)  # the limit is that of training

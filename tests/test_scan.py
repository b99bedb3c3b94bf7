"""F.scan: JAX's meaning for any nest, direction and length, with gradients of any order; compiled once."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from engine.errors import DTypeError, IndexRangeError, ShapeError, TraceError
from engine.program_json import from_json, to_json
from engine.text import parse, structurally_equal
from passes.pipeline import graph_passes
from runtime.cpu.target import target as cpu_target
from tenon import F, nn, optim

TARGETS = ("reference", pytest.param("cpu", marks=pytest.mark.slow))
both_targets = pytest.mark.parametrize("target", TARGETS)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * np.float32(0.5)


X, H, W = normal(5, 2, 3), normal(2, 3, seed=1), normal(3, 3, seed=2)
SPECS = (tn.spec("T", "B", 3), tn.spec("B", 3), tn.spec(3, 3))


def by_scan(x, h0, w, reverse=False, **options):
    """A cell with two carries and a sequence of each step's, in nests; w comes from outside."""

    def cell(carry, x):
        h = tn.tanh(x["x"] + carry["h"] @ w)
        return {"h": h, "total": carry["total"] + h.sum()}, (h * 2, x["half"] - h)

    start = {"h": h0, "total": tn.tensor(0.0)}
    last, (twice, less) = F.scan(cell, start, {"x": x, "half": x / 2}, reverse=reverse, **options)
    return (twice**2).sum() + (less**3).sum() + last["total"] * (last["h"] ** 2).sum()


def by_hand(x, h, w, reverse=False, truncate=None):
    total, result = tn.tensor(0.0), tn.tensor(0.0)
    for i, t in enumerate(range(5)[:: -1 if reverse else 1]):
        if truncate and (t if not reverse else i) % truncate == 0:
            h, total = h.detach(), total.detach()
        h = tn.tanh(x[t] + h @ w)
        total = total + h.sum()
        result = result + ((h * 2) ** 2).sum() + ((x[t] / 2 - h) ** 3).sum()
    return result + total * (h**2).sum()


def both(f, g, target, *arrays, specs=SPECS):
    """Values and gradients of ``f``, compiled for ``target``, and of ``g`` on the reference."""
    argnums = tuple(range(len(arrays)))
    found = tn.compile(tn.value_and_grad(f, argnums), *specs, target=target)(*arrays)
    fixed = [tn.spec(*a.shape) for a in arrays]
    expected = tn.compile(tn.value_and_grad(g, argnums), *fixed, target="reference")(*arrays)
    return [(found[0], expected[0]), *zip(found[1], expected[1], strict=True)]


@both_targets
@pytest.mark.parametrize("reverse", [False, True])
def test_values_and_gradients_are_those_of_the_steps_written_out(target, reverse):
    for found, expected in both(
        lambda *a: by_scan(*a, reverse=reverse), lambda *a: by_hand(*a, reverse=reverse), target, X, H, W
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@both_targets
def test_truncated_backpropagation(target):
    for found, expected in both(
        lambda *a: by_scan(*a, truncate=2), lambda *a: by_hand(*a, truncate=2), target, X, H, W
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@both_targets
def test_gradients_of_gradients(target):
    def twice(f):
        return lambda x, h, w: (tn.grad(f, 2)(x, h, w) ** 2).sum() + (tn.grad(f)(x, h, w) ** 2).sum()

    for found, expected in both(twice(by_scan), twice(by_hand), target, X, H, W):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@both_targets
def test_every_length_from_none_on_with_one_program(target):
    def sums(x, start):
        return F.scan(lambda total, x: (total + x, total), start, x)

    exe = tn.compile(sums, tn.spec("T", 3), tn.spec(3), target=target)
    for steps in (0, 1, 2, 3, 8, 301):
        x = normal(steps, 3)
        last, before = exe(x, H[0])
        every = H[0] + np.concatenate([np.zeros((1, 3), np.float32), np.cumsum(x, 0)])
        np.testing.assert_allclose(last, every[-1], atol=1e-4)
        np.testing.assert_allclose(before, every[:-1], atol=1e-4)
    assert exe.compile_count == 1


def test_neither_graph_nor_kernels_grow_with_the_length():
    def kernels(steps):
        exe = tn.compile(tn.grad(by_scan, 2), tn.spec(steps, 2, 3), tn.spec(2, 3), tn.spec(3, 3), target="reference")
        graph = list(exe.stages.values())[-1]
        for name, run in graph_passes(cpu_target()):
            if name not in ("simplify", "autodiff"):
                graph = run(graph)
        (forward, backward) = (n.attrs["body"] for n in graph.nodes if n.op.name == "scan")
        return [len(g.nodes) for g in (graph, forward, backward)], [
            [g.name for g in b.groups] for b in (forward, backward)
        ]

    assert kernels(3) == kernels(3000)


@both_targets
def test_loops_in_loops_and_branches_in_them(target):
    def rows(x, p):
        def row(total, x):
            inner, every = F.scan(lambda a, v: (a * 0.5 + v.sum() * p, a), total, x)
            kept = F.cond(inner.sum() > 0, lambda: inner.exp(), lambda: inner * 3)
            return inner, (kept, every)

        last, (kept, every) = F.scan(row, x[0, 0] * 0, x)
        return (kept * kept).sum() + every.sum() + last.sum()

    def written_out(x, p):
        total, result = x[0, 0] * 0, tn.tensor(0.0)
        for i in range(3):
            for j in range(4):
                result = result + total.sum()
                total = total * 0.5 + x[i, j].sum() * p
            kept = F.where(total.sum() > 0, total.exp(), total * 3)
            result = result + (kept * kept).sum()
        return result + total.sum()

    specs = [tn.spec("R", "C", 2), tn.spec(2)]
    for found, expected in both(
        rows, written_out, target, normal(3, 4, 2), np.array([0.3, -0.7], np.float32), specs=specs
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@both_targets
def test_a_loop_in_a_branch(target):
    def f(x, run):
        def loop():
            return F.scan(lambda a, v: (a + v.log(), a), tn.tensor(0.0), x)[0]

        return F.cond(run, loop, lambda: x.sum())

    exe = tn.compile(tn.value_and_grad(f), tn.spec("T"), tn.spec(dtype="bool"), target=target)
    x = np.array([1, 2, 4], np.float32)
    value, slope = exe(x, np.array(True))
    assert np.isclose(value, np.log(8)) and np.allclose(slope, 1 / x)
    value, slope = exe(-x, np.array(False))
    assert value == -7 and np.array_equal(slope, np.ones(3))


@both_targets
def test_carries_that_change_places_stay_or_are_of_other_dtypes(target):
    def f(a, b, n):
        return F.scan(lambda c, x: ((c[1], c[0], c[2], c[3] + x), (c[0], c[3])), (a, b, a, tn.tensor(5)), n)

    exe = tn.compile(f, tn.spec(2), tn.spec(2), tn.spec("T", dtype="i64"), target=target)
    one, two = np.array([1, 2], np.float32), np.array([3, 4], np.float32)
    for steps in (1, 2, 5):
        (a, b, same, count), (firsts, counts) = exe(one, two, np.arange(steps))
        assert np.array_equal(a, two if steps % 2 else one) and np.array_equal(b, one if steps % 2 else two)
        assert np.array_equal(same, one) and count == 5 + sum(range(steps))
        assert np.array_equal(firsts[-1], one if steps % 2 else two) and counts[0] == 5


def noise(x):
    def step(carry, x):
        kept = F.dropout(carry + x, 0.5)
        return kept, kept

    return F.scan(step, x[0] * 0 + 1, x)[1]


def test_each_step_draws_other_numbers_and_its_gradient_the_same():
    x = np.ones((6, 50), np.float32)
    found = []
    for options in ({"target": "reference"}, {"target": "cpu", "level": 0}, {"target": "cpu"}):
        tn.seed(4)
        exe = tn.compile(tn.value_and_grad(lambda x: noise(x).sum()), tn.spec("T", 50), **options)
        found.append(exe(x))
    tn.seed(4)
    every = tn.compile(noise, tn.spec("T", 50), target="reference")(x)
    masks = every != 0
    assert len({m.tobytes() for m in masks}) == 6 and 0.3 < masks.mean() < 0.7
    chain = np.zeros(50)
    slopes = np.zeros((6, 50))
    for t in reversed(range(6)):
        chain = slopes[t] = (chain + 1) * masks[t] * 2
    slopes[0] = found[0][1][0]  # which the first carry adds to
    for value, slope in found:
        np.testing.assert_allclose(value, every.sum(), rtol=1e-6)
        np.testing.assert_allclose(slope, slopes, rtol=1e-6)


@pytest.mark.slow
def test_the_same_on_any_number_of_threads(monkeypatch):
    x, h, w = normal(4, 70, 40), normal(70, 40), normal(40, 40)
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("TENON_THREADS", threads)
        specs = (tn.spec("T", "B", 40), tn.spec("B", 40), tn.spec(40, 40))
        exe = tn.compile(tn.value_and_grad(by_scan, (0, 1, 2)), *specs)
        for _ in range(20):
            value, slopes = exe(x, h, w)
            found.append([value, *slopes])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


class Cell(nn.Module):
    """The gated cell of a reader of sequences, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.states = nn.Linear(3, 20), nn.Linear(5, 20, bias=False)

    def forward(self, x):
        def step(carry, x):
            h, c = carry
            i, f, g, o = (self.inputs(x) + self.states(h)).chunk(4, -1)
            c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
            h = F.sigmoid(o) * F.tanh(c)
            return (h, c), h

        zeros = tn.zeros(x.shape[1], 5)
        return F.scan(step, (zeros, zeros), x)[1]


@pytest.mark.slow
def test_a_cell_by_hand_trains_as_the_fused_layer():
    by_hand, fused = Cell(), nn.LSTM(3, 5)
    weights = by_hand.state_dict()
    fused.load_state_dict({
        "weight_ih_l0": weights["inputs.weight"], "weight_hh_l0": weights["states.weight"],
        "bias_ih_l0": weights["inputs.bias"], "bias_hh_l0": np.zeros(20, np.float32),
    })  # fmt: skip
    losses = []
    for model, forward in ((by_hand, by_hand), (fused, lambda x: fused(x)[0])):
        weight = [p for n, p in model.named_parameters() if n != "bias_hh_l0"]
        optimizer = optim.SGD(weight, lr=0.1)

        @tn.function(specs=[tn.spec("T", "B", 3)])
        def step(x, forward=forward, optimizer=optimizer):
            loss = (forward(x) ** 2).mean()
            optimizer.minimize(loss)
            return loss

        losses.append([float(step(normal(7, 4, 3, seed=i))) for i in range(5)])
    np.testing.assert_allclose(*losses, rtol=1e-5)


@both_targets
def test_a_check_at_one_step_fails_the_call_and_leaves_state_as_it_was(target):
    table, counter = nn.Embedding(4, 3), nn.Parameter(np.zeros((), np.float32))

    @tn.function(specs=[tn.spec("T", dtype="i64")], target=target)
    def walk(tokens):
        last, _ = F.scan(lambda h, token: (h + table(token), None), tn.zeros(3), tokens)
        counter.assign(counter + 1)
        return last

    rows = table.weight.numpy()
    for _ in range(2):
        np.testing.assert_allclose(walk(np.array([1, 1, 3])), rows[1] * 2 + rows[3], rtol=1e-6)
        with pytest.raises(IndexRangeError, match="index 4 is out of range"):
            walk(np.array([1, 0, 4, 2]))
    assert counter.numpy() == 2


def test_it_prints_parses_back_and_runs():
    exe = tn.compile(tn.value_and_grad(by_scan, (0, 2)), *SPECS, target="reference")
    for graph in exe.stages.values():
        text = str(graph)
        again = parse(text)
        assert structurally_equal(again, graph) and str(again) == text
    assert text.count("@body") == 2 and "scan(" in text


@pytest.mark.slow
def test_the_program_is_plain_data(tmp_path):
    exe = tn.compile(tn.value_and_grad(by_scan, (0, 2)), *SPECS)
    program = exe.stages["program"]
    assert len(program.loops) == 2 and from_json(to_json(program)) == program
    exe.dump(str(tmp_path), X, H, W)
    fused = next(tmp_path.glob("*fuse.py")).read_text()
    assert "@body" in fused


def test_outside_of_tracing_it_runs_at_once():
    last, every = F.scan(
        lambda total, x: (total + x, total * 2), tn.tensor(1.0), tn.tensor([1.0, 2.0, 3.0]), reverse=True
    )
    assert last.item() == 7 and every.tolist() == [12, 8, 2]
    last, nothing = F.scan(lambda n, _: (n * 2, None), tn.tensor(1), length=5)
    assert last.item() == 32 and nothing is None


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return F.scan(lambda h, x: (self.norm(h + x), None), x[0], x)[0]


def scanned(f, *specs, **options):
    return lambda: tn.compile(lambda *xs: F.scan(f, *xs, **options), *specs, target="reference")


S, T = tn.spec(3), tn.spec("T", 3)
BAD = [
    (scanned(lambda c, x: c, S, T), TraceError, r"f returned Tensor; a pair \(carry, y\)"),
    (scanned(lambda c, x: ((c, c), x), S, T), TraceError, r"the carry \(\*, \*\); init is \*"),
    (scanned(lambda c, x: (c.long(), x), S, T), DTypeError, "carry 0 is f32, and f makes it i64"),
    (scanned(lambda c, x: (c.sum(), x), S, T), ShapeError, r"carry 0 has shape \(3,\), and f"),
    (scanned(lambda c, x: (c, "y"), S, T), TraceError, "f's y holds str 'y'"),
    (scanned(lambda c, x: (c, x), S), ShapeError, "without xs it takes the length"),
    (scanned(lambda c, x: (c, x), S, tn.spec(4, 3), length=5), ShapeError, "4 steps beside a length of 5"),
    (scanned(lambda c, x: (c, x), S, tn.spec()), ShapeError, "split along their first axis"),
    (scanned(lambda c, x: (c, x), S, T, truncate=0), ShapeError, "truncate is a number of steps"),
    (lambda: tn.compile(Normed().train(), tn.spec("T", 2, 3)), TraceError, "its function assigns the state norm"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), BAD)
def test_what_is_wrong_is_said(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()


def test_a_value_of_a_step_cannot_be_used_outside():
    left = []

    def f(x):
        F.scan(lambda c, x: (c, left.append(x)), x[0], x)
        return left[0] + 1

    with pytest.raises(TraceError, match="belongs to a program whose tracing has ended"):
        tn.compile(f, tn.spec("T", 3), target="reference")

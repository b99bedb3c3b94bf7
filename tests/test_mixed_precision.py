"""Mixed precision: what is computed in 16 bits and what is not, on graphs and in values, beside PyTorch's autocast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tenon as tn
from engine import dtypes
from engine.dtypes import DType
from engine.graph import Graph
from engine.options import Options
from engine.schedule import Attention, Contraction, Conv2d, ConvWeightGrad, KernelSpec, MaxPool2d, Schedule
from engine.text import structurally_equal
from passes.mixed_precision import mix_precision
from passes.pipeline import graph_passes, inside_out
from passes.schedule import schedule
from runtime.cpu.target import target as cpu
from runtime.cuda.target import target as cuda
from tenon import F, nn, optim
from tenon.specs import as_specs
from tenon.tracing import trace

NARROW = {"bf16": dtypes.bf16, "fp16": dtypes.f16}
UNIT = {"bf16": 2.0**-8, "fp16": 2.0**-11}
both = pytest.mark.parametrize("precision", NARROW)


def mixed(function: Any, *specs: Any, dtype: DType = dtypes.bf16) -> Graph:
    """The trace of ``function`` behind the pass."""
    graph = trace(function, as_specs(specs, "test")).graph
    return inside_out(lambda g: mix_precision(g, dtype))(graph)


def types(graph: Graph, op: str) -> list[tuple[str, ...]]:
    """For each node of an op the dtypes of its float inputs, then of its output."""
    return [
        (*(str(v.dtype) for v in n.inputs if v.dtype.is_float), str(n.outputs[0].dtype))
        for n in graph.nodes
        if n.op.name == op
    ]


def scheduled(function: Any, *specs: Any, target: Any, level: int = 2) -> Schedule:
    graph = trace(function, as_specs(specs, "test")).graph
    for _, run in graph_passes(target, Options(level, dtypes.bf16)):
        graph = run(graph)
    return schedule(graph)


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# --- the pass --------------------------------------------------------------------------------------------------


def test_products_take_and_give_16_bits_and_what_follows_stays_in_16() -> None:
    layer = nn.Linear(8, 8)
    graph = mixed(lambda x: F.relu(layer(x)) @ layer.weight, tn.spec("B", 8))
    assert types(graph, "matmul") == [("bf16", "bf16", "bf16")] * 2
    assert types(graph, "add") == [("bf16", "f32", "f32")]  # the bias is added in float32, and the sum rounded once
    assert types(graph, "relu") == [("bf16", "bf16")]
    assert [str(v.dtype) for v in graph.outputs] == ["f32"]


def test_exact_ops_take_and_give_float32() -> None:
    def function(x: tn.Tensor, w: tn.Tensor) -> Any:
        y = x @ w
        return y.exp(), y.sum(), F.softmax(y, -1), F.mse_loss(y, x), y.cumsum(0), y**1.5, y.log_softmax(-1)

    graph = mixed(function, tn.spec(4, 4), tn.spec(4, 4))
    for op in ("exp", "sum", "softmax", "mse_loss", "linear_scan", "pow", "log_softmax"):
        found = types(graph, op)
        assert found and all(set(t) == {"f32"} for t in found), op


def test_numbers_and_masks_do_not_widen_but_tensors_do() -> None:
    def function(x: tn.Tensor, y: tn.Tensor) -> Any:
        z = x @ x
        return (z * 0.5 + 1) @ x, (z * (y > 0).float()) @ x, z + y

    graph = mixed(function, tn.spec(4, 4), tn.spec(4, 4))
    (half, masked), (plus_one, widest) = types(graph, "mul"), types(graph, "add")
    assert half == masked == plus_one == ("bf16", "f32", "f32") and widest == ("f32", "f32", "f32")
    rounded = [n.inputs[0].node.op.name for n in graph.nodes if n.op.name == "cast" and n.inputs[0].dtype == "f32"]
    assert rounded.count("mul") == 2 and rounded.count("add") == 1


def test_a_value_that_is_only_selected_from_is_rounded_where_it_is_made() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3))
    graph = mixed(model, tn.spec("B", 1, 12, 12))
    assert types(graph, "relu") == [("bf16", "bf16")] and types(graph, "max_pool2d") == [("bf16", "bf16")]
    assert types(graph, "moments") == [("f32", "f32")]  # the statistics of the batch


def test_a_value_that_somebody_reads_in_float32_is_not_rounded_for_all() -> None:
    def function(x: tn.Tensor, w: tn.Tensor) -> Any:
        y = F.relu(F.layer_norm(x, (4,)))
        return y @ w, y

    assert types(mixed(function, tn.spec(3, 4), tn.spec(4, 4)), "relu") == [("f32", "f32")]


def test_other_dtypes_are_left_alone() -> None:
    def function(x: tn.Tensor, y: tn.Tensor, i: tn.Tensor) -> Any:
        return x @ x, y @ y, i @ i, (x @ y.double()).float()

    specs = (tn.spec(2, 2, dtype="f64"), tn.spec(2, 2, dtype="f16"), tn.spec(2, 2, dtype="i64"))
    before = trace(function, as_specs(specs, "test")).graph
    assert structurally_equal(mixed(function, *specs), before)


def test_bodies_of_loops_are_mixed_and_keep_their_types() -> None:
    def function(x: tn.Tensor, w: tn.Tensor) -> Any:
        return tn.F.scan(lambda h, row: ((F.tanh(row @ w + h), row @ w)), tn.zeros(4), x)

    graph = mixed(function, tn.spec("T", 4), tn.spec(4, 4))
    (loop,) = (n for n in graph.nodes if n.op.name == "scan")
    assert ("bf16", "bf16", "bf16") in types(loop.attrs["body"], "matmul")
    assert {str(v.dtype) for v in loop.outputs} == {"f32"}


@pytest.mark.parametrize("level", [0, 2])
def test_recurrences_and_attention_are_products(level: int) -> None:
    rnn, attention = nn.LSTM(4, 4, batch_first=True), nn.MultiheadAttention(4, 2, batch_first=True)

    def function(x: tn.Tensor) -> Any:
        y, _ = rnn(x)
        return attention(y, y, y, need_weights=False)[0]

    graph = mixed(function, tn.spec(2, 5, 4))
    assert all(set(t) == {"bf16"} for op in ("lstm", "attention", "matmul") for t in types(graph, op))
    x = array(2, 5, 4)
    expected = tn.compile(function, tn.spec(2, 5, 4))(x)
    found = tn.compile(function, tn.spec(2, 5, 4), precision="bf16", level=level)(x)
    assert found.dtype == np.float32 and 0 < np.abs(found - expected).max() < 4 * UNIT["bf16"] * np.abs(expected).max()


def test_gradients_arrive_in_the_dtype_of_the_parameters_and_flow_in_16_bits() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @tn.function(specs=[tn.spec("B", 8)], precision="bf16")
    def step(x: tn.Tensor) -> Any:
        loss = model(x).square().mean()
        optimizer.minimize(loss)
        return loss

    stages = step.executable.stages
    traced = stages["precision"]
    assert isinstance(traced, Graph)
    (grads,) = (n for n in traced.nodes if n.op.name == "grad")
    assert {str(v.dtype) for v in grads.outputs} == {"f32"}
    backward = stages["simplify-2"]
    assert isinstance(backward, Graph)
    assert set(types(backward, "matmul")) == {("bf16", "bf16", "bf16")} and len(types(backward, "matmul")) == 5
    assert {str(v.dtype) for v in backward.updates.values() if v.dtype.is_float} == {"f32"}
    assert list(stages)[1:4] == ["simplify", "precision", "autodiff"]


# --- what backends get -------------------------------------------------------------------------------------------


def operands(plan: Schedule) -> list[set[str]]:
    """The dtypes that each product reads."""
    found = []
    for spec in plan.specs:
        assert isinstance(spec, KernelSpec)
        core = spec.core.source if isinstance(spec.core, MaxPool2d) else spec.core
        match core:
            case Contraction():
                found.append({str(core.a.dtype), str(core.b.dtype)})
            case Conv2d():
                found.append({str(core.x.dtype), str(core.w.dtype)})
            case ConvWeightGrad():
                found.append({str(core.x.dtype), str(core.dy.dtype)})
            case Attention():
                names = ("q", "k", "v", "g")
                read = zip(core.reads, spec.reads, strict=True)
                found.append({str(access.dtype) for name, access in read if name in names})
    return found


def training(model: nn.Module, *shape: int) -> tuple[Any, Any]:
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x: tn.Tensor) -> tn.Tensor:
        loss = model(x).square().mean()
        optimizer.minimize(loss)
        return loss

    return step, tn.spec("B", *shape)


MODELS = {
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.Flatten()),
        (2, 12, 12),
    ),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (6, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_tensor_cores_read_16_bits_and_others_float32(name: str) -> None:
    build, shape = MODELS[name]
    on_cuda, on_cpu = (scheduled(*training(build(), *shape), target=target()) for target in (cuda, cpu))
    assert operands(on_cuda) and all(found == {"bf16"} for found in operands(on_cuda))
    assert len(operands(on_cpu)) == len(operands(on_cuda)) and all(found == {"f32"} for found in operands(on_cpu))


def test_what_runs_behind_a_product_rounds_once() -> None:
    layer = nn.Linear(8, 8)
    for target in (cuda(), cpu()):
        (spec,) = (
            s
            for s in scheduled(lambda x: F.gelu(layer(x)) @ layer.weight, tn.spec("B", 8), target=target).specs
            if "gelu" in s.name
        )
        assert isinstance(spec, KernelSpec)
        before_gelu = [s for s in spec.body if s.op == "cast" and s.dtype == "bf16"]
        core = next(s for s in spec.body if s.op == "core")
        assert core.dtype == "f32" and core.name in next(s for s in spec.body if s.op == "add").args
        assert len(before_gelu) <= 2  # where the program says so: the layer's result, and what gelu gives


def test_products_of_float32_are_as_exact_as_asked_for_on_tensor_cores_alone() -> None:
    def products(target: Any, options: Options) -> set[str]:
        from passes.pipeline import compile_graph
        from runtime.cpu.lower import lower

        found: dict[str, Any] = {}
        graph = trace(lambda x: F.relu(x @ x), as_specs([tn.spec(4, 4)], "test")).graph
        compile_graph(graph, target, lower, options, found.__setitem__)
        return {s.products for s in found["schedule"].specs}

    assert products(cuda(), Options(products="medium")) == {"medium"} and products(cuda(), Options()) == {"highest"}
    assert products(cpu(), Options(products="medium")) == {"highest"}


# --- values ------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_compiled_code_gives_what_the_reference_gives(precision: str, level: int) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    function = tn.grad(lambda x: model(x).square().mean())
    x = array(3, 1, 6, 6)
    expected = tn.compile(function, tn.spec("B", 1, 6, 6), target="reference", precision=precision)(x)
    exact = tn.compile(function, tn.spec("B", 1, 6, 6), target="reference")(x)
    found = tn.compile(function, tn.spec("B", 1, 6, 6), level=level, precision=precision)(x)
    assert 0 < np.abs(expected - exact).max() < 8 * UNIT[precision] * np.abs(exact).max()
    assert np.abs(found - expected).max() < 4 * UNIT[precision] * np.abs(exact).max()


def test_weights_stay_in_float32_and_small_updates_are_not_lost() -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = np.ones((1, 2), np.float32)
    step = tn.train_step(
        layer, lambda p, y: (p * y).sum(), optim.SGD(layer.parameters(), lr=1e-4), [tn.spec(1, 2), tn.spec(1, 1)],
        precision="bf16",
    )  # fmt: skip
    for _ in range(10):
        step(np.ones((1, 2), np.float32), np.ones((1, 1), np.float32))
    assert layer.weight.numpy().dtype == np.float32
    np.testing.assert_allclose(layer.weight.numpy(), 1 - 10 * 1e-4, rtol=1e-6)  # each less than half a unit of bf16


def _cnn(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 49, 10),
    )  # fmt: skip


def _encoder(nn: Any) -> Any:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
    return nn.Sequential(nn.Linear(28, 32), layer, nn.Flatten(), nn.Linear(28 * 32, 10))


def _images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Patterns of ten kinds, each with noise."""
    rng = np.random.default_rng(3)
    kinds, y = rng.normal(size=(10, 1, 28, 28)), np.arange(n) % 10
    return (kinds[y] + rng.normal(size=(n, 1, 28, 28))).astype(np.float32), y


CASES = {"cnn": (_cnn, (1, 28, 28)), "encoder": (_encoder, (28, 28))}


def _model(name: str) -> Any:
    tn.seed(1)
    return CASES[name][0](nn)


def _train(name: str, precision: str, steps: int = 12) -> tuple[list[float], Any]:
    model, shape = _model(name), CASES[name][1]
    scaler = optim.GradScaler() if precision == "fp16" else None
    specs = [tn.spec("B", *shape), tn.spec("B", dtype="i64")]
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    step = tn.train_step(model, F.cross_entropy, optimizer, specs, precision=precision, scaler=scaler)
    x, y = _images(40)
    return [float(step(x.reshape(-1, *shape), y)) for _ in range(steps)], model


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_training_goes_as_in_float32(name: str) -> None:
    exact = _train(name, "fp32")[0]
    assert exact[-1] < 0.7 * exact[0]
    for precision, unit in UNIT.items():
        found = _train(name, precision)[0]
        np.testing.assert_allclose(found, exact, atol=8 * unit, err_msg=precision)


@pytest.mark.slow
@both
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_autocast(name: str, precision: str) -> None:
    torch: Any = pytest.importorskip("torch")
    model, shape = _model(name), CASES[name][1]
    peer = CASES[name][0](torch.nn)
    peer.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in model.state_dict().items()})
    x, y = _images(20)
    x = x.reshape(-1, *shape)
    outputs = {}
    for kind in ("exact", "mixed"):
        peer.zero_grad()
        with torch.autocast("cpu", dtype=getattr(torch, str(NARROW[precision].numpy_name)), enabled=kind == "mixed"):
            logits = peer(torch.from_numpy(x))
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
        loss.backward()
        outputs[kind] = [logits.detach().float().numpy(), *(p.grad.float().numpy() for p in peer.parameters())]

    def gradients(x: tn.Tensor, y: tn.Tensor) -> Any:
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        return logits, list(optim.SGD(model.parameters(), lr=1.0).gradients(loss).values())

    exe = tn.compile(gradients, tn.spec("B", *shape), tn.spec("B", dtype="i64"), precision=precision)
    logits, grads = exe(x, y)
    everything = np.linalg.norm([np.linalg.norm(g) for g in outputs["exact"][1:]])
    for found, theirs, exact in zip([logits, *grads], outputs["mixed"], outputs["exact"], strict=True):
        noise = np.linalg.norm(theirs - exact)
        assert np.linalg.norm(found - exact) <= 1.5 * noise + UNIT[precision] / 8 * everything


# --- what users see ----------------------------------------------------------------------------------------------


def test_wrong_values_are_named() -> None:
    with pytest.raises(tn.TenonError, match="precision is 'half'; expected one of 'fp32', 'bf16', 'fp16'"):
        tn.compile(F.relu, tn.spec(3), precision="half")
    with pytest.raises(tn.TenonError, match="precision is 16"):
        tn.Trainer(nn.Linear(1, 1), precision=16)  # type: ignore[arg-type]
    with pytest.raises(tn.TenonError, match="'full'; expected one of 'highest', 'high', 'medium'"):
        tn.set_float32_matmul_precision("full")


def test_exactness_of_products_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENON_FLOAT32_MATMUL_PRECISION", "high")
    assert tn.get_float32_matmul_precision() == "high"
    tn.set_float32_matmul_precision("medium")
    assert tn.get_float32_matmul_precision() == "medium"
    with tn.config(float32_matmul_precision="highest"):
        assert tn.compile(F.relu, tn.spec(3)).options.products == "highest"
    assert tn.compile(F.relu, tn.spec(3)).options.products == "medium"
    x = array(5, 5)
    assert np.array_equal(tn.compile(lambda a: a @ a, tn.spec(5, 5))(x), _products(x))


def _products(x: np.ndarray) -> np.ndarray:
    with tn.config(float32_matmul_precision="highest"):
        return tn.compile(lambda a: a @ a, tn.spec(5, 5))(x)


def test_programs_of_different_precision_are_different() -> None:
    x = array(6, 6)
    plain, mixed = (tn.compile(lambda a: a @ a, tn.spec(6, 6), precision=p)(x) for p in ("fp32", "bf16"))
    assert not np.array_equal(plain, mixed)


def test_dumps_and_explanations_tell_of_it(tmp_path: Any) -> None:
    layer = nn.Linear(4, 4)
    exe = tn.compile(lambda x: F.softmax(layer(x), -1), tn.spec("B", 4), precision="bf16")
    exe.dump(tmp_path)
    (stage,) = tmp_path.glob("*-precision.py")
    assert "bf16" in stage.read_text(encoding="utf-8")
    found = tn.explain(exe)
    assert found.precision is not None and found.precision.narrow == {"matmul": 1}
    assert found.precision.exact == {"softmax": 1}
    assert "in bf16, added up in f32: matmul" in str(found)
    assert "Mixed precision" not in str(tn.explain(tn.compile(layer, tn.spec("B", 4))))


def test_bisect_takes_the_rounding_for_meant_and_still_finds_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    from passes import pipeline

    layer = nn.Linear(4, 4)
    exe = tn.compile(lambda x: (layer(x), layer(x).exp()), tn.spec("B", 4), precision="bf16")
    assert tn.bisect(exe, array(3, 4), folder=None) is None
    monkeypatch.setattr(pipeline, "legalise", lambda graph, target: graph.with_(outputs=graph.outputs[::-1]))
    exe = tn.compile(lambda x: (layer(x), layer(x).exp() + 1), tn.spec("B", 4), precision="bf16")
    found = tn.bisect(exe, array(3, 4), folder=None)
    assert found is not None and (found.kind, found.name) == ("pass", "legalise")

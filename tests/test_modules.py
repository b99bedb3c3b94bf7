"""Containers, hooks, lazily sized layers, and changing a module's dtype."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from frontend_tools import close, traced

import tenon as tn
from engine.errors import DTypeError, ShapeError, StateError, TenonError, UnsupportedError
from frontend import functional as F
from frontend import nn, optim
from frontend.nn.parameter import UninitializedParameter
from frontend.tensor import Tensor

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def keys(module: nn.Module) -> list[str]:
    return list(module.state_dict())


# --- containers ----------------------------------------------------------------------------------------------------


def test_module_list() -> None:
    layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
    layers.append(nn.Linear(4, 2))
    layers.insert(0, nn.Identity())
    assert [type(m).__name__ for m in layers] == ["Identity", "Linear", "Linear", "Linear", "Linear"]
    assert len(layers) == 5 and layers[-1].out_features == 2 and layers[1] in layers
    assert keys(layers)[0] == "1.weight" and isinstance(layers[1:3], nn.ModuleList)
    del layers[0]
    assert keys(layers)[0] == "0.weight" and len(layers) == 4
    layers += [nn.ReLU()]
    layers[4] = nn.Tanh()
    assert isinstance(layers[4], nn.Tanh)
    with pytest.raises(IndexError, match="has 5 modules, and no number 7"):
        layers[7]
    with pytest.raises(NotImplementedError, match="ModuleList has no forward"):
        layers(X)


def test_module_dict() -> None:
    heads = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 2)})
    heads["c"] = nn.Identity()
    assert list(heads) == ["a", "b", "c"] and "b" in heads and len(heads) == 3
    assert keys(heads) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    assert heads.pop("c") is not None and list(heads.keys()) == ["a", "b"]
    assert [name for name, _ in heads.items()] == ["a", "b"] and len(list(heads.values())) == 2


def test_parameter_list_and_dict() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.ParameterList([np.ones(2, np.float32), nn.Parameter(np.zeros(3))])
            self.named = nn.ParameterDict({"scale": np.float32(2) * np.ones(1, np.float32)})

    model = Model()
    assert keys(model) == ["rows.0", "rows.1", "named.scale"]
    assert model.rows[1].shape == (3,) and "scale" in model.named and len(list(model.parameters())) == 3


def test_sequential_is_a_list_too() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model.insert(1, nn.Tanh())
    model.extend([nn.Linear(4, 2)])
    assert [type(m).__name__ for m in model] == ["Linear", "Tanh", "ReLU", "Linear"]
    del model[1]
    assert [type(m).__name__ for m in model[1:]] == ["ReLU", "Linear"]


# --- hooks ---------------------------------------------------------------------------------------------------------


def test_hooks_see_and_change_what_passes() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    seen: list[tuple[int, ...]] = []
    watch = model[0].register_forward_hook(lambda module, args, out: seen.append(tuple(out.shape)))
    double = model.register_forward_hook(lambda module, args, out: out * 2)
    shift = model.register_forward_pre_hook(lambda module, args: args[0] + 1)
    plain = np.maximum((X + 1) @ model[0].weight.numpy().T + model[0].bias.numpy(), 0)
    close(traced(model, (3, 4))(X), plain * 2)
    assert seen == [(3, 2)]
    for handle in (watch, double, shift):
        handle.remove()
    close(traced(model, (3, 4))(X), np.maximum(X @ model[0].weight.numpy().T + model[0].bias.numpy(), 0))
    assert len(seen) == 1


def test_hooks_run_in_order_and_take_keywords() -> None:
    class Scale(nn.Module):
        def forward(self, x: Tensor, by: float = 1.0) -> Tensor:
            return x * by

    order: list[str] = []
    scale = Scale()
    scale.register_forward_hook(lambda *_: order.append("second"))
    scale.register_forward_hook(lambda *_: order.append("first"), prepend=True)
    scale.register_forward_pre_hook(lambda m, args, kwargs: (args, kwargs | {"by": 3.0}), with_kwargs=True)
    close(scale(X, by=2.0), X * 3)
    assert order == ["first", "second"]
    with scale.register_forward_pre_hook(lambda *_: 5, with_kwargs=True), pytest.raises(TenonError, match="not 5"):
        scale(X)
    with pytest.raises(UnsupportedError, match=r"tn.grad or optimizer.gradients\(loss\)"):
        scale.register_full_backward_hook(print)


# --- lazily sized layers -------------------------------------------------------------------------------------------


def test_lazy_layers_learn_their_size() -> None:
    model = nn.Sequential(nn.LazyConv2d(3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    assert repr(model[3]) == "LazyLinear(5)"
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(StateError, match="a parameter of a lazy layer has no shape yet"):
        model.state_dict()

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = F.mse_loss(model(x), y)
        optimizer.minimize(loss)
        return loss

    program = traced(step, ("B", 2, 4, 4), ("B", 5))
    assert {"0.weight", "3.bias", "sgd.lr"} <= set(program.trace.cells)
    first, *_, last = (program(np.ones((6, 2, 4, 4), np.float32), np.ones((6, 5), np.float32)) for _ in range(5))
    assert last < first
    assert type(model[3]) is nn.Linear and (model[3].in_features, model[0].in_channels) == (48, 2)
    assert repr(model[3]) == "Linear(in_features=48, out_features=5, bias=True)"


def test_lazy_layers_keep_what_was_set_before() -> None:
    layer = nn.LazyLinear(2, bias=False, dtype="f64").eval()
    layer.requires_grad_(False)
    layer.register_forward_hook(lambda module, args, out: out + 1)
    weight = layer.weight
    assert isinstance(weight, UninitializedParameter) and layer.bias is None and weight.dtype == tn.f64
    other = copy.deepcopy(layer)
    out = layer(X.astype(np.float64))
    assert layer.weight is weight and not weight.requires_grad and not layer.training
    close(out, X @ weight.numpy().T + 1)
    assert isinstance(other.weight, UninitializedParameter)
    with pytest.raises(ShapeError, match="takes its size from axis -1 of the first input, which is N"):
        traced(nn.LazyLinear(3), ("B", "N"))


# --- dtypes --------------------------------------------------------------------------------------------------------


def test_a_model_in_another_dtype() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    before = model.state_dict()
    assert model.double() is model and {p.dtype for p in model.parameters()} == {tn.f64}
    np.testing.assert_array_equal(model.state_dict()["0.weight"], before["0.weight"].astype(np.float64))
    assert model(X.astype(np.float64)).dtype == tn.f64
    assert {p.dtype for p in model.half().parameters()} == {tn.f16}
    assert {p.dtype for p in model.to("f32").parameters()} == {tn.f32}
    with pytest.raises(DTypeError, match="not i64"):
        model.to("i64")


@pytest.mark.slow
def test_a_compiled_model_keeps_its_dtype() -> None:
    model = nn.Linear(4, 3)
    tn.compile(model, tn.spec("B", 4))
    with pytest.raises(StateError, match="weight cannot become f64: a compiled program holds it as f32"):
        model.double()
    assert copy.deepcopy(model).double().weight.dtype == tn.f64

"""Small programs as newcomers from PyTorch and NumPy write them: what works, and what a mistake is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn, optim

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def reference(function: Any, *specs: object) -> tn.Executable:
    return tn.compile(function, *specs, target="reference")


# --- slices, bounds and formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["reference", "cpu"])
def test_gradients_of_strided_slices_of_any_length(target):
    def f(x):
        return (x[::2] ** 2).sum() + (x[1::3] ** 3).sum() + (x[::-2] * 5).sum()

    exe = tn.compile(tn.grad(f), tn.spec("B"), target=target)
    for size in (2, 7):
        x = np.arange(1, size + 1, dtype=np.float32)
        expected = np.zeros(size, np.float32)
        expected[::2] += 2 * x[::2]
        expected[1::3] += 3 * x[1::3] ** 2
        expected[::-2] += 5
        np.testing.assert_allclose(exe(x), expected)


def test_clamp_gives_its_whole_gradient_to_an_element_at_the_bound():
    x = np.array([-2, -1, 0, 1, 2, np.nan], np.float32)
    exe = reference(tn.value_and_grad(lambda x: x.clamp(-1, 1).sum()), tn.spec(6))
    assert exe(x)[1].tolist() == [0, 1, 1, 1, 0, 1]
    between = reference(lambda x, low, high: x.clamp(low, high), *[tn.spec(4)] * 3)
    low, high = np.array([0, 3, np.nan, 0], np.float32), np.array([1, 2, 1, np.nan], np.float32)
    np.testing.assert_array_equal(between(x[:4], low, high), np.array([0, 2, np.nan, np.nan], np.float32))


def test_functions_of_the_package_are_the_methods():
    x = tn.tensor(X)
    for found, expected in (
        (tn.max(x), X.max()), (tn.min(x, 1).values, X.min(1)), (tn.max(x, 1).indices, X.argmax(1)),
        (tn.max(x, x * 0), X.clip(0)), (tn.clamp(x, -1, 1), X.clip(-1, 1)), (tn.clamp(X, max=0.5), X.clip(None, 0.5)),
        (tn.softmax(x, 1), x.softmax(1)), (tn.log_softmax(x, 0), x.log_softmax(0)),
    ):  # fmt: skip
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "any", "all", "amax", "argmin", "max", "std", "logsumexp"])
def test_reductions_take_the_names_of_numpy(name):
    x = tn.tensor(X)
    for reduce in (getattr(tn, name), getattr(tn.Tensor, name)):
        found, expected = reduce(x, axis=0, keepdims=True), reduce(x, dim=0, keepdim=True)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        with pytest.raises(TypeError, match=f"{name}.. got dim and axis"):
            reduce(x, dim=0, axis=0)


@pytest.mark.parametrize("target", ["reference", "cpu"])
def test_nothing_has_no_extremum(target):
    exe = tn.compile(lambda x: (x.max(1).indices, x.amin((1, 2))), tn.spec("B", 3, "C"), target=target)
    assert [a.shape for a in exe(np.ones((0, 3, 2), np.float32))] == [(0, 2), (0,)]
    with pytest.raises(tn.ShapeError, match=r"min: axis 2 of \(B, 3, C\) is empty, .* no value \(here C=0\)"):
        exe(np.ones((2, 3, 0), np.float32))
    for function in (tn.argmax, tn.max, lambda x: x.min(0)):
        with pytest.raises(tn.ShapeError, match=r"axis 0 of \(0,\) is empty"):
            function(tn.zeros(0))
        with pytest.raises(tn.ShapeError, match=r"axis 0 of \(B,\) is empty, .* \(here B=0\)"):
            reference(function, tn.spec("B"))(np.zeros(0, np.float32))


def test_a_tensor_of_one_element_formats_as_a_number():
    loss = F.mse_loss(tn.tensor([1.0, 2.0]), tn.zeros(2))
    assert f"{loss:.3f}" == "2.500"
    assert f"{loss}" == str(loss)
    with pytest.raises(tn.ShapeError, match="one element was expected"):
        f"{tn.ones(2):.3f}"
    with pytest.raises(tn.TraceError, match="element of a tensor"):
        reference(lambda x: f"{x.sum():.3f}" and x, tn.spec(3))


# --- optimizers -------------------------------------------------------------------------------------------------


def test_an_optimizer_that_is_given_a_module():
    with pytest.raises(TypeError, match=r"model.parameters\(\), not one Linear"):
        optim.SGD(nn.Linear(3, 2), lr=0.1)  # type: ignore[arg-type]


def test_an_optimizer_without_anything_to_train():
    model = nn.Linear(3, 2).requires_grad_(False)
    optimizer = optim.Adam(model.parameters())
    step = tn.train_step(model, F.mse_loss, optimizer, [tn.spec("B", 3), tn.spec("B", 2)], target="reference")
    with pytest.raises(tn.TenonError, match="all 2 parameters of this Adam have requires_grad=False"):
        step(X, X[:, :2])


def test_a_frozen_layer_stays_as_it_is():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    for p in model[0].parameters():
        p.requires_grad_(False)
    before = model.state_dict()
    optimizer = optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    step = tn.train_step(model, F.mse_loss, optimizer, [tn.spec("B", 3), tn.spec("B", 2)], target="reference")
    step(X, X[:, :2])
    changed = [name for name, array in model.state_dict().items() if (array != before[name]).any()]
    assert changed == ["2.weight", "2.bias"]


def test_an_optimizer_is_not_stepped():
    optimizer = optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)
    with pytest.raises(tn.UnsupportedError, match=r"optimizer.minimize\(loss\)"):
        optimizer.step()


def test_an_optimizer_shows_its_groups():
    text = repr(optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1, momentum=0.9))
    assert text.startswith("SGD(ParameterGroup(2 parameters, lr=0.1, momentum=0.9")


# --- mistakes at the border of a program ------------------------------------------------------------------------


def test_a_tensor_that_left_its_program():
    kept = []

    def keep(x):
        kept.append(x.sum())
        return x

    reference(keep, tn.spec(3))
    for use in (float, np.asarray, lambda x: x + 1, lambda x: f"{x:.2f}", bool):
        with pytest.raises(tn.TraceError, match=r"f32\[\(\)\].* belongs to a program whose tracing has ended"):
            use(kept[0])


def test_numpy_and_executables_on_a_symbolic_tensor():
    inner = reference(lambda x: x + 1, tn.spec(3))
    for use in (np.asarray, inner):
        with pytest.raises(tn.TraceError, match=r"NumPy's functions and compiled programs take arrays"):
            reference(lambda x, use=use: use(x), tn.spec(3))


def test_a_class_in_place_of_a_module():
    with pytest.raises(tn.TenonError, match="takes a Module or a function of Tensors, not type"):
        reference(nn.ReLU, tn.spec(3))


def test_methods_are_compiled_once_bound():
    class Model:
        def __init__(self):
            self.layer = nn.Linear(3, 2)

        def run(self, x: tn.spec("B", 3)):
            return self.layer(x)

        decorated = tn.function(run)

    model = Model()
    assert tn.function(model.run)(X).shape == (6, 2)
    with pytest.raises(tn.TenonError, match="does not decorate methods, such as .*Model.run"):
        model.decorated(X)


def test_the_number_and_dtype_of_inputs():
    exe = reference(lambda x: x, tn.spec("B", 3))
    with pytest.raises(tn.TenonError, match=r"expected 1 input \(x\), and got 2"):
        exe(X, X)
    with pytest.raises(tn.DTypeError, match="astype, or give its dtype in the spec"):
        exe(X.astype(np.float64))


@pytest.mark.parametrize("key", [1.0, "a", (slice(None), 0.5)])
def test_an_index_that_is_none(key):
    with pytest.raises(tn.ShapeError, match="a tensor is indexed with integers, slices, None and ..., not with"):
        reference(lambda x: x[key], tn.spec("B", 3))


@pytest.mark.parametrize("shape", [(4,), (3, 1), ()])
def test_stacked_tensors_of_different_shapes(shape):
    with pytest.raises(tn.ShapeError, match=r"stack: the shapes \(3,\) and \(.*\) must be equal"):
        tn.stack([tn.ones(3), tn.ones(3), tn.ones(shape)])


def test_images_without_their_channel_axis():
    with pytest.raises(tn.ShapeError, match=r"\(1, B, 28, 28\) has B channels; a fixed number was expected"):
        reference(nn.Conv2d(1, 4, 3), tn.spec("B", 28, 28))


@pytest.mark.parametrize("given", ["adam", optim.Adam])
def test_a_trainer_with_something_else_than_an_optimizer(given):
    with pytest.raises(tn.TenonError, match=r"such as optim.Adam\(model.parameters\(\)\)"):
        tn.Trainer(nn.Linear(3, 2), optimizer=given, loss=nn.MSELoss())


@pytest.mark.parametrize("given", ["mse", nn.MSELoss])
def test_a_trainer_with_something_else_than_a_loss(given):
    with pytest.raises(tn.TenonError, match=r"such as nn.CrossEntropyLoss\(\)"):
        tn.Trainer(nn.Linear(3, 2), loss=given)


def test_a_training_step_of_something_else():
    model = nn.Linear(3, 2)
    optimizer, specs = optim.SGD(model.parameters(), lr=0.1), [tn.spec("B", 3), tn.spec("B", 2)]
    with pytest.raises(tn.TenonError, match="train_step takes a Module, not function"):
        tn.train_step(lambda x: x, F.mse_loss, optimizer, specs)  # type: ignore[arg-type]
    with pytest.raises(tn.TenonError, match="train_step was given the loss <class .*MSELoss'>"):
        tn.train_step(model, nn.MSELoss, optimizer, specs)
    step = tn.train_step(model, lambda a, b: (F.mse_loss(a, b), a), optimizer, specs, target="reference")
    with pytest.raises(tn.TraceError, match="minimize takes the loss, a scalar Tensor, not tuple"):
        step(X, X[:, :2])


# --- specs ------------------------------------------------------------------------------------------------------


def test_specs_that_are_none():
    with pytest.raises(tn.ShapeError, match="'f32', which is a dtype; .* dtype='f32'"):
        tn.spec("B", 3, "f32")
    with pytest.raises(tn.TenonError, match=r"one spec where a list of them was expected, such as \[spec\(3"):
        tn.function(lambda x: x, specs=tn.spec(3))(X[0])  # type: ignore[call-overload]
    with pytest.raises(tn.TenonError, match="was given 1 spec, one for each tensor"):
        reference(lambda x, y: x, tn.spec(3))


def test_a_size_that_no_dim_gives():
    exe = reference(lambda x: x * 2, tn.spec("2*B"))
    assert exe(np.ones(4, np.float32)).shape == (4,)
    with pytest.raises(tn.ShapeError, match=r"shape \(3,\); expected \(2\*B,\): no B gives the 3 of axis 0"):
        exe(np.ones(3, np.float32))


def test_threads_of_a_user_run_several_programs_at_once() -> None:
    """Each thread calls whichever it likes; results are those of one caller alone."""
    layers = [nn.Linear(16, 24), nn.Linear(16, 40)]
    programs = [tn.compile(layer, tn.spec("B", 16)) for layer in layers]
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((rows, 16)).astype(np.float32) for rows in (1, 9, 700)]
    alone = {(i, j): run(x) for i, run in enumerate(programs) for j, x in enumerate(inputs)}

    def work(seed: int) -> bool:
        chosen = np.random.default_rng(seed).integers(0, (2, 3), (60, 2))
        return all(np.array_equal(programs[i](inputs[j]), alone[i, j]) for i, j in chosen)

    with ThreadPoolExecutor(5) as pool:
        assert all(pool.map(work, range(5)))

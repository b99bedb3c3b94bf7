"""Gradients of gradients, compiled: against finite differences in f64, and inside training steps."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn, optim

RNG = np.random.default_rng(3)
W = RNG.normal(size=(4, 3))
IMAGE, KERNEL = (1, 2, 5, 4), RNG.normal(size=(3, 2, 3, 3))


def dense(x):
    return ((x @ W).tanh() ** 2).sum()


def classifier(x):
    return F.cross_entropy(x @ W, np.array([0, 2, 1, 2, 0]))


def convolution(x):
    y = F.conv2d(x, KERNEL, padding=1)
    return (F.sigmoid(y) * y).mean()


def pooled(x):
    return (F.max_pool2d(F.conv2d(x, KERNEL, padding=1), 2) ** 3).sum()


def mixed(x):
    y = (x**2 + 1).log() * x.exp() / (2 + x.sqrt())
    return (y.T @ y).amax(1).sum() + F.softmax(x, 0).prod(1).sum()


FUNCTIONS = [(dense, (5, 4)), (classifier, (5, 4)), (convolution, IMAGE), (pooled, IMAGE), (mixed, (3, 4))]


def slope(function, x, along, step=1e-5):
    """The central difference of ``function`` at ``x`` in a direction."""
    return (function(x + step * along) - function(x - step * along)) / (2 * step)


@pytest.mark.slow
@pytest.mark.parametrize(("function", "shape"), FUNCTIONS, ids=lambda v: getattr(v, "__name__", None))
def test_a_second_derivative_is_the_slope_of_the_first(function, shape):
    x, u, v = (RNG.uniform(0.2, 1, size=shape) for _ in range(3))
    spec = tn.spec(*shape, dtype="f64")

    def along(x, u):
        return (tn.grad(function)(x) * u).sum()

    value = tn.compile(function, spec)
    first = tn.compile(along, spec, spec)
    second = tn.compile(lambda x, u, v: (tn.grad(along)(x, u) * v).sum(), spec, spec, spec)
    np.testing.assert_allclose(first(x, u), slope(value, x, u), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(second(x, u, v), slope(lambda x: first(x, u), x, v), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(second(x, u, v), second(x, v, u), rtol=1e-9)  # a Hessian is symmetric


@pytest.mark.parametrize("target", ["reference", "cpu"])
def test_derivatives_of_a_polynomial(target):
    """f = x^5 five times: 5x^4, 20x^3, 60x^2, 120x, 120."""

    def derivative(order):
        if order == 0:
            return lambda x: (x**5).sum()
        lower = tn.grad(derivative(order - 1))
        return lambda x: lower(x).sum()

    def all_of_them(x):
        return [tn.grad(derivative(order))(x) for order in range(5)]

    x = np.array([-1.5, 0.0, 2.0])
    exe = tn.compile(all_of_them, tn.spec(3, dtype="f64"), target=target)
    for found, expected in zip(exe(x), (5 * x**4, 20 * x**3, 60 * x**2, 120 * x, 120 + 0 * x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_value_and_gradients_of_several_arguments():
    def f(a, b, c):
        return ((a * b).exp() + c).sum()

    exe = tn.compile(tn.value_and_grad(f, (0, 2)), tn.spec("N"), tn.spec("N"), tn.spec("N"))
    a, b, c = RNG.normal(size=(3, 11)).astype(np.float32)
    value, (da, dc) = exe(a, b, c)
    np.testing.assert_allclose(value, (np.exp(a * b) + c).sum(), rtol=1e-5)
    np.testing.assert_allclose(da, b * np.exp(a * b), rtol=1e-5)
    assert (dc == 1).all()


# --- a gradient penalty: the loss holds a gradient, and is minimised ------------------------------------------


def critic(nn):
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def penalised_step(model, lr):
    optimizer = optim.SGD(model.parameters(), lr=lr)

    @tn.function
    def step(x: tn.spec("B", 6), y: tn.spec("B", 1)):
        slopes = tn.grad(lambda x: model(x).sum())(x)
        penalty = (((slopes**2).sum(1) + 1e-6).sqrt() - 1).square().mean()
        loss = F.mse_loss(model(x), y) + 10 * penalty
        optimizer.minimize(loss)
        return loss, penalty

    return step


def test_a_gradient_penalty_trains_as_in_pytorch():
    torch = pytest.importorskip("torch")
    theirs, ours = critic(torch.nn), critic(nn)
    ours.load_state_dict(theirs.state_dict())
    step = penalised_step(ours, 0.02)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.02)
    x, y = RNG.normal(size=(16, 6)).astype(np.float32), RNG.normal(size=(16, 1)).astype(np.float32)
    for _ in range(10):
        inputs = torch.from_numpy(x).requires_grad_()
        (slopes,) = torch.autograd.grad(theirs(inputs).sum(), inputs, create_graph=True)
        penalty = (((slopes**2).sum(1) + 1e-6).sqrt() - 1).square().mean()
        loss = torch.nn.functional.mse_loss(theirs(inputs), torch.from_numpy(y)) + 10 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(step(x, y), [loss.item(), penalty.item()], rtol=1e-4)
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], tensor.numpy(), rtol=1e-3, atol=1e-5)


def test_a_gradient_penalty_pulls_slopes_to_one():
    tn.seed(0)
    step = penalised_step(critic(nn), 0.02)
    x, y = RNG.normal(size=(64, 6)).astype(np.float32), np.zeros((64, 1), np.float32)
    penalties = [float(step(x, y)[1]) for _ in range(200)]
    assert penalties[-1] < 0.1 * penalties[0]

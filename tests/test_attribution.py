"""tn.attribute against its formulas written in PyTorch and its axioms; pictures of it and of attention."""

from __future__ import annotations

import numpy as np
import pytest

import tenon as tn
from tenon import F, nn

X = np.random.default_rng(0).normal(size=(5, 1, 6, 6)).astype(np.float32)
TARGET = np.array([0, 2, 1, 2, 0])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(36, 3)

    def forward(self, x):
        x = self.drop(F.max_pool2d(F.tanh(self.conv(x)), 2))
        return self.out(x.flatten(1))


@pytest.fixture(scope="module")
def model() -> Net:
    tn.seed(0)
    return Net()


@pytest.fixture(scope="module")
def twin(model):
    """The same scores in PyTorch."""
    torch = pytest.importorskip("torch")
    weights = {name: torch.from_numpy(np.array(a)) for name, a in model.state_dict().items()}

    def score(x, target):
        x = torch.nn.functional.conv2d(x, weights["conv.weight"], weights["conv.bias"], padding=1)
        x = torch.nn.functional.max_pool2d(torch.tanh(x), 2).flatten(1)
        scores = x @ weights["out.weight"].T + weights["out.bias"]
        return scores.gather(1, torch.from_numpy(target)[:, None])[:, 0]

    return score


def gradient(score, x, target):
    import torch

    source = torch.from_numpy(x).requires_grad_()
    score(source, target).sum().backward()
    return source.grad.numpy()


def test_saliency_is_the_size_of_the_gradient(model, twin):
    found = tn.attribute(model, X, TARGET)
    np.testing.assert_allclose(found, np.abs(gradient(twin, X, TARGET)), rtol=1e-4, atol=1e-6)
    assert found.shape == X.shape and found.dtype == X.dtype
    assert model.training  # as it was; the model was looked at in evaluation mode all the same


def test_integrated_gradients_are_those_of_their_formula(model, twin):
    baseline = np.float32(0.3)
    found = tn.attribute(model, X, TARGET, "integrated_gradients", steps=20, baseline=baseline)
    nodes, weights = np.polynomial.legendre.leggauss(20)
    mean = sum(
        w / 2 * gradient(twin, (baseline + (n + 1) / 2 * (X - baseline)).astype(np.float32), TARGET)
        for n, w in zip(nodes, weights, strict=True)
    )
    np.testing.assert_allclose(found, (X - baseline) * mean, rtol=1e-3, atol=1e-5)


def test_completeness(model):
    """The attributions add up to what the score has more than at the baseline: Sundararajan et al. (2017), axiom."""
    model.eval()
    try:
        scores = tn.compile(model, tn.spec("B", 1, 6, 6), target="reference")
        gained = (scores(X) - scores(np.zeros_like(X)))[np.arange(5), TARGET]
    finally:
        model.train()
    found = tn.attribute(model, X, TARGET, "integrated_gradients", steps=100)
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), gained, atol=5e-3)


def test_several_inputs_functions_and_single_scores():
    def score(x, weight, index):
        return (x * x * weight).sum(1) + index.float()

    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 4, 3)).astype(np.float32)
    found = tn.attribute(score, (x, weight, np.arange(4)))
    np.testing.assert_allclose(found[0], np.abs(2 * x * weight), rtol=1e-5)
    np.testing.assert_allclose(found[1], x * x, rtol=1e-5)
    assert found[2] is None
    parts = tn.attribute(score, (x, weight, np.arange(4)), None, "integrated_gradients", baseline=(0, weight, 0))
    np.testing.assert_allclose(parts[0], x * x * weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(parts[1], 0, atol=1e-6)


def test_what_cannot_be_meant_is_told(model):
    with pytest.raises(tn.TenonError, match="'saliency' or 'integrated_gradients' was expected"):
        tn.attribute(model, X, TARGET, "lime")
    with pytest.raises(tn.TenonError, match="steps is 0; a whole number of at least 1"):
        tn.attribute(model, X, TARGET, steps=0)
    with pytest.raises(tn.DTypeError, match="the inputs hold int64; .* need an input of floats"):
        tn.attribute(model, np.arange(3), 0)
    with pytest.raises(tn.TenonError, match="so a target: the class, or one for each example, was expected"):
        tn.attribute(model, X)
    with pytest.raises(tn.IndexRangeError, match="classes from 0 to 2 were expected"):
        tn.attribute(model, X, 3)
    with pytest.raises(tn.ShapeError, match="a class, or 5 of them"):
        tn.attribute(model, X, [0, 1])
    with pytest.raises(tn.ShapeError, match="what broadcasts to"):
        tn.attribute(model, X, 0, "integrated_gradients", baseline=np.zeros(5))
    with pytest.raises(tn.ShapeError, match=r"scores \(B, classes\), or one a piece"):
        tn.attribute(lambda x: x, X, 0)


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    weights = np.random.default_rng(0).dirichlet(np.ones(5), size=(3, 4))
    figure = tn.plot_attention(weights, tmp_path / "attention.png", queries="abcd", keys="vwxyz")
    assert [panel.get_title() for panel in figure.axes[:3]] == ["head 0", "head 1", "head 2"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list("abcd")
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), weights[1])
    figure = tn.plot_attribution(X - 0.5, X, tmp_path / "attribution.png", titles=list("12345"))
    assert len(figure.axes) == 10
    np.testing.assert_array_equal(figure.axes[7].images[0].get_array(), X[2, 0] - 0.5)
    for name in ("attention.png", "attribution.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(tn.TenonError, match="there are 3 queries for weights of shape"):
        tn.plot_attention(weights, queries="abc")
    with pytest.raises(tn.ShapeError, match=r"\(N, C, H, W\) or \(N, H, W\) was expected"):
        tn.plot_attribution(np.ones(3))
    with pytest.raises(tn.ShapeError, match=r"\(heads, queries, keys\) was expected"):
        tn.plot_attention(np.ones(3))

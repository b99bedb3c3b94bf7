"""The models of :mod:`benchmarks.models` that are written in JAX, too, over weights with the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Weights = dict[str, Any]


def _linear(weights: Weights, name: str, x: Any) -> Any:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def mlp(weights: Weights, x: Any) -> Any:
    return _linear(weights, "2", jax.nn.relu(_linear(weights, "0", x)))


def cnn(weights: Weights, x: Any) -> Any:
    for name in ("conv1", "conv2"):
        x = lax.conv(x, weights[f"{name}.weight"], (1, 1), "SAME") + weights[f"{name}.bias"][:, None, None]
        x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = jax.nn.relu(_linear(weights, "fc1", x.reshape(-1, 64 * 7 * 7)))
    return _linear(weights, "fc2", x)


MODELS: dict[str, tuple[Callable[..., Any], dict[str, tuple[int, ...]]]] = {
    "mlp": (mlp, {"0.weight": (128, 784), "0.bias": (128,), "2.weight": (10, 128), "2.bias": (10,)}),
    "cnn": (
        cnn,
        {
            "conv1.weight": (32, 1, 3, 3),
            "conv1.bias": (32,),
            "conv2.weight": (64, 32, 3, 3),
            "conv2.bias": (64,),
            "fc1.weight": (128, 64 * 7 * 7),
            "fc1.bias": (128,),
            "fc2.weight": (10, 128),
            "fc2.bias": (10,),
        },
    ),
}


def sgd_step(forward: Callable[..., Any], rate: float) -> Callable[..., Any]:
    """New weights and the loss, mean cross-entropy."""

    def loss(weights: Weights, x: Any, y: Any) -> Any:
        scores = jax.nn.log_softmax(forward(weights, x))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    def step(weights: Weights, x: Any, y: Any) -> Any:
        value, slopes = jax.value_and_grad(loss)(weights, x, y)
        return jax.tree.map(lambda w, g: w - rate * g, weights, slopes), value

    return step

"""The models of :mod:`benchmarks.models` in JAX, over weights with the same names.

A model is a function of weights, inputs and whether it trains; it gives logits and, by name, the running statistics
that training changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Weights = dict[str, Any]
Model = Callable[..., tuple[Any, Weights]]


def part(weights: Mapping[str, Any], name: str) -> Weights:
    """The weights below ``name``."""
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def linear(weights: Weights, x: Any) -> Any:
    return x @ weights["weight"].T + weights["bias"]


def mlp(weights: Weights, train: bool, x: Any) -> tuple[Any, Weights]:
    return linear(part(weights, "2"), jax.nn.relu(linear(part(weights, "0"), x))), {}


def cnn(weights: Weights, train: bool, x: Any) -> tuple[Any, Weights]:
    for name in ("conv1", "conv2"):
        x = conv(part(weights, name), x, padding=1) + weights[f"{name}.bias"][:, None, None]
        x = max_pool(jax.nn.relu(x), 2, 2)
    x = jax.nn.relu(linear(part(weights, "fc1"), x.reshape(-1, 64 * 7 * 7)))
    return linear(part(weights, "fc2"), x), {}


# --- sequences -------------------------------------------------------------------------------------------------


def lstm(weights: Weights, train: bool, x: Any) -> tuple[Any, Weights]:
    states = x.swapaxes(0, 1)
    layers = part(weights, "lstm")
    for layer in range(2):
        w, u, b, c = (layers[f"{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))

        def step(carry: tuple[Any, Any], gates: Any, u: Any = u, c: Any = c) -> tuple[tuple[Any, Any], Any]:
            h, cell = carry
            i, f, g, o = jnp.split(gates + h @ u.T + c, 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return (h, cell), h

        zeros = jnp.zeros((x.shape[0], u.shape[1]), x.dtype)
        _, states = lax.scan(step, (zeros, zeros), states @ w.T + b)
    return linear(part(weights, "fc"), states[-1]), {}


def layer_norm(weights: Weights, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weights["weight"] + weights["bias"]


def attend(q: Any, k: Any, v: Any, heads: int, causal: bool = False) -> Any:
    """Attention over (batch, length, width), each head a part of the width."""
    q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal).reshape(*q.shape[:2], -1)


def multihead(weights: Weights, x: Any, memory: Any, heads: int = 8) -> Any:
    projections = zip(jnp.split(weights["in_proj_weight"], 3), jnp.split(weights["in_proj_bias"], 3), strict=True)
    q, k, v = (y @ w.T + b for y, (w, b) in zip((x, memory, memory), projections, strict=True))
    return linear(part(weights, "out_proj"), attend(q, k, v, heads))


def feed_forward(weights: Weights, x: Any, activation: Callable[[Any], Any]) -> Any:
    return linear(part(weights, "linear2"), activation(linear(part(weights, "linear1"), x)))


def gelu(x: Any) -> Any:
    return jax.nn.gelu(x, approximate=False)


def encoder(weights: Weights, train: bool, tokens: Any) -> tuple[Any, Weights]:
    x = weights["tokens.weight"][tokens] + weights["positions.weight"]
    for layer in range(2):
        block = part(weights, f"blocks.layers.{layer}")
        normed = layer_norm(part(block, "norm1"), x)
        x = x + multihead(part(block, "self_attn"), normed, normed)
        x = x + feed_forward(block, layer_norm(part(block, "norm2"), x), gelu)
    return linear(part(weights, "head"), layer_norm(part(weights, "blocks.norm"), x)), {}


def seq2seq(weights: Weights, train: bool, source: Any, target: Any) -> tuple[Any, Weights]:
    block, x = part(weights, "encoder"), weights["tokens.weight"][source] + weights["positions.weight"]
    x = layer_norm(part(block, "norm1"), x + multihead(part(block, "self_attn"), x, x))
    memory = layer_norm(part(block, "norm2"), x + feed_forward(block, x, jax.nn.relu))
    block, x = part(weights, "decoder"), weights["tokens.weight"][target] + weights["positions.weight"]
    x = layer_norm(part(block, "norm1"), x + multihead(part(block, "self_attn"), x, x))
    x = layer_norm(part(block, "norm2"), x + multihead(part(block, "multihead_attn"), x, memory))
    x = layer_norm(part(block, "norm3"), x + feed_forward(block, x, jax.nn.relu))
    return linear(part(weights, "head"), x), {}


def gpt(weights: Weights, train: bool, tokens: Any) -> tuple[Any, Weights]:
    x = weights["tokens.weight"][tokens] + weights["positions.weight"]
    for layer in range(4):
        block = part(weights, f"blocks.{layer}")
        q, k, v = jnp.split(linear(part(block, "qkv"), layer_norm(part(block, "norm1"), x)), 3, axis=-1)
        x = x + linear(part(block, "project"), attend(q, k, v, 8, causal=True))
        up = gelu(linear(part(block, "up"), layer_norm(part(block, "norm2"), x)))
        x = x + linear(part(block, "down"), up)
    return linear(part(weights, "head"), layer_norm(part(weights, "norm"), x)), {}


# --- images ----------------------------------------------------------------------------------------------------


def conv(weights: Weights, x: Any, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
    pads = [(padding, padding)] * 2
    return lax.conv_general_dilated(x, weights["weight"], (stride, stride), pads, feature_group_count=groups)


def max_pool(x: Any, size: int, stride: int, padding: int = 0) -> Any:
    pads = [(0, 0)] * 2 + [(padding, padding)] * 2
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, size, size), (1, 1, stride, stride), pads)


class Norms:
    """Batch norms of a model, and the running statistics that they leave: momentum 0.1, as PyTorch's."""

    def __init__(self, weights: Weights, train: bool):
        self.weights, self.train = weights, train
        self.changed: Weights = {}

    def __call__(self, name: str, x: Any) -> Any:
        w = part(self.weights, name)
        mean, var = w["running_mean"], w["running_var"]
        if self.train:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            count = x.size // x.shape[1]
            for key, now in (("running_mean", mean), ("running_var", var * count / (count - 1))):
                self.changed[f"{name}.{key}"] = 0.9 * w[key] + 0.1 * now
        scale = w["weight"] * lax.rsqrt(var + 1e-5)
        return x * scale[:, None, None] + (w["bias"] - mean * scale)[:, None, None]


def resnet18(weights: Weights, train: bool, x: Any) -> tuple[Any, Weights]:
    norm = Norms(weights, train)
    x = max_pool(jax.nn.relu(norm("0.1", conv(part(weights, "0.0"), x, 2, 3))), 3, 2, 1)
    for stage in range(1, 5):
        for number in range(2):
            name = f"{stage}.{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            y = jax.nn.relu(norm(f"{name}.bn1", conv(part(weights, f"{name}.conv1"), x, stride, 1)))
            y = norm(f"{name}.bn2", conv(part(weights, f"{name}.conv2"), y, 1, 1))
            if stride > 1:
                x = norm(f"{name}.downsample.1", conv(part(weights, f"{name}.downsample.0"), x, stride))
            x = jax.nn.relu(x + y)
    return linear(part(weights, "7"), x.mean((2, 3))), norm.changed


def mobile(weights: Weights, train: bool, x: Any) -> tuple[Any, Weights]:
    norm = Norms(weights, train)
    x = jax.nn.relu6(norm("1", conv(part(weights, "0"), x, 2, 1)))
    blocks = sorted({int(found[1]) for key in weights if (found := re.match(r"(\d+)\.layers\.", key))})
    strides = dict.fromkeys(blocks, 1) | {blocks[i]: 2 for i in (1, 3, 6, 13)}
    for number in blocks:
        layers, y, last = part(weights, f"{number}.layers"), x, 0
        convolutions = sorted(int(key.split(".")[0]) for key, w in layers.items() if w.ndim == 4)
        for last in convolutions:
            w = part(layers, str(last))
            depthwise = w["weight"].shape[1] == 1
            groups = w["weight"].shape[0] if depthwise else 1
            y = conv(w, y, strides[number] if depthwise else 1, int(depthwise), groups)
            y = norm(f"{number}.layers.{last + 1}", y)
            y = jax.nn.relu6(y) if last != convolutions[-1] else y
        x = x + y if x.shape == y.shape else y
    after = blocks[-1] + 1
    x = jax.nn.relu6(norm(f"{after + 1}", conv(part(weights, str(after)), x)))
    return linear(part(weights, f"{after + 5}"), x.mean((2, 3))), norm.changed


MODELS: dict[str, Model] = {
    model.__name__: model for model in (mlp, cnn, lstm, encoder, seq2seq, gpt, resnet18, mobile)
}


# --- steps -----------------------------------------------------------------------------------------------------


def train_step(model: Model, optimizer: str, rate: float) -> Callable[..., Any]:
    """A function of weights, the optimizer's state, inputs and target, which gives the first two anew and the loss."""

    def loss(trained: Weights, fixed: Weights, inputs: Any, target: Any) -> Any:
        logits, changed = model({**trained, **fixed}, True, *inputs)
        scores = jax.nn.log_softmax(logits.reshape(-1, logits.shape[-1]))
        return -jnp.take_along_axis(scores, target.reshape(-1, 1), 1).mean(), changed

    def step(weights: Weights, state: Any, *given: Any) -> Any:
        *inputs, target = given
        fixed = {name: w for name, w in weights.items() if "running_" in name or "num_batches" in name}
        trained = {name: w for name, w in weights.items() if name not in fixed}
        (value, changed), slopes = jax.value_and_grad(loss, has_aux=True)(trained, fixed, inputs, target)
        if optimizer == "SGD":
            trained = jax.tree.map(lambda w, g: w - rate * g, trained, slopes)
        else:
            trained, state = _adam(trained, state, slopes, rate)
        return {**trained, **fixed, **changed}, state, value

    return step


def first_state(weights: Weights) -> Any:
    """Adam's moments and the number of its next step."""
    return jax.tree.map(jnp.zeros_like, weights), jax.tree.map(jnp.zeros_like, weights), jnp.float32(1)


def _adam(weights: Weights, state: Any, slopes: Weights, rate: float) -> Any:
    """Kingma and Ba (2014), with PyTorch's constants."""
    first, second, number = state
    first = {name: 0.9 * first[name] + 0.1 * g for name, g in slopes.items()}
    second = {name: 0.999 * second[name] + 0.001 * g * g for name, g in slopes.items()}
    sizes = 1 - 0.9**number, jnp.sqrt(1 - 0.999**number)
    weights = {
        name: w - rate / sizes[0] * first[name] / (jnp.sqrt(second[name]) / sizes[1] + 1e-8)
        for name, w in weights.items()
    }
    return weights, (first, second, number + 1)

"""The models of :mod:`benchmarks.models` in tinygrad, over weights with the same names.

A model is a function of weights and inputs that gives logits. In training, batch norms leave their new running
statistics in the weights, as tinygrad's own do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tinygrad import Context, Tensor, TinyJit
from tinygrad.nn import BatchNorm, Embedding, optim

Weights = dict[str, Tensor]
Model = Callable[..., Tensor]


def part(weights: Mapping[str, Tensor], name: str) -> Weights:
    """The weights below ``name``."""
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def linear(weights: Weights, x: Tensor) -> Tensor:
    return x.linear(weights["weight"].T, weights["bias"])


def mlp(weights: Weights, x: Tensor) -> Tensor:
    return linear(part(weights, "2"), linear(part(weights, "0"), x).relu())


def cnn(weights: Weights, x: Tensor) -> Tensor:
    for name in ("conv1", "conv2"):
        x = x.conv2d(weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1).relu().max_pool2d((2, 2))
    return linear(part(weights, "fc2"), linear(part(weights, "fc1"), x.reshape(-1, 64 * 7 * 7)).relu())


# --- sequences -------------------------------------------------------------------------------------------------


def embed(weights: Weights, tokens: Tensor) -> Tensor:
    """Rows of ``tokens.weight`` as tinygrad's layer finds them, and the positions'."""
    table = Embedding(*weights["tokens.weight"].shape)
    table.weight = weights["tokens.weight"]
    return table(tokens) + weights["positions.weight"]


def layer_norm(weights: Weights, x: Tensor) -> Tensor:
    return x.layernorm() * weights["weight"] + weights["bias"]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int = 8, causal: bool = False) -> Tensor:
    """Attention over (batch, length, width), each head a part of the width."""
    batch, length, width = q.shape
    q, k, v = (x.reshape(batch, -1, heads, width // heads).transpose(1, 2) for x in (q, k, v))
    return q.scaled_dot_product_attention(k, v, is_causal=causal).transpose(1, 2).reshape(batch, length, width)


def multihead(weights: Weights, x: Tensor, memory: Tensor) -> Tensor:
    projections = zip(weights["in_proj_weight"].chunk(3), weights["in_proj_bias"].chunk(3), strict=True)
    q, k, v = (y.linear(w.T, b) for y, (w, b) in zip((x, memory, memory), projections, strict=True))
    return linear(part(weights, "out_proj"), attend(q, k, v))


def feed_forward(weights: Weights, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    return linear(part(weights, "linear2"), activation(linear(part(weights, "linear1"), x)))


def gelu(x: Tensor) -> Tensor:
    return x.gelu("none")


def encoder(weights: Weights, tokens: Tensor) -> Tensor:
    x = embed(weights, tokens)
    for layer in range(2):
        block = part(weights, f"blocks.layers.{layer}")
        normed = layer_norm(part(block, "norm1"), x)
        x = x + multihead(part(block, "self_attn"), normed, normed)
        x = x + feed_forward(block, layer_norm(part(block, "norm2"), x), gelu)
    return linear(part(weights, "head"), layer_norm(part(weights, "blocks.norm"), x))


def seq2seq(weights: Weights, source: Tensor, target: Tensor) -> Tensor:
    block, x = part(weights, "encoder"), embed(weights, source)
    x = layer_norm(part(block, "norm1"), x + multihead(part(block, "self_attn"), x, x))
    memory = layer_norm(part(block, "norm2"), x + feed_forward(block, x, Tensor.relu))
    block, x = part(weights, "decoder"), embed(weights, target)
    x = layer_norm(part(block, "norm1"), x + multihead(part(block, "self_attn"), x, x))
    x = layer_norm(part(block, "norm2"), x + multihead(part(block, "multihead_attn"), x, memory))
    x = layer_norm(part(block, "norm3"), x + feed_forward(block, x, Tensor.relu))
    return linear(part(weights, "head"), x)


def gpt(weights: Weights, tokens: Tensor) -> Tensor:
    x = embed(weights, tokens)
    for layer in range(4):
        block = part(weights, f"blocks.{layer}")
        q, k, v = linear(part(block, "qkv"), layer_norm(part(block, "norm1"), x)).chunk(3, dim=-1)
        x = x + linear(part(block, "project"), attend(q, k, v, causal=True))
        x = x + linear(part(block, "down"), gelu(linear(part(block, "up"), layer_norm(part(block, "norm2"), x))))
    return linear(part(weights, "head"), layer_norm(part(weights, "norm"), x))


# --- images ----------------------------------------------------------------------------------------------------


def norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    """tinygrad's batch norm, over these weights."""
    layer = BatchNorm(x.shape[1])
    for key, value in part(weights, name).items():
        setattr(layer, key, value)
    return layer(x)


def resnet18(weights: Weights, x: Tensor) -> Tensor:
    x = norm(weights, "0.1", x.conv2d(weights["0.0.weight"], stride=2, padding=3)).relu()
    x = x.max_pool2d((3, 3), 2, padding=1)
    for stage in range(1, 5):
        for number in range(2):
            name, stride = f"{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            y = x.conv2d(weights[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = norm(weights, f"{name}.bn1", y).relu().conv2d(weights[f"{name}.conv2.weight"], padding=1)
            if stride > 1:
                x = norm(weights, f"{name}.downsample.1", x.conv2d(weights[f"{name}.downsample.0.weight"], stride=2))
            x = (norm(weights, f"{name}.bn2", y) + x).relu()
    return linear(part(weights, "7"), x.mean((2, 3)))


def mobile(weights: Weights, x: Tensor) -> Tensor:
    x = norm(weights, "1", x.conv2d(weights["0.weight"], stride=2, padding=1)).relu6()
    blocks = sorted({int(found[1]) for key in weights if (found := re.match(r"(\d+)\.layers\.", key))})
    strides = dict.fromkeys(blocks, 1) | {blocks[i]: 2 for i in (1, 3, 6, 13)}
    for number in blocks:
        layers, y = part(weights, f"{number}.layers"), x
        convolutions = sorted(int(key.split(".")[0]) for key, w in layers.items() if w.ndim == 4)
        for place in convolutions:
            w = layers[f"{place}.weight"]
            y = y.conv2d(w, groups=w.shape[0], stride=strides[number], padding=1) if w.shape[1] == 1 else y.conv2d(w)
            y = norm(layers, str(place + 1), y)
            y = y.relu6() if place != convolutions[-1] else y
        x = x + y if x.shape == y.shape else y
    after = blocks[-1] + 1
    x = norm(weights, f"{after + 1}", x.conv2d(weights[f"{after}.weight"])).relu6()
    return linear(part(weights, f"{after + 5}"), x.mean((2, 3)))


MODELS: dict[str, Model] = {model.__name__: model for model in (mlp, cnn, encoder, seq2seq, gpt, resnet18, mobile)}
"""All but the LSTM: a recurrence is written out step by step, and does not compile in minutes."""


# --- steps -----------------------------------------------------------------------------------------------------


def infer(model: Model, weights: Weights) -> Callable[..., Tensor]:
    """A function of the inputs, which gives logits."""

    @TinyJit
    def step(*inputs: Tensor) -> Tensor:
        with Context(TRAINING=0):
            return model(weights, *inputs).realize()

    return step


def train_step(model: Model, weights: Weights, optimizer: str, rate: float) -> Callable[..., Tensor]:
    """A function of inputs and target, which updates the weights and gives the loss."""
    for name, w in weights.items():
        w.is_param_("running_" not in name and "num_batches" not in name)
    update = getattr(optim, optimizer)(list(weights.values()), lr=rate)

    @TinyJit
    def step(*given: Tensor) -> Any:
        *inputs, target = given
        with Context(TRAINING=1):
            update.zero_grad()
            logits = model(weights, *inputs)
            loss = logits.reshape(-1, logits.shape[-1]).sparse_categorical_crossentropy(target.reshape(-1)).backward()
            return loss.realize(*update.schedule_step())

    return step

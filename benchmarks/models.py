"""The models that are measured, once, in the vocabulary that Tenon and PyTorch share, and what each is given.

A builder takes ``nn`` and ``F`` of either. :func:`weights` gives every engine the same weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


def mlp(nn: Any, F: Any) -> Any:
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn(nn: Any, F: Any) -> Any:
    class CNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 32, kernel_size=3, stride=1, padding=1)
            self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=1, padding=1)
            self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
            self.fc1 = nn.Linear(64 * 7 * 7, 128)
            self.fc2 = nn.Linear(128, 10)

        def forward(self, x):  # type: ignore[no-untyped-def]
            x = self.pool(F.relu(self.conv1(x)))
            x = self.pool(F.relu(self.conv2(x)))
            x = x.reshape(-1, 64 * 7 * 7)  # the seed writes view, which PyTorch refuses in channels_last
            return self.fc2(F.relu(self.fc1(x)))

    return CNN()


def lstm(nn: Any, F: Any) -> Any:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(28, 128, 2, batch_first=True)
            self.fc = nn.Linear(128, 10)

        def forward(self, x):  # type: ignore[no-untyped-def]
            out, _ = self.lstm(x)
            return self.fc(out[:, -1])

    return Classifier()


def encoder(nn: Any, F: Any) -> Any:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(128, 8, 128, 0.0, "gelu", batch_first=True, norm_first=True)
            self.tokens = nn.Embedding(1000, 128)
            self.positions = nn.Embedding(64, 128)
            self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(128), enable_nested_tensor=False)
            self.head = nn.Linear(128, 1000)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.head(self.blocks(self.tokens(x) + self.positions.weight))

    return Encoder()


def seq2seq(nn: Any, F: Any) -> Any:
    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(1000, 128)
            self.positions = nn.Embedding(32, 128)
            self.encoder = nn.TransformerEncoderLayer(128, 8, dropout=0.0, batch_first=True)
            self.decoder = nn.TransformerDecoderLayer(128, 8, dropout=0.0, batch_first=True)
            self.head = nn.Linear(128, 1000)

        def forward(self, source, target):  # type: ignore[no-untyped-def]
            memory = self.encoder(self.tokens(source) + self.positions.weight)
            return self.head(self.decoder(self.tokens(target) + self.positions.weight, memory))

    return Transformer()


@dataclass(frozen=True)
class GPTSize:
    length: int = 128
    width: int = 256
    heads: int = 8
    blocks: int = 4
    vocabulary: int = 256


def gpt(nn: Any, F: Any, size: GPTSize | None = None) -> Any:
    size = size or GPTSize()
    width, heads, length = size.width, size.heads, size.length

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):  # type: ignore[no-untyped-def]
            parts = self.qkv(self.norm1(x)).reshape(-1, length, 3, heads, width // heads)
            q, k, v = (parts[:, :, i].transpose(1, 2) for i in range(3))
            found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.project(found.transpose(1, 2).reshape(-1, length, width))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(size.vocabulary, width), nn.Embedding(length, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(size.blocks)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, size.vocabulary)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.head(self.norm(self.blocks(self.tokens(x) + self.positions.weight)))

    return GPT()


def resnet18(nn: Any, F: Any) -> Any:
    """He et al. (2015), "Deep residual learning for image recognition", as torchvision names it."""

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.downsample = nn.Identity()
            if inputs != outputs:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x):  # type: ignore[no-untyped-def]
            y = F.relu(self.bn1(self.conv1(x)))
            return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))

    stages = [nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))]
    for width in (128, 256, 512):
        stages.append(nn.Sequential(Block(width // 2, width, 2), Block(width, width, 1)))
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(stem, *stages, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(512, 1000))


def mobile(nn: Any, F: Any) -> Any:
    """Sandler et al. (2018), "MobileNetV2: inverted residuals and linear bottlenecks", table 2."""

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
        window = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [window, nn.BatchNorm2d(outputs)]

    class Bottleneck(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
            super().__init__()
            inner = inputs * factor
            widen = [*conv(inputs, inner, 1), nn.ReLU6()] if factor > 1 else []
            depthwise = [*conv(inner, inner, 3, stride, inner), nn.ReLU6()]
            self.layers = nn.Sequential(*widen, *depthwise, *conv(inner, outputs, 1))
            self.residual = stride == 1 and inputs == outputs

        def forward(self, x):  # type: ignore[no-untyped-def]
            return x + self.layers(x) if self.residual else self.layers(x)

    layers = [*conv(3, 32, 3, 2), nn.ReLU6()]
    width = 32
    for factor, outputs, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ):  # fmt: skip
        for number in range(count):
            layers.append(Bottleneck(width, outputs, 1 if number else stride, factor))
            width = outputs
    layers += [*conv(width, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Given:
    """An input of this shape, the batch first: normal float32, or int64 from 0 to ``below``."""

    shape: tuple[int, ...]
    below: int = 0

    def array(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.integers(0, self.below, self.shape) if self.below else rng.standard_normal(self.shape, np.float32)


@dataclass(frozen=True)
class Case:
    """A model with its inputs; with ``target`` it is a training step, without it is inference. ``level`` is the one
    that Tenon compiles at, where it is not the default."""

    name: str
    build: Callable[[Any, Any], Any]
    inputs: tuple[Given, ...]
    target: Given | None = None
    optimizer: str = "SGD"
    level: int | None = None

    @property
    def model(self) -> str:
        return self.name.split(":")[0]

    @property
    def rate(self) -> float:
        return {"SGD": 1e-2, "Adam": 1e-3}[self.optimizer]

    def arrays(self) -> list[np.ndarray]:
        """The inputs, then the target where there is one."""
        given = [*self.inputs, *([self.target] if self.target else [])]
        return [g.array(seed) for seed, g in enumerate(given, 1)]


def _cases(
    name: str,
    build: Callable[[Any, Any], Any],
    shape: tuple[int, ...],
    modes: Mapping[str, int],
    classes: int,
    optimizer: str = "SGD",
    vocabulary: int = 0,
    inputs: int = 1,
    level: int | None = None,
) -> Iterable[Case]:
    """Cases of one model: ``modes`` gives the batch of each, ``shape`` that of an example."""
    for mode, batch in modes.items():
        labels = Given((batch, *shape) if vocabulary else (batch,), classes)
        target = labels if mode == "train" else None
        yield Case(f"{name}:{mode}", build, (Given((batch, *shape), vocabulary),) * inputs, target, optimizer, level)


def _modes(batch: int) -> dict[str, int]:
    return {"train": batch, "infer": batch, "infer1": 1}


CASES = {
    case.name: case
    for case in (
        *_cases("mlp", mlp, (784,), _modes(128), 10),
        *_cases("cnn", cnn, (1, 28, 28), _modes(64), 10),
        *_cases("lstm", lstm, (28, 28), _modes(64), 10, "Adam"),
        *_cases("encoder", encoder, (64,), _modes(16), 1000, "Adam", vocabulary=1000),
        *_cases("seq2seq", seq2seq, (32,), _modes(16), 1000, "Adam", vocabulary=1000, inputs=2),
        *_cases("gpt", gpt, (128,), _modes(8), 256, "Adam", vocabulary=256),
        *_cases("resnet18", resnet18, (3, 32, 32), {"train": 32}, 1000),
        *_cases("resnet18", resnet18, (3, 224, 224), {"infer": 8, "infer1": 1}, 1000),
        *_cases("resnet18", resnet18, (3, 224, 224), {"infer:level3": 8, "infer1:level3": 1}, 1000, level=3),
        *_cases("mobile", mobile, (3, 224, 224), {"infer1": 1}, 1000),
    )
}


def chosen(names: str) -> list[Case]:
    """The cases that a comma list names. Raises SystemExit for one that is unknown."""
    found: list[Case] = []
    for name in names.split(","):
        cases = [c for c in CASES.values() if name in ("all", c.name, c.model)]
        if not cases:
            raise SystemExit(f"unknown workload {name!r}; known are all, {', '.join(CASES)}")
        found += cases
    return found


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Small weights, each drawn from its own name; what norms multiply by and divide by is near one."""
    found = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("num_batches_tracked"):
            found[name] = np.zeros(shape, np.int64)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            found[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            bound = np.prod(shape[1:], dtype=float) ** -0.5 if len(shape) > 1 else 0.05
            drawn = rng.random(shape, np.float32)
            drawn *= np.float32(2 * bound)
            drawn -= np.float32(bound)
            found[name] = drawn
    return found


def load(model: Any, wrap: Callable[[np.ndarray], Any]) -> Any:
    """The model with :func:`weights`, each as ``wrap`` makes it of an array."""
    shapes = {name: tuple(v.shape) for found in (model.named_parameters(), model.named_buffers()) for name, v in found}
    model.load_state_dict({name: wrap(value) for name, value in weights(shapes).items()})
    return model

"""Where in a sequence something stands, told to attention: by waves, by turning, by distance."""

from __future__ import annotations

import math

import numpy as np

from engine import dtypes
from engine.errors import ShapeError, TenonError
from frontend import shaping
from frontend.dispatch import call
from frontend.sizes import SizeLike, plain
from frontend.tensor import Tensor, as_tensor

__all__ = ["alibi_bias", "rotary_embedding", "sinusoidal_positions"]


def _angles(positions: Tensor, features: int, base: float) -> Tensor:
    """``position * base**(-2i / features)`` (..., features / 2), f32."""
    rates = np.exp(np.arange(0, features, 2) * (-math.log(base) / features)).astype(np.float32)
    return positions.to(dtypes.f32).unsqueeze(-1) * as_tensor(rates)


def sinusoidal_positions(length: SizeLike, features: int, base: float = 10000.0) -> Tensor:
    """Sines and cosines of the position, in turn, at wavelengths from 2 pi to ``base`` * 2 pi: (length, features), f32.

    Vaswani et al. (2017), "Attention is all you need", section 3.5.
    """
    angles = _angles(call("iota", shape=(plain(length),), axis=0), features, base)
    waves = shaping.stack([angles.sin(), angles.cos()], -1)
    return waves.reshape(length, 2 * angles.shape[-1])[:, :features]


def rotary_embedding(
    x: Tensor, positions: Tensor | None = None, base: float = 10000.0, interleaved: bool = False
) -> Tensor:
    """Pairs of features of ``x`` (..., L, E) turned by an angle that grows with the position, so that products of
    queries and keys depend on how far they are apart. ``positions`` (L) or (..., L) are 0, 1, ... unless given. Feature
    i is paired with i + E / 2, or with its neighbour where ``interleaved``.

    Su et al. (2021), "RoFormer". Raises ShapeError for an odd E.
    """
    x = as_tensor(x)
    features = x.shape[-1]
    if not isinstance(features, int) or features % 2:
        raise ShapeError(f"rotary_embedding turns pairs: the number of features must be even, not {features}")
    if positions is None:
        positions = call("iota", shape=(plain(x.shape[-2]),), axis=0)
    angles = _angles(as_tensor(positions), features, base)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    if interleaved:
        pairs = x.reshape(*x.shape[:-1], features // 2, 2)
        a, b = pairs[..., 0], pairs[..., 1]
        return shaping.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(*x.shape)
    a, b = x[..., : features // 2], x[..., features // 2 :]
    return shaping.concat([a * cos - b * sin, a * sin + b * cos], -1)


def alibi_bias(num_heads: int, query_length: SizeLike, key_length: SizeLike) -> Tensor:
    """What is added to scores (num_heads, L, S) so that attention falls off with distance, f32: the last query stands
    at the last key. Keys behind a query get a bias as if they were before it; a causal mask hides them.

    Press et al. (2021), "Train short, test long"; for numbers of heads that are no powers of two its reference code.
    """
    if num_heads < 1:
        raise TenonError(f"alibi_bias: num_heads must be at least 1, not {num_heads}")
    whole = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / whole) for i in range(whole)]
    slopes += [2 ** (-4 * (2 * i + 1) / whole) for i in range(num_heads - whole)]
    shape = (1, plain(query_length), plain(key_length))
    query = call("iota", shape=shape, axis=1) + (key_length - query_length)
    distance = (query - call("iota", shape=shape, axis=2)).abs()
    return distance.to(dtypes.f32) * -as_tensor(np.array(slopes, np.float32).reshape(-1, 1, 1))

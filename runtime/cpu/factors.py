"""Factors that a body multiplies sums by, one for each channel, taken into the weights where these are packed.

So is a norm in evaluation: its factor and the weights are made of state that a program only reads, and are packed when
that changes. A sum is then multiplied by nothing, and its first summand is all that is left of the norm.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from engine.schedule import Access, Stmt

Taken = tuple[tuple[Stmt, ...], Access | None]


def take_factor(body: Sequence[Stmt], reads: Sequence[Access], weights: Access, lasting: Collection[str]) -> Taken:
    """``body``, over the axes of an image, without the product that alone reads its sum, and the factor of that, which
    has one element a channel; or as it is, and None. ``lasting`` names the buffers that stay from call to call."""
    sums = [s for s in body if s.op == "core"]
    users = [s for s in body if sums and sums[0].name in s.args]
    if len(sums) != 1 or len(users) != 1 or users[0].op != "mul" or weights.buffer not in lasting:
        return tuple(body), None
    product, number = users[0], sums[0].name
    other = next((a for a in product.args if a != number), number)
    factor = next((s for s in body if s.name == other and s.op == "load"), None)
    if factor is None:
        return tuple(body), None
    access = reads[int(factor.args[0])]
    alone = sum(other in s.args for s in body) == 1
    fits = access.buffer in lasting and access.strides == (0, 0, 0, 1)
    if not (alone and fits and access.dtype == product.dtype == sums[0].dtype == weights.dtype):
        return tuple(body), None
    left = [s for s in body if s not in (sums[0], factor)]
    return tuple(replace(s, op="core", args=(0,)) if s is product else s for s in left), access

"""Keeping gradients small: by value, or by the norm of all of them together."""

from __future__ import annotations

from frontend import reducing
from frontend.bounds import clamp
from frontend.dispatch import call
from frontend.nn.parameter import Parameter
from frontend.tensor import Tensor

Gradients = dict[Parameter, Tensor]


def global_norm(grads: Gradients, norm_type: float = 2.0) -> Tensor:
    """The norm of all gradients as one vector, a scalar: ``sum(|g|**norm_type) ** (1 / norm_type)``, or the greatest
    magnitude for ``inf``."""
    if norm_type == float("inf"):
        greatest = [reducing.amax(call("abs", g)) for g in grads.values()]
        found = greatest[0]
        for other in greatest[1:]:
            found = call("maximum", found, other)
        return found
    if norm_type == 2:
        powers = [reducing.sum(call("square", g)) for g in grads.values()]
    else:
        powers = [reducing.sum(call("abs", g) ** norm_type) for g in grads.values()]
    total = powers[0]
    for power in powers[1:]:
        total = total + power
    return call("sqrt", total) if norm_type == 2 else total ** (1 / norm_type)


def clip_grad_norm(grads: Gradients, max_norm: float, norm_type: float = 2.0) -> Gradients:
    """``grads`` scaled together so that their norm is at most ``max_norm``: Pascanu et al. (2013), "On the difficulty
    of training recurrent neural networks".

    PyTorch: torch.nn.utils.clip_grad_norm_. Differs: it returns the clipped gradients.
    """
    scale = call("minimum", max_norm / (global_norm(grads, norm_type) + 1e-6), 1.0)
    return {p: (g * scale).to(g.dtype) for p, g in grads.items()}


def clip_grad_value(grads: Gradients, clip_value: float) -> Gradients:
    """``grads`` with each element between ``-clip_value`` and ``clip_value``.

    PyTorch: torch.nn.utils.clip_grad_value_. Differs: it returns the clipped gradients.
    """
    return {p: clamp(g, -clip_value, clip_value) for p, g in grads.items()}

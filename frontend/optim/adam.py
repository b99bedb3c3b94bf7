"""Adam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.errors import TenonError
from frontend import creation
from frontend.dispatch import call
from frontend.nn.parameter import Buffer
from frontend.optim.optimizer import Optimizer, Params, decayed, number_in
from frontend.tensor import Tensor


class Adam(Optimizer):
    """Kingma and Ba (2015), "Adam: a method for stochastic optimization", in PyTorch's form:

    ``m += (1 - b1) * (g - m)``, ``v = b2 * v + (1 - b2) * g * g``,
    ``p -= lr / (1 - b1**t) * m / (sqrt(v) / sqrt(1 - b2**t) + eps)``.

    ``weight_decay`` adds ``weight_decay * p`` to the gradient, ``maximize`` ascends, and ``amsgrad`` puts the greatest
    ``v`` so far in its place: Reddi et al. (2018), "On the convergence of Adam and beyond".
    """

    name = "adam"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, lr, options)

    def _check(self, options: Mapping[str, Any]) -> None:
        if len(options["betas"]) != 2:
            raise TenonError(f"betas must be two numbers, not {options['betas']}")
        for beta in options["betas"]:
            number_in("betas", beta, 0, 1)
        number_in("eps", options["eps"], 0)
        number_in("weight_decay", options["weight_decay"], 0)

    def _moments(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if options["amsgrad"] else ("exp_avg", "exp_avg_sq")

    def _counts(self, options: Mapping[str, Any]) -> bool:
        return True

    def _scalars(self, options: Mapping[str, Any], lr: Tensor, step: Tensor | None) -> tuple[Tensor, Tensor]:
        assert step is not None
        beta1, beta2 = options["betas"]
        return lr / _bias_correction(beta1, step), call("sqrt", _bias_correction(beta2, step))

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: dict[str, Buffer]
    ) -> Tensor:
        step_size, correction = scalars
        beta1, beta2 = options["betas"]
        grad = decayed(options, param, grad)
        mean = state["exp_avg"] + (1 - beta1) * (grad - state["exp_avg"])
        square = beta2 * state["exp_avg_sq"] + (1 - beta2) * (grad * grad)
        state["exp_avg"].assign(mean)
        state["exp_avg_sq"].assign(square)
        if options["amsgrad"]:
            square = call("maximum", state["max_exp_avg_sq"], square)
            state["max_exp_avg_sq"].assign(square)
        return param - step_size * (mean / (call("sqrt", square) / correction + options["eps"]))


def _bias_correction(beta: float, step: Tensor) -> Tensor:
    """1 - beta**step. In f32 the power would lose half of the digits while it is close to 1; expm1 keeps them."""
    if beta == 0:
        return creation.ones((), dtype=step.dtype)
    return -call("expm1", step * math.log(beta))

"""Optimizers made for large batches and large models: LAMB and Lion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from frontend import reducing
from frontend.dispatch import call
from frontend.optim.adam import Betas, bias_correction, check_betas, decoupled, moments
from frontend.optim.optimizer import Common, Optimizer, Params, State
from frontend.tensor import Tensor


class LAMB(Optimizer):
    """You et al. (2020), "Large batch optimization for deep learning: training BERT in 76 minutes".

    Adam's step with bias correction, ``r = m' / (sqrt(v') + eps) + weight_decay * p``, scaled for each parameter as a
    whole: ``p -= lr * |p| / |r| * r``, where a norm of 0 leaves the scale at 1.
    """

    name = "lamb"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        **common: Unpack[Common],
    ):
        options = {"betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, lr, options, **common)

    def _check(self, options: Mapping[str, Any]) -> None:
        check_betas(options)

    def _moments(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0, "exp_avg_sq": 0}

    def _shared(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"step": 0}

    def _scalars(self, options: Mapping[str, Any], lr: Tensor, shared: State) -> tuple[Tensor, Tensor, Tensor]:
        beta1, beta2 = options["betas"]
        return lr, bias_correction(beta1, shared["step"]), bias_correction(beta2, shared["step"])

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        lr, of_mean, of_square = scalars
        new = moments(options, -grad if options["maximize"] else grad, state)
        step = new["exp_avg"] / of_mean / (call("sqrt", new["exp_avg_sq"] / of_square) + options["eps"])
        if options["weight_decay"]:
            step = step + options["weight_decay"] * param
        size, length = (call("sqrt", reducing.sum(call("square", x))) for x in (param, step))
        both = call("and_", size > 0, length > 0)
        trust = call("where", both, size / call("where", both, length, 1.0), 1.0)
        return param - lr * trust * step, new


class Lion(Optimizer):
    """Chen et al. (2023), "Symbolic discovery of optimization algorithms": ``p -= lr * (sign(b1 * m + (1 - b1) * g) +
    weight_decay * p)``, ``m = b2 * m + (1 - b2) * g``."""

    name = "lion"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        betas: Betas = (0.9, 0.99),
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        **common: Unpack[Common],
    ):
        options = {"betas": tuple(betas), "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, lr, options, **common)

    def _check(self, options: Mapping[str, Any]) -> None:
        check_betas(options)

    def _moments(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0}

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        beta1, beta2 = options["betas"]
        grad = -grad if options["maximize"] else grad
        mean = state["exp_avg"]
        direction = call("sign", beta1 * mean + (1 - beta1) * grad)
        return decoupled(options, scalars, param) - scalars * direction, {"exp_avg": beta2 * mean + (1 - beta2) * grad}

"""Adam and its relatives: AdamW, Adamax, NAdam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from engine.errors import TenonError
from frontend import creation
from frontend.dispatch import call
from frontend.optim.optimizer import Common, Optimizer, Params, State, decayed, number_in
from frontend.tensor import Tensor

Betas = tuple[float, float]


class Adam(Optimizer):
    """Kingma and Ba (2015), "Adam: a method for stochastic optimization", in PyTorch's form:

    ``m += (1 - b1) * (g - m)``, ``v = b2 * v + (1 - b2) * g * g``,
    ``p -= lr / (1 - b1**t) * m / (sqrt(v) / sqrt(1 - b2**t) + eps)``.

    ``weight_decay`` adds ``weight_decay * p`` to the gradient, ``maximize`` ascends, and ``amsgrad`` puts the greatest
    ``v`` so far in its place: Reddi et al. (2018), "On the convergence of Adam and beyond".

    PyTorch: torch.optim.Adam. Differs: decoupled_weight_decay is not there: see AdamW.
    """

    name = "adam"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **common: Unpack[Common],
    ):
        options = {
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, lr, options, **common)

    def _check(self, options: Mapping[str, Any]) -> None:
        check_betas(options)

    def _moments(self, options: Mapping[str, Any]) -> dict[str, float]:
        names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if options["amsgrad"] else ("exp_avg", "exp_avg_sq")
        return dict.fromkeys(names, 0)

    def _shared(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"step": 0}

    def _scalars(self, options: Mapping[str, Any], lr: Tensor, shared: State) -> tuple[Tensor, Tensor, Tensor]:
        beta1, beta2 = options["betas"]
        step = shared["step"]
        return lr, lr / bias_correction(beta1, step), call("sqrt", bias_correction(beta2, step))

    def _decayed(self, options: Mapping[str, Any], lr: Tensor, param: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The parameter and the gradient with the weight decay in one of them."""
        return param, decayed(options, param, grad)

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        lr, step_size, correction = scalars
        param, grad = self._decayed(options, lr, param, grad)
        new = moments(options, grad, state)
        square = new["exp_avg_sq"]
        if options["amsgrad"]:
            square = new["max_exp_avg_sq"] = call("maximum", state["max_exp_avg_sq"], square)
        return param - step_size * (new["exp_avg"] / (call("sqrt", square) / correction + options["eps"])), new


class AdamW(Adam):
    """Adam whose weight decay leaves the gradient alone: ``p -= lr * weight_decay * p`` before the step. Loshchilov and
    Hutter (2019), "Decoupled weight decay regularization".

    PyTorch: torch.optim.AdamW.
    """

    name = "adamw"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **common: Unpack[Common],
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, **common)

    def _decayed(self, options: Mapping[str, Any], lr: Tensor, param: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        return decoupled(options, lr, param), -grad if options["maximize"] else grad


class Adamax(Optimizer):
    """Adam with the infinity norm, from the same paper: ``u = max(b2 * u, |g| + eps)``, ``p -= lr / (1 - b1**t) * m /
    u``.

    PyTorch: torch.optim.Adamax.
    """

    name = "adamax"

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
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
        return {"exp_avg": 0, "exp_inf": 0}

    def _shared(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"step": 0}

    def _scalars(self, options: Mapping[str, Any], lr: Tensor, shared: State) -> Tensor:
        return lr / bias_correction(options["betas"][0], shared["step"])

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        beta1, beta2 = options["betas"]
        grad = decayed(options, param, grad)
        mean = state["exp_avg"] + (1 - beta1) * (grad - state["exp_avg"])
        norm = call("maximum", beta2 * state["exp_inf"], call("abs", grad) + options["eps"])
        return param - scalars * (mean / norm), {"exp_avg": mean, "exp_inf": norm}


class NAdam(Optimizer):
    """Dozat (2016), "Incorporating Nesterov momentum into Adam", in PyTorch's form: with
    ``mu(t) = b1 * (1 - 0.5 * 0.96**(t * momentum_decay))`` and ``P`` the product of all ``mu`` so far,
    ``p -= lr * ((1 - mu(t)) / (1 - P) * g + mu(t + 1) / (1 - P * mu(t + 1)) * m) / (sqrt(v / (1 - b2**t)) + eps)``.

    PyTorch: torch.optim.NAdam.
    """

    name = "nadam"

    def __init__(
        self,
        params: Params,
        lr: float = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        **common: Unpack[Common],
    ):
        options = {
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, lr, options, **common)

    def _check(self, options: Mapping[str, Any]) -> None:
        check_betas(options)
        number_in("momentum_decay", options["momentum_decay"], 0)

    def _moments(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"exp_avg": 0, "exp_avg_sq": 0}

    def _shared(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"step": 0, "mu_product": 1.0}

    def _mu(self, options: Mapping[str, Any], step: Tensor) -> Tensor:
        return options["betas"][0] * (1 - 0.5 * call("exp", step * (options["momentum_decay"] * math.log(0.96))))

    def _advance(self, options: Mapping[str, Any], shared: State) -> dict[str, Tensor]:
        step = shared["step"] + 1
        return {"step": step, "mu_product": shared["mu_product"] * self._mu(options, step.double())}

    def _scalars(self, options: Mapping[str, Any], lr: Tensor, shared: State) -> tuple[Tensor, ...]:
        step, product = shared["step"], shared["mu_product"]
        now, following = self._mu(options, step), self._mu(options, step + 1)
        correction = bias_correction(options["betas"][1], step)
        return lr, lr * (1 - now) / (1 - product), lr * following / (1 - product * following), correction

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        lr, of_gradient, of_mean, correction = scalars
        if options["decoupled_weight_decay"]:
            param, grad = decoupled(options, lr, param), -grad if options["maximize"] else grad
        else:
            grad = decayed(options, param, grad)
        new = moments(options, grad, state)
        spread = call("sqrt", new["exp_avg_sq"] / correction) + options["eps"]
        return param - of_gradient * (grad / spread) - of_mean * (new["exp_avg"] / spread), new


def check_betas(options: Mapping[str, Any]) -> None:
    """Raise TenonError for betas, eps or weight_decay out of range."""
    if len(options["betas"]) != 2:
        raise TenonError(f"betas must be two numbers, not {options['betas']}")
    for beta in options["betas"]:
        number_in("betas", beta, 0, 1)
    if "eps" in options:
        number_in("eps", options["eps"], 0)
    number_in("weight_decay", options["weight_decay"], 0)


def moments(options: Mapping[str, Any], grad: Tensor, state: State) -> dict[str, Tensor]:
    """The running means of the gradient and of its square."""
    beta1, beta2 = options["betas"]
    return {
        "exp_avg": state["exp_avg"] + (1 - beta1) * (grad - state["exp_avg"]),
        "exp_avg_sq": beta2 * state["exp_avg_sq"] + (1 - beta2) * (grad * grad),
    }


def decoupled(options: Mapping[str, Any], lr: Tensor, param: Tensor) -> Tensor:
    """The parameter less its own decay."""
    return param * (1 - lr * options["weight_decay"]) if options["weight_decay"] else param


def bias_correction(beta: float, step: Tensor) -> Tensor:
    """1 - beta**step. In f32 the power would lose half of the digits while it is close to 1; expm1 keeps them."""
    if beta == 0:
        return creation.ones((), dtype=step.dtype)
    return -call("expm1", step * math.log(beta))

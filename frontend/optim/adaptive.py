"""Optimizers that scale each element's step by its past gradients: RMSprop, Adagrad, Adadelta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from frontend.dispatch import call
from frontend.optim.optimizer import Common, Optimizer, Params, State, decayed, number_in
from frontend.tensor import Tensor


class RMSprop(Optimizer):
    """Hinton (2012), Neural networks for machine learning, lecture 6: ``s = alpha * s + (1 - alpha) * g * g``,
    ``p -= lr * g / (sqrt(s) + eps)``.

    ``centered`` takes the square of the gradient's running mean off ``s`` (Graves, 2013, "Generating sequences with
    recurrent neural networks"); ``momentum`` accumulates the steps.

    PyTorch: torch.optim.RMSprop.
    """

    name = "rmsprop"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
        **common: Unpack[Common],
    ):
        options = {
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, lr, options, **common)

    def _check(self, options: Mapping[str, Any]) -> None:
        for name in ("alpha", "eps", "weight_decay", "momentum"):
            number_in(name, options[name], 0)

    def _moments(self, options: Mapping[str, Any]) -> dict[str, float]:
        wanted = {"square_avg": True, "momentum_buffer": options["momentum"] > 0, "grad_avg": options["centered"]}
        return {name: 0 for name, there in wanted.items() if there}

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        grad = decayed(options, param, grad)
        alpha = options["alpha"]
        spread = alpha * state["square_avg"] + (1 - alpha) * (grad * grad)
        new = {"square_avg": spread}
        if options["centered"]:
            mean = new["grad_avg"] = state["grad_avg"] + (1 - alpha) * (grad - state["grad_avg"])
            spread = spread - mean * mean
        step = grad / (call("sqrt", spread) + options["eps"])
        if options["momentum"] > 0:
            step = new["momentum_buffer"] = options["momentum"] * state["momentum_buffer"] + step
        return param - scalars * step, new


class Adagrad(Optimizer):
    """Duchi, Hazan and Singer (2011), "Adaptive subgradient methods for online learning": ``s += g * g``,
    ``p -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)``.

    PyTorch: torch.optim.Adagrad.
    """

    name = "adagrad"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        **common: Unpack[Common],
    ):
        options = {
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "maximize": maximize,
        }
        super().__init__(params, lr, options, **common)

    def _check(self, options: Mapping[str, Any]) -> None:
        for name in ("lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            number_in(name, options[name], 0)

    def _moments(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"sum": options["initial_accumulator_value"]}

    def _shared(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"step": 0}

    def _scalars(self, options: Mapping[str, Any], lr: Tensor, shared: State) -> Tensor:
        return lr / (1 + (shared["step"] - 1) * options["lr_decay"])

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        grad = decayed(options, param, grad)
        total = state["sum"] + grad * grad
        return param - scalars * (grad / (call("sqrt", total) + options["eps"])), {"sum": total}


class Adadelta(Optimizer):
    """Zeiler (2012), "ADADELTA: an adaptive learning rate method": ``s = rho * s + (1 - rho) * g * g``,
    ``d = sqrt(a + eps) / sqrt(s + eps) * g``, ``a = rho * a + (1 - rho) * d * d``, ``p -= lr * d``.

    PyTorch: torch.optim.Adadelta.
    """

    name = "adadelta"

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        **common: Unpack[Common],
    ):
        options = {"rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, lr, options, **common)

    def _check(self, options: Mapping[str, Any]) -> None:
        number_in("rho", options["rho"], 0, 1)
        number_in("eps", options["eps"], 0)
        number_in("weight_decay", options["weight_decay"], 0)

    def _moments(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"square_avg": 0, "acc_delta": 0}

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        grad = decayed(options, param, grad)
        rho, eps = options["rho"], options["eps"]
        square = rho * state["square_avg"] + (1 - rho) * (grad * grad)
        delta = call("sqrt", state["acc_delta"] + eps) / call("sqrt", square + eps) * grad
        total = rho * state["acc_delta"] + (1 - rho) * (delta * delta)
        return param - scalars * delta, {"square_avg": square, "acc_delta": total}

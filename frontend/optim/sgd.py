"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from engine.errors import TenonError
from frontend.dispatch import call
from frontend.optim.optimizer import Common, Optimizer, Params, State, decayed, number_in
from frontend.tensor import Tensor


class SGD(Optimizer):
    """``p -= lr * g`` with optional momentum, as in PyTorch.

    With momentum ``b = momentum * b + (1 - dampening) * g`` (``b = g`` in the first step) and ``p -= lr * b``, or with
    ``nesterov`` ``p -= lr * (g + momentum * b)``: Sutskever et al. (2013), "On the importance of initialization and
    momentum in deep learning". ``weight_decay`` adds ``weight_decay * p`` to the gradient, ``maximize`` ascends.

    PyTorch: torch.optim.SGD.
    """

    name = "sgd"

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        **common: Unpack[Common],
    ):
        options = {
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, lr, options, **common)

    def _check(self, options: Mapping[str, Any]) -> None:
        number_in("momentum", options["momentum"], 0)
        number_in("weight_decay", options["weight_decay"], 0)
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise TenonError("nesterov needs a momentum above 0 and a dampening of 0")

    def _moments(self, options: Mapping[str, Any]) -> dict[str, float]:
        return {"momentum_buffer": 0} if options["momentum"] else {}

    def _shared(self, options: Mapping[str, Any]) -> dict[str, float]:
        # Without dampening the first step needs no special case: momentum * 0 + g is g.
        return {"step": 0} if options["momentum"] and options["dampening"] else {}

    def _scalars(self, options: Mapping[str, Any], lr: Tensor, shared: State) -> tuple[Tensor, Tensor | None]:
        return lr, shared["step"] == 1 if shared else None

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        lr, first = scalars
        momentum = options["momentum"]
        grad = decayed(options, param, grad)
        if not momentum:
            return param - lr * grad, {}
        buffer = momentum * state["momentum_buffer"] + (1 - options["dampening"]) * grad
        if first is not None:
            buffer = call("where", first, grad, buffer)
        along = grad + momentum * buffer if options["nesterov"] else buffer
        return param - lr * along, {"momentum_buffer": buffer}

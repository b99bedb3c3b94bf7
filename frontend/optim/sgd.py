"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import TenonError
from frontend.dispatch import call
from frontend.nn.parameter import Buffer
from frontend.optim.optimizer import Optimizer, Params, decayed, number_in
from frontend.tensor import Tensor


class SGD(Optimizer):
    """``p -= lr * g`` with optional momentum, as in PyTorch.

    With momentum ``b = momentum * b + (1 - dampening) * g`` (``b = g`` in the first step) and ``p -= lr * b``, or with
    ``nesterov`` ``p -= lr * (g + momentum * b)``: Sutskever et al. (2013), "On the importance of initialization and
    momentum in deep learning". ``weight_decay`` adds ``weight_decay * p`` to the gradient, ``maximize`` ascends.
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
    ):
        options = {
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, lr, options)

    def _check(self, options: Mapping[str, Any]) -> None:
        number_in("momentum", options["momentum"], 0)
        number_in("weight_decay", options["weight_decay"], 0)
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise TenonError("nesterov needs a momentum above 0 and a dampening of 0")

    def _moments(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if options["momentum"] else ()

    def _counts(self, options: Mapping[str, Any]) -> bool:
        # Without dampening the first step needs no special case: momentum * 0 + g is g.
        return bool(options["momentum"] and options["dampening"])

    def _scalars(self, options: Mapping[str, Any], lr: Tensor, step: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return lr, None if step is None else step == 1

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: dict[str, Buffer]
    ) -> Tensor:
        lr, first = scalars
        momentum = options["momentum"]
        grad = decayed(options, param, grad)
        if momentum:
            buffer = momentum * state["momentum_buffer"] + (1 - options["dampening"]) * grad
            if first is not None:
                buffer = call("where", first, grad, buffer)
            state["momentum_buffer"].assign(buffer)
            grad = grad + momentum * buffer if options["nesterov"] else buffer
        return param - lr * grad

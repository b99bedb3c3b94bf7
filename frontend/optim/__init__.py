"""Optimizers, with PyTorch's names, arguments and formulas, as builders of the update in a traced step."""

from frontend.optim.adam import Adam
from frontend.optim.optimizer import Optimizer
from frontend.optim.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer"]

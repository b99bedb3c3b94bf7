"""Layers, containers, losses and initialisation, with PyTorch's names."""

from frontend import functional
from frontend.nn import init
from frontend.nn.containers import Sequential
from frontend.nn.layers import (
    Conv2d,
    Dropout,
    Flatten,
    Identity,
    Linear,
    LogSoftmax,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from frontend.nn.losses import CrossEntropyLoss, L1Loss, MSELoss, NLLLoss
from frontend.nn.module import Module
from frontend.nn.parameter import Buffer, Parameter

__all__ = [
    "Buffer", "Conv2d", "CrossEntropyLoss", "Dropout", "Flatten", "Identity", "L1Loss", "Linear", "LogSoftmax",
    "MSELoss", "MaxPool2d", "Module", "NLLLoss", "Parameter", "ReLU", "Sequential", "Sigmoid", "Softmax", "Tanh",
    "functional", "init",
]  # fmt: skip

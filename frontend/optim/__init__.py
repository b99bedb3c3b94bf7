"""Optimizers, with PyTorch's names, arguments and formulas, as builders of the update in a traced step."""

from frontend.optim import lr_scheduler
from frontend.optim.adam import Adam, Adamax, AdamW, NAdam
from frontend.optim.adaptive import Adadelta, Adagrad, RMSprop
from frontend.optim.clipping import clip_grad_norm, clip_grad_value, global_norm
from frontend.optim.grad_scaler import GradScaler
from frontend.optim.large_batch import LAMB, Lion
from frontend.optim.optimizer import Optimizer
from frontend.optim.penalties import l1_penalty, l2_penalty
from frontend.optim.sgd import SGD

__all__ = [
    "LAMB", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "GradScaler", "Lion", "NAdam", "Optimizer",
    "RMSprop", "clip_grad_norm", "clip_grad_value", "global_norm", "l1_penalty", "l2_penalty", "lr_scheduler",
]  # fmt: skip

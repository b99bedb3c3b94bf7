"""Losses as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.ops.losses import check_reduction
from frontend import functional as F
from frontend.nn.module import Module
from frontend.nn.parameter import Buffer
from frontend.tensor import Tensor

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss", "CategoricalCrossEntropy", "CosineEmbeddingLoss", "CrossEntropyLoss",
    "GaussianNLLLoss", "HingeEmbeddingLoss", "HuberLoss", "KLDivLoss", "L1Loss", "MSELoss", "MarginRankingLoss",
    "MultiLabelSoftMarginLoss", "MultiMarginLoss", "NLLLoss", "PoissonNLLLoss", "SmoothL1Loss", "SoftMarginLoss",
    "SparseCategoricalCrossEntropy", "TripletMarginLoss", "TripletMarginWithDistanceLoss",
]  # fmt: skip


class _Loss(Module):
    """``options`` are what the function takes beside its tensors, by name; those that are tensors are buffers."""

    function: Callable[..., Tensor]

    def __init__(self, **options: Any):
        super().__init__()
        reduction = options["reduction"]
        if not (reduction == "batchmean" and isinstance(self, KLDivLoss)):
            check_reduction(reduction, type(self).__name__)
        self._options = tuple(options)
        for name, value in options.items():
            if name in ("weight", "pos_weight"):
                self.register_buffer(name, None if value is None else Buffer(value))
            else:
                setattr(self, name, value)

    def forward(self, *tensors: Tensor) -> Tensor:
        return type(self).function(*tensors, **{name: getattr(self, name) for name in self._options})


class CrossEntropyLoss(_Loss):
    """-log softmax(logits)[class]; see :func:`F.cross_entropy`.

    PyTorch: torch.nn.CrossEntropyLoss.
    """

    function = staticmethod(F.cross_entropy)

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)


class NLLLoss(_Loss):
    """-log_probabilities[class]; see :func:`F.nll_loss`.

    PyTorch: torch.nn.NLLLoss.
    """

    function = staticmethod(F.nll_loss)

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)


class CTCLoss(_Loss):
    """Labels whose places are not known; see :func:`F.ctc_loss`.

    PyTorch: torch.nn.CTCLoss.
    """

    function = staticmethod(F.ctc_loss)

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False):
        super().__init__(blank=blank, reduction=reduction, zero_infinity=zero_infinity)


class MSELoss(_Loss):
    """The squared difference.

    PyTorch: torch.nn.MSELoss.
    """

    function = staticmethod(F.mse_loss)

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class L1Loss(_Loss):
    """The absolute difference.

    PyTorch: torch.nn.L1Loss.
    """

    function = staticmethod(F.l1_loss)

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class SmoothL1Loss(_Loss):
    """Squared near 0, absolute farther out; see :func:`F.smooth_l1_loss`.

    PyTorch: torch.nn.SmoothL1Loss.
    """

    function = staticmethod(F.smooth_l1_loss)

    def __init__(self, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction=reduction, beta=beta)


class HuberLoss(_Loss):
    """Squared near 0, absolute farther out; see :func:`F.huber_loss`.

    PyTorch: torch.nn.HuberLoss.
    """

    function = staticmethod(F.huber_loss)

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction=reduction, delta=delta)


class BCELoss(_Loss):
    """Binary cross-entropy of probabilities.

    PyTorch: torch.nn.BCELoss.
    """

    function = staticmethod(F.binary_cross_entropy)

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean"):
        super().__init__(weight=weight, reduction=reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of sigmoid(logits).

    PyTorch: torch.nn.BCEWithLogitsLoss.
    """

    function = staticmethod(F.binary_cross_entropy_with_logits)

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None):
        super().__init__(weight=weight, reduction=reduction, pos_weight=pos_weight)


class KLDivLoss(_Loss):
    """target * (log(target) - input); see :func:`F.kl_div`.

    PyTorch: torch.nn.KLDivLoss.
    """

    function = staticmethod(F.kl_div)

    def __init__(self, reduction: str = "mean", log_target: bool = False):
        super().__init__(reduction=reduction, log_target=log_target)


class PoissonNLLLoss(_Loss):
    """See :func:`F.poisson_nll_loss`.

    PyTorch: torch.nn.PoissonNLLLoss.
    """

    function = staticmethod(F.poisson_nll_loss)

    def __init__(self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"):
        super().__init__(log_input=log_input, full=full, eps=eps, reduction=reduction)


class GaussianNLLLoss(_Loss):
    """See :func:`F.gaussian_nll_loss`; called with input, target and variance.

    PyTorch: torch.nn.GaussianNLLLoss.
    """

    function = staticmethod(F.gaussian_nll_loss)

    def __init__(self, full: bool = False, eps: float = 1e-6, reduction: str = "mean"):
        super().__init__(full=full, eps=eps, reduction=reduction)


class HingeEmbeddingLoss(_Loss):
    """See :func:`F.hinge_embedding_loss`.

    PyTorch: torch.nn.HingeEmbeddingLoss.
    """

    function = staticmethod(F.hinge_embedding_loss)

    def __init__(self, margin: float = 1.0, reduction: str = "mean"):
        super().__init__(margin=margin, reduction=reduction)


class MarginRankingLoss(_Loss):
    """See :func:`F.margin_ranking_loss`.

    PyTorch: torch.nn.MarginRankingLoss.
    """

    function = staticmethod(F.margin_ranking_loss)

    def __init__(self, margin: float = 0.0, reduction: str = "mean"):
        super().__init__(margin=margin, reduction=reduction)


class SoftMarginLoss(_Loss):
    """log(1 + exp(-target * input)).

    PyTorch: torch.nn.SoftMarginLoss.
    """

    function = staticmethod(F.soft_margin_loss)

    def __init__(self, reduction: str = "mean"):
        super().__init__(reduction=reduction)


class MultiMarginLoss(_Loss):
    """See :func:`F.multi_margin_loss`.

    PyTorch: torch.nn.MultiMarginLoss.
    """

    function = staticmethod(F.multi_margin_loss)

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, reduction: str = "mean"):
        super().__init__(p=p, margin=margin, weight=weight, reduction=reduction)


class MultiLabelSoftMarginLoss(_Loss):
    """See :func:`F.multilabel_soft_margin_loss`.

    PyTorch: torch.nn.MultiLabelSoftMarginLoss.
    """

    function = staticmethod(F.multilabel_soft_margin_loss)

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean"):
        super().__init__(weight=weight, reduction=reduction)


class CosineEmbeddingLoss(_Loss):
    """See :func:`F.cosine_embedding_loss`.

    PyTorch: torch.nn.CosineEmbeddingLoss.
    """

    function = staticmethod(F.cosine_embedding_loss)

    def __init__(self, margin: float = 0.0, reduction: str = "mean"):
        super().__init__(margin=margin, reduction=reduction)


class TripletMarginLoss(_Loss):
    """See :func:`F.triplet_margin_loss`.

    PyTorch: torch.nn.TripletMarginLoss.
    """

    function = staticmethod(F.triplet_margin_loss)

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, reduction: str = "mean"
    ):
        super().__init__(margin=margin, p=p, eps=eps, swap=swap, reduction=reduction)


class CategoricalCrossEntropy(_Loss):
    """Keras's loss on probabilities; see :func:`F.categorical_cross_entropy`."""

    function = staticmethod(F.categorical_cross_entropy)

    def __init__(self, reduction: str = "mean", from_logits: bool = False, label_smoothing: float = 0.0):
        super().__init__(reduction=reduction, from_logits=from_logits, label_smoothing=label_smoothing)


class SparseCategoricalCrossEntropy(_Loss):
    """Keras's loss on probabilities and classes; see :func:`F.sparse_categorical_cross_entropy`."""

    function = staticmethod(F.sparse_categorical_cross_entropy)

    def __init__(self, reduction: str = "mean", from_logits: bool = False):
        super().__init__(reduction=reduction, from_logits=from_logits)


class TripletMarginWithDistanceLoss(_Loss):
    """TripletMarginLoss with any distance.

    PyTorch: torch.nn.TripletMarginWithDistanceLoss.
    """

    function = staticmethod(F.triplet_margin_with_distance_loss)

    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ):
        super().__init__(distance_function=distance_function, margin=margin, swap=swap, reduction=reduction)

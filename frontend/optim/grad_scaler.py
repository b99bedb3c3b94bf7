"""Loss scaling: gradients in 16 bits that would vanish are kept, and steps whose gradients overflow are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from engine import dtypes
from engine.errors import StateError, TenonError, UnsupportedError
from frontend import reducing
from frontend.dispatch import call
from frontend.nn.parameter import Buffer
from frontend.optim.clipping import Gradients
from frontend.tensor import Tensor
from frontend.trace import current_trace


class GradScaler:
    """Dynamic loss scaling: Micikevicius et al. (2018), "Mixed precision training". Use it as
    ``optimizer.minimize(loss, scaler=scaler)``, all in the one program of a step.

    The loss is multiplied by ``scale`` before its gradient is taken, the gradients are divided by it. Where one of them
    is not finite the step is skipped: parameters and the optimizer's state stay as they were, and the scale is
    multiplied by ``backoff_factor``. After ``growth_interval`` steps in a row that were not skipped it is multiplied by
    ``growth_factor``. What the forward pass changes (running statistics, random numbers) it changes in a skipped step
    too, as in PyTorch.

    PyTorch: torch.amp.GradScaler. Differs: minimize(loss, scaler=) stands for scale, unscale_, step and update.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        del device  # programs run where tn.compile is told to
        self._enabled = bool(enabled)
        self._scale = Buffer(np.float32(_positive("init_scale", init_scale)))
        self._growth_tracker = Buffer(np.zeros((), np.int32))
        # State too, so that changing them needs no new compilation.
        self._growth_factor, self._backoff_factor = Buffer(np.float64(1)), Buffer(np.float64(1))
        self._growth_interval = Buffer(np.int64(1))
        self.set_growth_factor(growth_factor)
        self.set_backoff_factor(backoff_factor)
        self.set_growth_interval(growth_interval)

    # --- in a traced step ---

    def scale(self, outputs: Tensor) -> Tensor:
        """``outputs`` times the scale."""
        if not self._enabled:
            return outputs
        names = ("scale", "growth_tracker", "growth_factor", "backoff_factor", "growth_interval")
        cells = {f"scaler.{name}": getattr(self, f"_{name}").cell for name in names}
        current_trace("a GradScaler").prefer_names(cells)
        return outputs * self._scale

    def unscale(self, grads: Gradients) -> tuple[Gradients, Tensor]:
        """The gradients divided by the scale, and whether all of their elements are finite: a bool scalar."""
        finite: Tensor | None = None
        for grad in grads.values():
            each = reducing.all(call("isfinite", grad))
            finite = each if finite is None else call("and_", finite, each)
        assert finite is not None
        inverse = call("reciprocal", self._scale)
        return {p: (grad * inverse).to(grad.dtype) for p, grad in grads.items()}, finite

    def update(self, finite: Tensor | None = None) -> None:
        """Move the scale on behind a step whose gradients were all ``finite``, or were not. minimize does it."""
        if finite is None:
            raise UnsupportedError("update() is part of optimizer.minimize(loss, scaler=scaler)")
        tracker = self._growth_tracker + 1
        grows = tracker >= self._growth_interval
        larger = self._scale * self._growth_factor.float()
        larger = call("where", call("isfinite", larger), larger, self._scale)
        kept = call("where", grows, larger, self._scale)
        self._scale.assign(call("where", finite, kept, self._scale * self._backoff_factor.float()))
        stays = call("and_", finite, call("not_", grows))
        self._growth_tracker.assign(call("where", stays, tracker, 0).to(dtypes.i32))

    def unscale_(self, optimizer: object) -> NoReturn:
        """There are no gradients that wait for it: see :meth:`unscale`."""
        raise UnsupportedError(
            "there is no unscale_(optimizer): optimizer.minimize(loss, scaler=scaler) unscales before it clips"
        )

    def step(self, optimizer: object, *_: object) -> NoReturn:
        """There are no gradients that wait for a step."""
        raise UnsupportedError("there is no step(optimizer): call optimizer.minimize(loss, scaler=scaler)")

    # --- outside of it ---

    def get_scale(self) -> float:
        """The scale, or 1 where scaling is not enabled."""
        return float(self._scale.numpy()) if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by when it grows."""
        return float(self._growth_factor.numpy())

    def set_growth_factor(self, new_factor: float) -> None:
        """Above 1."""
        if not _positive("growth_factor", new_factor) > 1:
            raise TenonError(f"growth_factor must be above 1, not {new_factor}")
        self._growth_factor.data = np.float64(new_factor)

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by when a step is skipped."""
        return float(self._backoff_factor.numpy())

    def set_backoff_factor(self, new_factor: float) -> None:
        """Above 0 and below 1."""
        if not _positive("backoff_factor", new_factor) < 1:
            raise TenonError(f"backoff_factor must be below 1, not {new_factor}")
        self._backoff_factor.data = np.float64(new_factor)

    def get_growth_interval(self) -> int:
        """How many steps in a row make the scale grow."""
        return int(self._growth_interval.numpy())

    def set_growth_interval(self, new_interval: int) -> None:
        """A whole number of at least 1."""
        if not isinstance(new_interval, int) or new_interval < 1:
            raise TenonError(f"growth_interval must be a whole number of at least 1, not {new_interval!r}")
        self._growth_interval.data = np.int64(new_interval)

    def is_enabled(self) -> bool:
        """Whether anything is scaled."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The scale, the settings, and how many steps in a row were not skipped; empty where it is not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self.get_growth_factor(),
            "backoff_factor": self.get_backoff_factor(),
            "growth_interval": self.get_growth_interval(),
            "_growth_tracker": int(self._growth_tracker.numpy()),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave. Raises StateError for anything else; then nothing has changed."""
        if not self._enabled:
            return
        known = self.state_dict().keys()
        if state_dict.keys() != known:
            raise StateError(
                f"a GradScaler's state has {', '.join(known)}, and {', '.join(state_dict) or 'nothing'} was given"
            )
        scale = _positive("scale", state_dict["scale"])
        self.set_growth_factor(state_dict["growth_factor"])
        self.set_backoff_factor(state_dict["backoff_factor"])
        self.set_growth_interval(int(state_dict["growth_interval"]))
        self._scale.data = np.float32(scale)
        self._growth_tracker.data = np.int32(state_dict["_growth_tracker"])

    def __repr__(self) -> str:
        return f"GradScaler(scale={self.get_scale():g}, enabled={self._enabled})"


def _positive(name: str, value: float) -> float:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise TenonError(f"{name} must be a number above 0, not {value!r}")
    return float(value)

"""Learning rates that change while training, with PyTorch's names.

A schedule is a formula of a step count. Count and rates are state: ``scheduler.step()`` inside a traced step makes them
part of its program, so that a changing rate costs no call and never compiles again; called between steps (once an
epoch, as PyTorch's users do) it computes the same formula at once.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine import dtypes
from engine.errors import TenonError
from engine.graph import tracing
from frontend.dispatch import call
from frontend.nn.parameter import Buffer
from frontend.optim.groups import ParameterGroup
from frontend.optim.optimizer import Optimizer, number_in
from frontend.tensor import Tensor, as_tensor
from frontend.trace import current_trace

Number = Tensor | float


class LRScheduler:
    """Base of the schedules: ``rate(base, count)`` is the rate after ``count`` steps of a group that began at ``base``.

    Making one sets the rate of count 0. Its state is saved with the optimizer's.

    PyTorch: torch.optim.lr_scheduler.LRScheduler. Differs: last_epoch is no argument.
    """

    def __init__(self, optimizer: Optimizer):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__} takes an optimizer, not {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.base_lrs = [group.initial_lr for group in optimizer.param_groups]
        self.state = {"count": Buffer(np.zeros((), np.int64))}
        optimizer.schedulers.append(self)
        self._set_rates(as_tensor(np.zeros(())))

    def rate(self, base: float, count: Tensor) -> Number:
        """The learning rate after ``count`` (f64 scalar) steps."""
        raise NotImplementedError

    def step(self) -> None:
        """Count one more: now, or inside a trace whenever the program runs. In a step of an optimizer that accumulates
        gradients only the calls that change the parameters count."""
        self._name_state()
        count = self.state["count"]
        count.assign(count + self._one())
        self._set_rates(count.double())

    @property
    def last_epoch(self) -> int:
        """The steps counted so far."""
        return int(self.state["count"].numpy())

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _one(self) -> Number:
        changed = self.optimizer.changed
        return 1 if changed is None else changed.long()

    def _set_rates(self, count: Tensor) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            set_rate(group, self.rate(base, count))

    def _name_state(self) -> None:
        if tracing():
            number = self.optimizer.schedulers.index(self)
            names = {f"{self.optimizer.name}.scheduler.{number}.{k}": b.cell for k, b in self.state.items()}
            current_trace().prefer_names(names)


def set_rate(group: ParameterGroup, rate: Number) -> None:
    """Give ``group`` a learning rate: now, or inside a trace whenever the program runs."""
    if tracing():
        value = as_tensor(rate, dtypes.f64) if not isinstance(rate, Tensor) else rate.double()
        current_trace().assign(group.lr_cell, value.value(), "lr")
    else:
        group["lr"] = float(rate)


def _at_most(count: Tensor, limit: float) -> Tensor:
    return call("minimum", count, float(limit))


def _power(base: float, exponent: Tensor) -> Number:
    """``base ** exponent`` for a base of at least 0, with 0 ** 0 = 1."""
    return call("pow", as_tensor(np.asarray(float(base))), exponent)


def _whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise TenonError(f"{name} must be a whole number of at least 1, not {value!r}")


class LambdaLR(LRScheduler):
    """``base * lr_lambda(count)``. The function is called with a Tensor (f64 scalar), so it is made of Tenon's ops:
    ``lambda count: 0.95 ** count``. A list gives one a group.

    PyTorch: torch.optim.lr_scheduler.LambdaLR. Differs: the function is given a Tensor.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[Any], Any] | Sequence[Callable[[Any], Any]]):
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise TenonError(f"LambdaLR got {len(self.lr_lambdas)} functions for {groups} groups")
        super().__init__(optimizer)

    def _set_rates(self, count: Tensor) -> None:
        for group, base, function in zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True):
            set_rate(group, base * function(count))


class StepLR(LRScheduler):
    """The rate times ``gamma`` every ``step_size`` counts.

    PyTorch: torch.optim.lr_scheduler.StepLR.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        _whole("step_size", step_size)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, base: float, count: Tensor) -> Number:
        return base * _power(self.gamma, count // self.step_size)


class MultiStepLR(LRScheduler):
    """The rate times ``gamma`` at each of the counts in ``milestones``.

    PyTorch: torch.optim.lr_scheduler.MultiStepLR.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, base: float, count: Tensor) -> Number:
        passed: Tensor = count * 0
        for milestone in self.milestones:
            passed = passed + (count >= milestone).double()
        return base * _power(self.gamma, passed)


class ConstantLR(LRScheduler):
    """The rate times ``factor`` for the first ``total_iters`` counts.

    PyTorch: torch.optim.lr_scheduler.ConstantLR.
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5):
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer)

    def rate(self, base: float, count: Tensor) -> Number:
        return base * call("where", count < self.total_iters, self.factor, 1.0)


class LinearLR(LRScheduler):
    """A linear warm-up: the rate's factor goes from ``start_factor`` to ``end_factor`` in ``total_iters`` counts.

    PyTorch: torch.optim.lr_scheduler.LinearLR.
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ):
        _whole("total_iters", total_iters)
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, base: float, count: Tensor) -> Number:
        done = _at_most(count, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


class ExponentialLR(LRScheduler):
    """The rate times ``gamma`` at every count.

    PyTorch: torch.optim.lr_scheduler.ExponentialLR.
    """

    def __init__(self, optimizer: Optimizer, gamma: float):
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, count: Tensor) -> Number:
        return base * _power(self.gamma, count)


class PolynomialLR(LRScheduler):
    """The rate times ``(1 - count / total_iters) ** power``, then 0.

    PyTorch: torch.optim.lr_scheduler.PolynomialLR.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0):
        _whole("total_iters", total_iters)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer)

    def rate(self, base: float, count: Tensor) -> Number:
        return base * (1 - _at_most(count, self.total_iters) / self.total_iters) ** self.power


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the rate to ``eta_min`` in ``T_max`` counts, and back in as many: Loshchilov and Hutter
    (2017), "SGDR: stochastic gradient descent with warm restarts", without the restarts.

    PyTorch: torch.optim.lr_scheduler.CosineAnnealingLR.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        _whole("T_max", T_max)
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, count: Tensor) -> Number:
        return _cosine(base, self.eta_min, count / self.T_max)


def _cosine(start: float, end: float, share: Tensor) -> Tensor:
    """From ``start`` to ``end`` along half a cosine, ``share`` of the way."""
    return end + (start - end) * (1 + call("cos", math.pi * share)) / 2


class CosineAnnealingWarmRestarts(LRScheduler):
    """SGDR, of the same paper: half a cosine from the rate to ``eta_min`` in ``T_0`` counts, again in ``T_0 * T_mult``,
    and so on.

    PyTorch: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0):
        _whole("T_0", T_0)
        _whole("T_mult", T_mult)
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, count: Tensor) -> Number:
        if self.T_mult == 1:
            return _cosine(base, self.eta_min, count % self.T_0 / self.T_0)
        # The n-th restart is at T_0 * (T_mult**n - 1) / (T_mult - 1); the little more outweighs the log's rounding.
        cycles = call("log", count / self.T_0 * (self.T_mult - 1) + 1) / math.log(self.T_mult)
        length = call("round", _power(self.T_mult, call("floor", cycles + 1e-9))) * self.T_0
        began = (length - self.T_0) / (self.T_mult - 1)
        return _cosine(base, self.eta_min, (count - began) / length)


class OneCycleLR(LRScheduler):
    """Smith and Topin (2018), "Super-convergence: very fast training of neural networks using large learning rates":
    from ``max_lr / div_factor`` up to ``max_lr`` in ``pct_start`` of ``total_steps``, then down to the first rate /
    ``final_div_factor``; with ``three_phase`` first back to the first rate, as fast as it rose.

    PyTorch: torch.optim.lr_scheduler.OneCycleLR. Differs: the momentum stays as it is.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ):
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise TenonError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        _whole("total_steps", total_steps)
        number_in("pct_start", pct_start, 0, 1)
        if anneal_strategy not in ("cos", "linear"):
            raise TenonError(f'anneal_strategy must be "cos" or "linear", not {anneal_strategy!r}')
        groups = len(optimizer.param_groups)
        peaks = [max_lr] * groups if isinstance(max_lr, (int, float)) else list(max_lr)
        if len(peaks) != groups:
            raise TenonError(f"max_lr has {len(peaks)} rates for {groups} groups")
        self.total_steps, self.anneal_strategy, self.div_factor = total_steps, anneal_strategy, div_factor
        top = pct_start * total_steps - 1
        ends = [top, 2 * top, total_steps - 1] if three_phase else [top, total_steps - 1]
        levels = (1 / div_factor, 1.0, *((1 / div_factor,) if three_phase else ()), 1 / div_factor / final_div_factor)
        self._phases = list(zip([0.0, *ends], ends, levels, levels[1:], strict=False))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group.initial_lr = peak
        super().__init__(optimizer)

    def rate(self, base: float, count: Tensor) -> Number:
        found: Tensor | None = None
        for begin, end, low, high in self._phases:
            share = (count - begin) / (end - begin)
            cosine = self.anneal_strategy == "cos"
            here = _cosine(base * low, base * high, share) if cosine else base * (low + (high - low) * share)
            found = here if found is None else call("where", count > begin, here, found)
        assert found is not None
        return call("where", count >= self.total_steps, base * self._phases[-1][3], found)


class SequentialLR(LRScheduler):
    """One schedule after another: ``milestones`` are the counts at which the next one begins, at its count 0.

    PyTorch: torch.optim.lr_scheduler.SequentialLR.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]):
        if len(schedulers) != len(milestones) + 1:
            raise TenonError(f"{len(schedulers)} schedules need {len(schedulers) - 1} milestones, not {milestones}")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        for part in schedulers:
            if part.optimizer is not optimizer or part not in optimizer.schedulers:
                raise TenonError("SequentialLR takes schedules of its own optimizer, each once")
            optimizer.schedulers.remove(part)
        super().__init__(optimizer)

    def _set_rates(self, count: Tensor) -> None:
        starts = [0, *self.milestones]
        for i, group in enumerate(self.optimizer.param_groups):
            if not tracing():
                number = bisect_right(self.milestones, float(count))
                part = self.schedulers[number]
                set_rate(group, part.rate(part.base_lrs[i], count - starts[number]))
                continue
            found: Any = None
            for part, start in zip(self.schedulers, starts, strict=True):
                here = part.rate(part.base_lrs[i], call("maximum", count - start, 0.0))
                found = here if found is None else call("where", count >= start, here, found)
            set_rate(group, found)


class ReduceLROnPlateau(LRScheduler):
    """The rate times ``factor`` once ``metric`` has not become better in more than ``patience`` steps.

    ``mode`` "min" or "max" says what is better, by ``threshold``: a share of the best with ``threshold_mode`` "rel", a
    difference with "abs". After a reduction ``cooldown`` steps are not counted as bad; rates stay at or above
    ``min_lr``, and changes below ``eps`` are left out.

    PyTorch: torch.optim.lr_scheduler.ReduceLROnPlateau.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ):
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise TenonError(
                f'mode is "min" or "max" and threshold_mode "rel" or "abs", not {mode!r}, {threshold_mode!r}'
            )
        number_in("factor", factor, 0, 1)
        self.mode, self.factor, self.patience, self.cooldown = mode, factor, patience, cooldown
        self.threshold, self.threshold_mode, self.min_lr, self.eps = threshold, threshold_mode, min_lr, eps
        super().__init__(optimizer)
        self.state |= {
            "best": Buffer(np.asarray(np.inf if mode == "min" else -np.inf)),
            "bad": Buffer(np.zeros((), np.int64)),
            "cooling": Buffer(np.zeros((), np.int64)),
        }

    def rate(self, base: float, count: Tensor) -> Number:
        return base

    def step(self, metric: Any) -> None:  # type: ignore[override]
        """Take note of ``metric``, a scalar: now, or inside a trace whenever the program runs."""
        self._name_state()
        value = as_tensor(metric).double()
        best, bad, cooling = (self.state[k] for k in ("best", "bad", "cooling"))
        better = self._better(value, best)
        cool = cooling > 0
        count = call("where", call("or_", better, cool), 0, bad + 1)
        reduce = count > self.patience
        left = call("where", cool, cooling - 1, cooling)
        best.assign(call("where", better, value, best))
        for group in self.optimizer.param_groups:
            old = Tensor.of(current_trace().read(group.lr_cell, "lr")) if tracing() else as_tensor(group.lr_cell.array)
            lower = call("maximum", old * self.factor, self.min_lr)
            set_rate(group, call("where", call("and_", reduce, old - lower > self.eps), lower, old))
        bad.assign(call("where", reduce, 0, count))
        cooling.assign(call("where", reduce, self.cooldown, left))
        self.state["count"].assign(self.state["count"] + 1)

    def _better(self, value: Tensor, best: Tensor) -> Tensor:
        margin = self.threshold if self.mode == "max" else -self.threshold
        bound = best + margin if self.threshold_mode == "abs" else best * (1 + margin)
        return value < bound if self.mode == "min" else value > bound

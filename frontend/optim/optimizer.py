"""What optimizers share: parameter groups, state, and the update traced into the program that computes the loss."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict

import numpy as np

from engine import dtypes
from engine.errors import StateError, TenonError, TraceError, UnsupportedError
from engine.graph import apply
from engine.state import Cell, place_together
from frontend.dispatch import call
from frontend.nn.parameter import Buffer, Parameter, as_array
from frontend.optim.clipping import Gradients, clip_grad_norm, clip_grad_value
from frontend.optim.groups import ParameterGroup
from frontend.tensor import Tensor
from frontend.trace import Trace, current_trace

if TYPE_CHECKING:
    from frontend.optim.grad_scaler import GradScaler
    from frontend.optim.lr_scheduler import LRScheduler

Params = Iterable[Parameter] | Iterable[dict[str, Any]]
State = Mapping[str, Tensor]


class Common(TypedDict, total=False):
    """The arguments that every optimizer takes, by keyword."""

    clip_norm: float | None
    clip_value: float | None
    accumulate: int
    ema: float | None


class Optimizer:
    """Base of the optimizers. A subclass gives its state's names, the scalars of a step, and one parameter's update.

    Parameters of a group that first train together share one step counter. A frozen parameter that joins later starts
    from step 0, as in PyTorch. A parameter that the loss does not depend on is left as it is (PyTorch's ``None``
    gradient).

    All optimizers take, by keyword, and all in the one program of a step:

    - ``clip_norm``: gradients are scaled down together where the norm of all of them is greater
    - ``clip_value``: each element of a gradient is kept between ``-clip_value`` and ``clip_value``
    - ``accumulate``: parameters change only at every ``accumulate``-th call, along the mean of the gradients since
    - ``ema``: keep ``average = ema * average + (1 - ema) * parameter`` after each change, for :meth:`averaged`

    PyTorch: torch.optim.Optimizer. Differs: minimize(loss) stands for zero_grad, backward and step.
    """

    name: str

    def __init__(
        self,
        params: Params,
        lr: float,
        options: dict[str, Any],
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        ema: float | None = None,
    ):
        for what, bound in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if bound is not None and not bound > 0:
                raise TenonError(f"{what} must be above 0, not {bound}")
        if not isinstance(accumulate, int) or accumulate < 1:
            raise TenonError(f"accumulate must be a whole number of at least 1, not {accumulate!r}")
        if ema is not None:
            number_in("ema", ema, 0, 1)
        self.clip_norm, self.clip_value, self.accumulate, self.ema = clip_norm, clip_value, accumulate, ema
        self.defaults = {"lr": lr, **options}
        self.param_groups: list[ParameterGroup] = []
        self.state: dict[Parameter, dict[str, Buffer]] = {}
        self.schedulers: list[LRScheduler] = []
        self._micro_step = Buffer(np.zeros((), np.int64))
        self._due: Tensor | None = None
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise TypeError(
                f"an optimizer takes a list of parameters, or of groups (dicts), such as model.parameters(), not one "
                f"{type(params).__name__}"
            )
        given: list[Any] = list(params)
        if not given:
            raise TenonError("an optimizer needs at least one parameter, and the list is empty")
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """One more group: "params", and options that differ from the optimizer's own."""
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f'a parameter group is a dict with "params", not {group!r:.80}')
        unknown = group.keys() - self.defaults.keys() - {"params"}
        if unknown:
            raise TenonError(
                f"{type(self).__name__} has no option {sorted(unknown)[0]!r}; it has {', '.join(self.defaults)}"
            )
        given = group["params"]
        params = [given] if isinstance(given, Parameter) else list(given)
        known = {p for g in self.param_groups for p in g.params}
        for p in params:
            if not isinstance(p, Parameter):
                raise TypeError(f"an optimizer takes parameters, not {type(p).__name__} {p!r:.60}")
            if p in known:
                raise TenonError("a parameter was given to the optimizer twice")
            known.add(p)
        options = self.defaults | {k: v for k, v in group.items() if k != "params"}
        self._check(options)
        lr = options.pop("lr")
        self.param_groups.append(ParameterGroup(params, lr, options))

    @property
    def lr(self) -> float:
        """The learning rate of all groups. Assigning it needs no new compilation."""
        rates = {group["lr"] for group in self.param_groups}
        if len(rates) > 1:
            raise TenonError(f"the groups have different learning rates {sorted(rates)}: see param_groups")
        return rates.pop()

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.param_groups:
            group["lr"] = value

    # --- what a subclass gives ---

    def _check(self, options: Mapping[str, Any]) -> None:
        """Raise TenonError for options out of range."""
        raise NotImplementedError

    def _moments(self, options: Mapping[str, Any]) -> Mapping[str, float]:
        """The state that has a parameter's shape: names, and what it holds before the first step."""
        raise NotImplementedError

    def _shared(self, options: Mapping[str, Any]) -> Mapping[str, float]:
        """The numbers that parameters share, with their first values; ``step`` counts the steps taken."""
        return {}

    def _advance(self, options: Mapping[str, Any], shared: State) -> dict[str, Tensor]:
        """The shared numbers of this step from those of the last."""
        return {"step": shared["step"] + 1} if shared else {}

    def _scalars(self, options: Mapping[str, Any], lr: Tensor, shared: State) -> Any:
        """What is computed once a step for all parameters of one dtype, from ``lr`` and the shared numbers of this
        step (``step`` counts from 1), in that dtype."""
        return lr

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: State
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The parameter's new value, and its new moments."""
        raise NotImplementedError

    # --- tracing ---

    def minimize(self, loss: Tensor, scaler: GradScaler | None = None) -> None:
        """Change the parameters by one step against the gradient of ``loss``, whenever the traced program runs. With a
        ``scaler`` the loss is scaled meanwhile, and a step whose gradients overflow is skipped.

        Raises TraceError outside of a traced function, ShapeError where ``loss`` is not a scalar, and TenonError where
        it depends on none of the parameters.
        """
        if scaler is None or not scaler.is_enabled():
            self.apply(self.gradients(loss))
            return
        grads, finite = scaler.unscale(self.gradients(scaler.scale(loss)))
        self.apply(grads, where=finite)
        scaler.update(finite)

    def gradients(self, loss: Tensor) -> Gradients:
        """The gradient of ``loss`` for each trainable parameter that it depends on. Raises as :meth:`minimize`."""
        trace = current_trace("optimizer.minimize(loss)")
        if not isinstance(loss, Tensor):
            raise TraceError(f"minimize takes the loss, a scalar Tensor, not {type(loss).__name__} {loss!r:.60}")
        params = [p for group in self.param_groups for p in group.params]
        trainable = [p for p in params if p.requires_grad]
        if not trainable:
            raise TenonError(
                f"there is nothing to train: all {len(params)} parameters of this {type(self).__name__} have "
                "requires_grad=False"
            )
        leaves = trace.leaves(loss.value(), (p.cell for p in trainable))
        used = [p for p in trainable if p.cell in leaves]
        if not used:
            raise TenonError(
                f"the loss depends on none of the {len(trainable)} trainable parameters of this {type(self).__name__}"
            )
        found = apply("grad", loss.value(), *(leaves[p.cell] for p in used))
        values = found if isinstance(found, tuple) else (found,)
        return {p: Tensor.of(g) for p, g in zip(used, values, strict=True)}

    def apply(self, grads: Gradients, where: Tensor | None = None) -> None:
        """Change the parameters by one step against ``grads``, as :meth:`gradients` gives them or as they were made of
        those. They are accumulated and clipped here. Where the bool scalar ``where`` is given and false, nothing
        changes: parameters and state are as if there had been no call. Raises TraceError outside of a traced function.
        """
        trace = current_trace("optimizer.apply(grads)")
        members = {}
        for number, group in enumerate(self.param_groups):
            group.traced = True
            members[number] = [p for p in group.params if p in grads]
            self._allocate(group, members[number])
            self._name_state(trace, number, members[number])
        due = where
        if self.accumulate > 1:
            grads, due = self._accumulated(grads, where)
        self._due = due
        if self.clip_value is not None:
            grads = clip_grad_value(grads, self.clip_value)
        if self.clip_norm is not None:
            grads = clip_grad_norm(grads, self.clip_norm)
        for number, group in enumerate(self.param_groups):
            self._build(group, {p: grads[p] for p in members[number]}, due)

    @property
    def changed(self) -> Tensor | None:
        """Whether the last call changed the parameters; None where every call does."""
        if self._due is not None and self._due._is_being_traced:
            return self._due
        return None if self.accumulate == 1 else self._micro_step == 0

    def step(self, *_: object) -> NoReturn:
        """Tenon has no gradients that wait for a step: :meth:`minimize` takes them and updates."""
        raise UnsupportedError("there is no step(): call optimizer.minimize(loss) inside a tn.function")

    def _accumulated(self, grads: Gradients, where: Tensor | None) -> tuple[Gradients, Tensor]:
        """The mean of the gradients since the last change, and whether this call is one that changes the parameters.
        It counts ``where`` that is true, or always."""

        def write(buffer: Buffer, value: Tensor) -> None:
            buffer.assign(value if where is None else call("where", where, value, buffer))

        count = (self._micro_step + 1) % self.accumulate
        due = count == 0 if where is None else call("and_", where, count == 0)
        found = {}
        for p, grad in grads.items():
            total = self.state[p][_SUM]
            found[p] = total + grad / self.accumulate
            write(total, call("where", due, 0.0, found[p]).to(p.dtype))
        write(self._micro_step, count)
        return found, due

    def _build(self, group: ParameterGroup, grads: Gradients, due: Tensor | None) -> None:
        """The update of one group, its scalars computed once for each set of shared numbers and dtype."""
        lr = Tensor.of(current_trace().read(group.lr_cell, f"{self.name}.lr"))
        names = self._shared(group)
        advanced: dict[tuple[Buffer, ...], dict[str, Tensor]] = {}
        scalars: dict[Any, Any] = {}

        def write(buffer: Buffer | Parameter, value: Tensor) -> None:
            value = value.to(buffer.dtype)
            buffer.assign(value if due is None else call("where", due, value, buffer))

        for p, grad in grads.items():
            state = self.state[p]
            shared = tuple(state[k] for k in names)
            if shared not in advanced:
                advanced[shared] = self._advance(group, {k: Tensor.of(state[k].value()) for k in names})
                for k, value in advanced[shared].items():
                    write(state[k], value)
            dtype = dtypes.f64 if p.dtype == dtypes.f64 else dtypes.f32
            if (shared, dtype) not in scalars:
                now = {k: value.to(dtype) for k, value in advanced[shared].items()}
                scalars[shared, dtype] = self._scalars(group, lr.to(dtype), now)
            current = Tensor.of(p.value())
            moments = {k: Tensor.of(state[k].value()) for k in self._moments(group)}
            new, changed = self._update(group, scalars[shared, dtype], current, grad, moments)
            for k, value in changed.items():
                write(state[k], value)
            write(p, new)
            if self.ema is not None:
                write(state[_AVERAGE], self.ema * state[_AVERAGE] + (1 - self.ema) * new)

    def _own(self) -> tuple[str, ...]:
        """The state of a parameter's shape that has nothing to do with the kind of optimizer."""
        return ((_SUM,) if self.accumulate > 1 else ()) + ((_AVERAGE,) if self.ema is not None else ())

    def _allocate(self, group: ParameterGroup, params: Iterable[Parameter]) -> None:
        """The first state of parameters that have none yet; the numbers that they share are one cell each."""
        fresh = [p for p in params if p not in self.state]
        shared = {k: Buffer(np.asarray(first)) for k, first in self._shared(group).items()}
        firsts = self._moments(group)
        keys = (*firsts, *self._own())
        cells = {(p, k): Cell.empty(p.cell.shape, p.cell.dtype, p.cell.order) for p in fresh for k in keys}
        place_together(cells.values())
        for p in fresh:
            self.state[p] = {k: Buffer(cells[p, k]) for k in keys} | shared
            for k, first in firsts.items():
                if first:
                    self.state[p][k].cell.array.fill(first)
            if self.ema is not None:
                self.state[p][_AVERAGE].cell.write(p.cell.array)

    def _name_state(self, trace: Trace, number: int, params: Iterable[Parameter]) -> None:
        group = self.param_groups[number]
        of_group = f".{number}" if len(self.param_groups) > 1 else ""
        shared = self._shared(group)
        names = {f"{self.name}.lr{of_group}": group.lr_cell, f"{self.name}.micro_step": self._micro_step.cell}
        for p in params:
            for key, buffer in self.state[p].items():
                owner = of_group if key in shared else f".{trace.name_of(p.cell, 'parameter')}"
                names[f"{self.name}.{key}{owner}"] = buffer.cell
        trace.prefer_names(names)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """``with optimizer.averaged():`` the parameters hold their averages; afterwards they are as they were.

        Raises TenonError where the optimizer was made without ``ema``.
        """
        if self.ema is None:
            raise TenonError(f"this {type(self).__name__} keeps no averages: make it with ema=0.999, say")
        own = {p: np.array(p.cell.array) for p in self.state}
        for p, state in self.state.items():
            p.cell.write(state[_AVERAGE].cell.array)
        try:
            yield
        finally:
            for p, array in own.items():
                p.cell.write(array)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.param_groups))})"

    # --- saving and loading ---

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: gradients are values inside a program and are never left over."""

    def _numbered(self) -> list[tuple[int, ParameterGroup, Parameter]]:
        pairs = [(group, p) for group in self.param_groups for p in group.params]
        return [(i, group, p) for i, (group, p) in enumerate(pairs)]

    def _numbers(self) -> dict[str, Buffer]:
        """The state that belongs to no parameter, beside the learning rates."""
        found = {"micro_step": self._micro_step} if self.accumulate > 1 else {}
        for i, scheduler in enumerate(self.schedulers):
            found |= {f"scheduler.{i}.{k}": buffer for k, buffer in scheduler.state.items()}
        return found

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of the state as one flat dict of arrays: ``exp_avg.3`` belongs to the fourth parameter, ``lr.0`` to
        the first group, ``scheduler.0.count`` to the first scheduler. Parameters that have not been trained have no
        entry; options are not saved."""
        found = {f"lr.{i}": np.array(group.lr_cell.array) for i, group in enumerate(self.param_groups)}
        found |= {k: np.array(buffer.numpy()) for k, buffer in self._numbers().items()}
        for i, _, p in self._numbered():
            for key, buffer in self.state.get(p, {}).items():
                found[f"{key}.{i}"] = np.array(buffer.numpy())
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of an optimizer of the same kind, over parameters of the same shapes in the same order.

        Raises StateError that lists what is missing, unexpected or of another shape; then nothing has been loaded.
        """
        arrays = {k: as_array(v) for k, v in state_dict.items()}
        wrong, known = self._misfits(arrays)
        unexpected = [k for k in arrays if k not in known]
        if unexpected:
            wrong.append(f"unexpected: {', '.join(unexpected)}")
        if wrong:
            lines = "".join(f"\n    {line}" for line in wrong)
            raise StateError(f"the state does not fit this {type(self).__name__}, and nothing was loaded:{lines}")
        for i, group in enumerate(self.param_groups):
            if f"lr.{i}" in arrays:
                group["lr"] = float(arrays[f"lr.{i}"])
        for key, buffer in self._numbers().items():
            buffer.data = arrays[key].astype(buffer.dtype.numpy)
        self._load_moments(arrays)

    def _shapes(self, group: ParameterGroup, p: Parameter) -> dict[str, tuple[int, ...]]:
        own = dict.fromkeys((*self._moments(group), *self._own()), p.cell.shape)
        return own | dict.fromkeys(self._shared(group), ())

    def _misfits(self, arrays: Mapping[str, np.ndarray]) -> tuple[list[str], set[str]]:
        """What is wrong with ``arrays``, and the keys that they may have."""
        numbers = self._numbers()
        wrong = [f"missing: {key}" for key in numbers if key not in arrays]
        known = {f"lr.{i}" for i in range(len(self.param_groups))} | numbers.keys()
        for i, group, p in self._numbered():
            shapes = self._shapes(group, p)
            keys = {f"{key}.{i}" for key in shapes}
            known |= keys
            missing = sorted(keys - arrays.keys())
            if missing and (p in self.state or len(missing) < len(keys)):
                wrong.append(f"missing: {', '.join(missing)}")
            for key, shape in shapes.items():
                array = arrays.get(f"{key}.{i}")
                if array is not None and array.shape != shape:
                    wrong.append(f"{key}.{i}: shape {array.shape} was given, {shape} expected")
        return wrong, known

    def _load_moments(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Parameters with equal shared numbers share them again."""
        for group in self.param_groups:
            shared: dict[tuple[float, ...], dict[str, Buffer]] = {}
            for i, owner, p in self._numbered():
                if owner is not group or not any(f"{k}.{i}" in arrays for k in self._shapes(group, p)):
                    continue
                if p not in self.state:
                    self._allocate(group, [p])
                    numbers = tuple(float(arrays[f"{k}.{i}"]) for k in self._shared(group))
                    own = {k: self.state[p][k] for k in self._shared(group)}
                    self.state[p] |= shared.setdefault(numbers, own)
                for key, buffer in self.state[p].items():
                    buffer.data = arrays[f"{key}.{i}"].astype(buffer.dtype.numpy)


_SUM = "grad_sum"
_AVERAGE = "ema"


def decayed(options: Mapping[str, Any], param: Tensor, grad: Tensor) -> Tensor:
    """What to descend along: the gradient, turned round to maximize, with the weight decay in it."""
    if options["maximize"]:
        grad = -grad
    return grad + options["weight_decay"] * param if options["weight_decay"] else grad


def number_in(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise TenonError unless ``low <= value < high``."""
    if not low <= value < high:
        limit = f"at least {low}" if high == float("inf") else f"at least {low} and below {high}"
        raise TenonError(f"{name} must be {limit}, not {value}")

"""What optimizers share: parameter groups, state, and the update traced into the program that computes the loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from engine import dtypes
from engine.errors import StateError, TenonError, TraceError, UnsupportedError
from engine.graph import apply
from frontend.nn.parameter import Buffer, Parameter, as_array
from frontend.optim.groups import ParameterGroup
from frontend.tensor import Tensor
from frontend.trace import Trace, current_trace

Params = Iterable[Parameter] | Iterable[dict[str, Any]]


class Optimizer:
    """Base of the optimizers. A subclass gives its state's names, the scalars of a step, and one parameter's update.

    Parameters of a group that first train together share one step counter. A frozen parameter that joins later starts
    from step 0, as in PyTorch. A parameter that the loss does not depend on is left as it is (PyTorch's ``None``
    gradient).
    """

    name: str

    def __init__(self, params: Params, lr: float, options: dict[str, Any]):
        self.defaults = {"lr": lr, **options}
        self.param_groups: list[ParameterGroup] = []
        self.state: dict[Parameter, dict[str, Buffer]] = {}
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

    def _moments(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the state that has a parameter's shape."""
        raise NotImplementedError

    def _counts(self, options: Mapping[str, Any]) -> bool:
        """Whether the update depends on the number of steps taken."""
        raise NotImplementedError

    def _scalars(self, options: Mapping[str, Any], lr: Tensor, step: Tensor | None) -> Any:
        """What is computed once a step for all parameters of one dtype, from ``lr`` and ``step`` (counted from 1)
        in that dtype."""
        raise NotImplementedError

    def _update(
        self, options: Mapping[str, Any], scalars: Any, param: Tensor, grad: Tensor, state: dict[str, Buffer]
    ) -> Tensor:
        """The parameter's new value; new moments are assigned to ``state``."""
        raise NotImplementedError

    # --- tracing ---

    def minimize(self, loss: Tensor) -> None:
        """Change the parameters by one step against the gradient of ``loss``, whenever the traced program runs.

        Raises TraceError outside of a traced function, ShapeError where ``loss`` is not a scalar, and TenonError where
        it depends on none of the parameters.
        """
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
        grads = {p: Tensor.of(g) for p, g in zip(used, values, strict=True)}
        for number, group in enumerate(self.param_groups):
            group.traced = True
            members = [p for p in group.params if p in grads]
            self._allocate(group, members)
            self._name_state(trace, number, members)
            self._build(group, {p: grads[p] for p in members})

    def step(self, *_: object) -> NoReturn:
        """Tenon has no gradients that wait for a step: :meth:`minimize` takes them and updates."""
        raise UnsupportedError("there is no step(): call optimizer.minimize(loss) inside a tn.function")

    def _build(self, group: ParameterGroup, grads: dict[Parameter, Tensor]) -> None:
        """The update of one group, its scalars computed once for each step counter and dtype."""
        trace = current_trace()
        lr = Tensor.of(trace.read(group.lr_cell, f"{self.name}.lr"))
        steps: dict[Buffer, Tensor] = {}
        scalars: dict[Any, Any] = {}
        for p, grad in grads.items():
            state = self.state[p]
            counter = state.get("step")
            if counter is not None and counter not in steps:
                steps[counter] = counter + 1
                counter.assign(steps[counter])
            dtype = dtypes.f64 if p.dtype == dtypes.f64 else dtypes.f32
            if (counter, dtype) not in scalars:
                step = None if counter is None else steps[counter].to(dtype)
                scalars[counter, dtype] = self._scalars(group, lr.to(dtype), step)
            current = Tensor.of(p.value())
            p.assign(self._update(group, scalars[counter, dtype], current, grad, state).to(p.dtype))

    def _allocate(self, group: ParameterGroup, params: Iterable[Parameter]) -> None:
        """State at zero for parameters that have none yet; their step counter is one cell."""
        fresh = [p for p in params if p not in self.state]
        counter = Buffer(np.zeros((), np.int64)) if self._counts(group) else None
        for p in fresh:
            self.state[p] = {k: Buffer(np.zeros_like(p.cell.array)) for k in self._moments(group)}
            if counter is not None:
                self.state[p]["step"] = counter

    def _name_state(self, trace: Trace, number: int, params: Iterable[Parameter]) -> None:
        group = self.param_groups[number]
        of_group = f".{number}" if len(self.param_groups) > 1 else ""
        names = {f"{self.name}.lr{of_group}": group.lr_cell}
        for p in params:
            for key, buffer in self.state[p].items():
                owner = of_group if key == "step" else f".{trace.name_of(p.cell, 'parameter')}"
                names[f"{self.name}.{key}{owner}"] = buffer.cell
        trace.prefer_names(names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.param_groups))})"

    # --- saving and loading ---

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: gradients are values inside a program and are never left over."""

    def _numbered(self) -> list[tuple[int, ParameterGroup, Parameter]]:
        pairs = [(group, p) for group in self.param_groups for p in group.params]
        return [(i, group, p) for i, (group, p) in enumerate(pairs)]

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of the state as one flat dict of arrays: ``exp_avg.3`` belongs to the fourth parameter, ``lr.0`` to
        the first group. Parameters that have not been trained have no entry; options are not saved."""
        found = {f"lr.{i}": np.array(group.lr_cell.array) for i, group in enumerate(self.param_groups)}
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
        self._load_moments(arrays)

    def _misfits(self, arrays: Mapping[str, np.ndarray]) -> tuple[list[str], set[str]]:
        """What is wrong with ``arrays``, and the keys that they may have."""
        wrong: list[str] = []
        known = {f"lr.{i}" for i in range(len(self.param_groups))}
        for i, group, p in self._numbered():
            shapes = dict.fromkeys(self._moments(group), p.cell.array.shape)
            if self._counts(group):
                shapes["step"] = ()
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
        for group in self.param_groups:
            counters: dict[int, Buffer] = {}
            for i, owner, p in self._numbered():
                if owner is not group or not any(f"{k}.{i}" in arrays for k in (*self._moments(group), "step")):
                    continue
                if p not in self.state:
                    self._allocate(group, [p])
                    if self._counts(group):
                        steps = int(arrays[f"step.{i}"])
                        self.state[p]["step"] = counters.setdefault(steps, self.state[p]["step"])
                for key, buffer in self.state[p].items():
                    buffer.data = arrays[f"{key}.{i}"].astype(buffer.dtype.numpy)


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

"""Module: a tree of parameters, buffers and further modules, with PyTorch's names and semantics."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from engine import dtypes
from engine.dims import shape_text
from engine.errors import DTypeError, StateError, TenonError, UnsupportedError
from engine.state import Cell, place_together
from frontend.nn.hooks import Hooks, RemovableHandle, changed_arguments
from frontend.nn.parameter import Buffer, Parameter, StateTensor, UninitializedParameter, as_array
from frontend.tensor import Tensor, as_tensor, target_dtype
from frontend.trace import active

M = TypeVar("M", bound="Module")


class IncompatibleKeys(NamedTuple):
    """What :meth:`Module.load_state_dict` did not find, and what it did not expect."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of all layers and models. Subclasses make their parameters and layers in ``__init__`` and compute in
    ``forward``; calling the module calls ``forward``.

    Called inside a traced function a module adds to the program. Called with arrays elsewhere it runs at once on the
    NumPy reference, which is slow but needs no compiling.

    PyTorch: torch.nn.Module.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Buffer | None]
    _modules: dict[str, Module | None]
    _transient: set[str]
    _forward_hooks: Hooks
    _forward_pre_hooks: Hooks

    def __init__(self) -> None:
        for name, value in (
            ("training", True), ("_parameters", {}), ("_buffers", {}), ("_modules", {}), ("_transient", set()),
            ("_forward_hooks", {}), ("_forward_pre_hooks", {}),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    # --- attributes ---

    def _tables(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if "_parameters" not in self.__dict__:
            raise TenonError(f"{type(self).__name__}.__init__ must call super().__init__() before it sets attributes")
        return self._parameters, self._buffers, self._modules

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (Parameter, Module)):
            tables = self._tables()
            for table in tables:
                table.pop(name, None)
            self.__dict__.pop(name, None)
            tables[0 if isinstance(value, Parameter) else 2][name] = value
            return
        for table in (self.__dict__.get(t, {}) for t in ("_parameters", "_buffers", "_modules")):
            if name in table:
                self._replace(table, name, value)
                return
        object.__setattr__(self, name, value)

    def _replace(self, table: dict[str, Any], name: str, value: Any) -> None:
        """Assign to a registered name: None takes it away, and a buffer takes the new value."""
        if value is None:
            table[name] = None
        elif table is self._buffers and isinstance(value, (Tensor, np.ndarray)):
            if table[name] is None:
                table[name] = value if isinstance(value, Buffer) else Buffer(value)
            else:
                table[name].assign(as_tensor(value))
        else:
            kind = "Parameter" if table is self._parameters else "Module" if table is self._modules else "Buffer"
            raise TypeError(f"{type(self).__name__}.{name} is a {kind} and cannot become {value!r:.60}")

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(table, ()):
                return self.__dict__[table][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for table in self._tables():
            if name in table:
                del table[name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Make ``param`` an attribute; None reserves the name."""
        self._check_name(name)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"register_parameter takes a Parameter or None, not {type(param).__name__}")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Make ``tensor`` state of the module that is not trained; ``persistent`` ones are in the ``state_dict``."""
        self._check_name(name)
        if tensor is not None and not isinstance(tensor, Buffer):
            tensor = Buffer(tensor)
        self._buffers[name] = tensor
        if not persistent:
            self._transient.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Make ``module`` a child called ``name``."""
        self._check_name(name)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{name!r} must be a Module, not {type(module).__name__} {module!r:.60}")
        self._modules[name] = module

    register_module = add_module

    def _check_name(self, name: str) -> None:
        tables = self._tables()
        if not isinstance(name, str) or not name or "." in name:
            raise KeyError(f"a name without dots was expected, not {name!r}")
        if hasattr(self, name) and not any(name in table for table in tables):
            raise KeyError(f"{type(self).__name__} already has the attribute {name!r}")

    # --- running ---

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        trace = active()
        if trace is not None:
            trace.name_after(functools.partial(state_cells, self))
            with trace.inside(self):
                return self._forward_with_hooks(args, kwargs)
        return self._forward_with_hooks(args, kwargs)

    def _forward_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = tuple(map(_as_input, args)), {k: _as_input(v) for k, v in kwargs.items()}
        for hook, with_kwargs in list(self._forward_pre_hooks.values()):
            args, kwargs = changed_arguments(hook, with_kwargs, self, args, kwargs)
        output = self.forward(*args, **kwargs)
        for hook, with_kwargs in list(self._forward_hooks.values()):
            found = hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
            output = output if found is None else found
        return output

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after every ``forward``; what it returns, unless None, is the output.

        Inside a traced function hooks run while tracing: what they compute becomes part of the program. With
        ``with_kwargs`` it is ``hook(module, args, kwargs, output)``.
        """
        return RemovableHandle(self._forward_hooks, hook, with_kwargs, prepend)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before every ``forward``; what it returns, unless None, are the arguments (one
        that is no tuple is the only one). With ``with_kwargs`` it is ``hook(module, args, kwargs)``, and returns both.
        """
        return RemovableHandle(self._forward_pre_hooks, hook, with_kwargs, prepend)

    def register_full_backward_hook(self, *_: object, **__: object) -> NoReturn:
        """There is no backward pass to hook into: gradients are values of the program."""
        raise UnsupportedError(
            "modules have no backward hooks: gradients are tensors, from tn.grad or optimizer.gradients(loss)"
        )

    # --- walking the tree ---

    def named_children(self) -> Iterator[tuple[str, Module]]:
        for name, module in self._modules.items():
            if module is not None:
                yield name, module

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their paths; each once."""
        seen: set[int] = set()

        def walk(module: Module, path: str) -> Iterator[tuple[str, Module]]:
            if id(module) in seen:
                return
            if remove_duplicate:
                seen.add(id(module))
            yield path, module
            for name, child in module.named_children():
                yield from walk(child, f"{path}.{name}" if path else name)

        return walk(self, prefix)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path. Raises AttributeError."""
        found: Any = self
        for name in target.split(".") if target else ():
            found = getattr(found, name)
            if not isinstance(found, Module):
                raise AttributeError(f"{name!r} in {target!r} is not a module")
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path. Raises AttributeError."""
        return self._member("_parameters", target, "parameter")

    def get_buffer(self, target: str) -> Buffer:
        """The buffer at a dotted path. Raises AttributeError."""
        return self._member("_buffers", target, "buffer")

    def _member(self, kind: str, target: str, what: str) -> Any:
        path, _, name = target.rpartition(".")
        found = getattr(self.get_submodule(path), kind).get(name)
        if found is None:
            raise AttributeError(f"{name!r} in {target!r} is not a {what}")
        return found

    def _named(self, kind: str, prefix: str, recurse: bool, distinct: bool = True) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix, remove_duplicate=distinct) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, member in getattr(module, kind).items():
                if member is None or (distinct and id(member) in seen):
                    continue
                seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Each parameter once, with its dotted path."""
        return self._named("_parameters", prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Buffer]]:
        return self._named("_buffers", prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Buffer]:
        return (b for _, b in self.named_buffers(recurse=recurse))

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn`` on every module below this one, then on this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # --- modes ---

    def train(self: M, mode: bool = True) -> M:
        """Switch what differs between training and evaluation (dropout), here and below."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self: M) -> M:
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Train these parameters, or freeze them. Programs compiled before are as they were."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: gradients are values inside a program and are never left over."""

    def to(self: M, *targets: Any, dtype: object = None, device: object = None) -> M:
        """Check that the device is "cpu", and give every floating point parameter and buffer another dtype.

        Raises StateError where a compiled program holds one of them, since its code is for the dtype it had.
        """
        wanted = target_dtype(targets, dtype, device)
        if wanted is None:
            return self
        if not wanted.is_float:
            raise DTypeError(f"a module's parameters become floating point numbers, not {wanted}")
        members = {name: m for name, m in self._members() if m.dtype.is_float and m.dtype != wanted}
        in_use = [name for name, m in members.items() if m.cell.in_use]
        if in_use:
            raise StateError(
                f"{in_use[0]} cannot become {wanted}: a compiled program holds it as {members[in_use[0]].dtype}; "
                "convert the model before compiling it, or copy it (copy.deepcopy) and convert the copy"
            )
        for member in members.values():
            member.cell = Cell(member.cell.array, wanted, member.cell.order)
        return self

    def cpu(self: M) -> M:
        """Itself: it is on the CPU already."""
        return self

    def cuda(self: M, device: object = None) -> M:
        """Raises UnsupportedError: there is no GPU target."""
        return self.to("cuda")

    def double(self: M) -> M:
        """Parameters and buffers in f64."""
        return self.to(dtype=dtypes.f64)

    def float(self: M) -> M:
        """Parameters and buffers in f32."""
        return self.to(dtype=dtypes.f32)

    def half(self: M) -> M:
        """Parameters and buffers in f16."""
        return self.to(dtype=dtypes.f16)

    def bfloat16(self: M) -> M:
        """Parameters and buffers in bf16."""
        return self.to(dtype=dtypes.bf16)

    def _members(self) -> Iterator[tuple[str, StateTensor]]:
        return itertools.chain(self.named_parameters(), self.named_buffers())

    # --- saving and loading ---

    def _state(self) -> Iterator[tuple[str, StateTensor]]:
        for path, module in self.named_modules(remove_duplicate=False):
            for table in (module._parameters, module._buffers):
                for name, member in table.items():
                    if member is not None and not (table is module._buffers and name in module._transient):
                        yield (f"{path}.{name}" if path else name), member

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter and persistent buffer, under PyTorch's keys."""
        return {name: np.array(member.numpy()) for name, member in self._state()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy arrays, or tensors of any library, into the parameters and buffers of the same names.

        Raises StateError that lists every missing and unexpected key (unless ``strict`` is False) and every array that
        does not fit; then nothing has been loaded.
        """
        own = dict(self._state())
        missing = [k for k in own if k not in state_dict]
        unexpected = [k for k in state_dict if k not in own]
        arrays = {k: as_array(v) for k, v in state_dict.items() if k in own}
        wrong = [text for k, a in arrays.items() if (text := _misfit(k, a, own[k]))]
        if strict and missing:
            wrong.insert(0, f"missing: {', '.join(missing)}")
        if strict and unexpected:
            wrong.insert(bool(missing), f"unexpected: {', '.join(unexpected)}")
        if wrong:
            lines = "".join(f"\n    {line}" for line in wrong)
            raise StateError(f"the state does not fit {type(self).__name__}, and nothing was loaded:{lines}")
        place_together((own[name].cell for name in arrays), keep=False)
        for name, array in arrays.items():
            own[name].cell.write(array)
        return IncompatibleKeys(missing, unexpected)

    # --- printing ---

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's own line."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        if not self._modules:
            return f"{type(self).__name__}({extra})"
        lines = [extra] if extra else []
        lines += [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def _as_input(x: Any) -> Any:
    return as_tensor(x) if isinstance(x, np.ndarray) else x


def _misfit(name: str, array: np.ndarray, member: StateTensor) -> str | None:
    cell = member.cell
    if array.shape != cell.shape:
        return f"{name}: shape {shape_text(array.shape)} was given, {shape_text(cell.shape)} expected"
    if not np.can_cast(array.dtype, cell.dtype.numpy, "same_kind"):
        return f"{name}: dtype {array.dtype} was given, {member.dtype} expected"
    return None


def state_cells(module: Module, prefix: str = "") -> dict[str, Cell]:
    """The cell of every parameter and buffer under its dotted path: what names state in a program. Parameters of lazy
    layers have none yet."""
    return {
        name: member.cell
        for kind in ("_parameters", "_buffers")
        for name, member in module._named(kind, prefix, recurse=True)
        if not isinstance(member, UninitializedParameter)
    }

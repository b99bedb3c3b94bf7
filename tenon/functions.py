"""Traced steps that keep state: ``tn.function`` and ``tn.train_step``."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from engine import graph
from engine.errors import TenonError
from tenon.compiling import compile
from tenon.modes import mode
from tenon.specs import TensorSpec, as_specs
from tenon.training import check_parts

if TYPE_CHECKING:
    from frontend.nn import Module
    from frontend.optim import GradScaler, Optimizer
    from tenon.executable import Executable


class Function:
    """A function that is traced and compiled at its first call, and from then on runs as one program.

    Called with arrays it runs the program; called inside another trace it becomes part of that one.
    """

    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        specs: Sequence[object] | None = None,
        *,
        level: int | None = None,
        target: str = "cpu",
        name: str | None = None,
        memory_limit: int | str | None = None,
        memory_at: Mapping[str, int] | None = None,
        precision: str = "fp32",
        autotune: bool | None = None,
    ):
        functools.update_wrapper(self, function)
        self._function = function
        self._given_specs = specs
        self._options: dict[str, Any] = {
            "level": level,
            "target": target,
            "name": name,
            "memory_limit": memory_limit,
            "memory_at": memory_at,
            "precision": precision,
            "autotune": autotune,
        }
        self._executable: Executable | None = None
        self._lock = threading.Lock()

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """What the program takes: the specs given, or those in the annotations. Raises TenonError."""
        if self._given_specs is not None:
            return as_specs(self._given_specs, self.__name__)
        return _annotated_specs(self._function)

    @property
    def executable(self) -> Executable:
        """The compiled program; the first use traces and compiles it."""
        if self._executable is None:
            with self._lock:
                if self._executable is None:
                    self._executable = compile(self._function, *self.specs, **self._options)
        return self._executable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if graph.tracing():
            return self._function(*args, **kwargs)
        executable = self._executable or self.executable
        return executable(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tn.function {self.__name__}, {'compiled' if self._executable else 'not compiled yet'}>"


@overload
def function(function: Callable[..., Any], /) -> Function: ...
@overload
def function(
    *,
    specs: Sequence[object] | None = None,
    level: int | None = None,
    target: str = "cpu",
    name: str | None = None,
    memory_limit: int | str | None = None,
    memory_at: Mapping[str, int] | None = None,
    precision: str = "fp32",
    autotune: bool | None = None,
) -> Callable[[Callable[..., Any]], Function]: ...
def function(
    function: Callable[..., Any] | None = None,
    /,
    *,
    specs: Sequence[object] | None = None,
    level: int | None = None,
    target: str = "cpu",
    name: str | None = None,
    memory_limit: int | str | None = None,
    memory_at: Mapping[str, int] | None = None,
    precision: str = "fp32",
    autotune: bool | None = None,
) -> Any:
    """Make a function of Tensors one compiled program, whatever state it reads and updates::

        @tn.function
        def step(x: tn.spec("B", 784), y: tn.spec("B", dtype="i64")):
            loss = F.cross_entropy(model(x), y)
            optimizer.minimize(loss)
            return loss

    The specs are the annotations, or given: ``@tn.function(specs=[tn.spec(3)])``. It is traced at the first call. The
    other options are those of ``tn.compile``.
    """

    def decorate(f: Callable[..., Any]) -> Function:
        return Function(
            f,
            specs,
            level=level,
            target=target,
            name=name,
            memory_limit=memory_limit,
            memory_at=memory_at,
            precision=precision,
            autotune=autotune,
        )

    return decorate if function is None else decorate(function)


def train_step(
    model: Module,
    loss_fn: Callable[..., Any],
    optimizer: Optimizer,
    specs: Sequence[object],
    *,
    level: int | None = None,
    target: str = "cpu",
    memory_limit: int | str | None = None,
    memory_at: Mapping[str, int] | None = None,
    precision: str = "fp32",
    autotune: bool | None = None,
    scaler: GradScaler | None = None,
) -> Function:
    """One training step as one program: ``step(*inputs, y)`` updates the model and returns the loss before the update.

    ``specs`` are those of the model's inputs and, last, of what ``loss_fn(model(*inputs), y)`` compares with. The model
    is traced in training mode. ``scaler`` scales the loss, which ``precision="fp16"`` needs. The others are those of
    ``tn.compile``.
    """
    found = as_specs(specs, "train_step")
    if len(found) < 2:
        raise TenonError(f"train_step needs the specs of the model's inputs and of the target, and got {len(found)}")
    check_parts("train_step", model, optimizer, loss_fn)

    def train_step(*inputs: Any) -> Any:
        with mode(model, training=True):
            loss = loss_fn(model(*inputs[:-1]), inputs[-1])
        optimizer.minimize(loss, scaler=scaler)
        return loss

    names = ("x", "y") if len(found) == 2 else (*(f"x{i}" for i in range(len(found) - 1)), "y")
    kinds = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names]
    train_step.__signature__ = inspect.Signature(kinds)  # type: ignore[attr-defined]
    return Function(
        train_step,
        found,
        level=level,
        target=target,
        memory_limit=memory_limit,
        memory_at=memory_at,
        precision=precision,
        autotune=autotune,
    )


def _annotated_specs(function: Callable[..., Any]) -> tuple[TensorSpec, ...]:
    name = getattr(function, "__name__", repr(function))
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except NameError as error:
        raise TenonError(
            f"the annotations of {name} cannot be evaluated ({error}); give them as @tn.function(specs=[...])"
        ) from None
    specs = []
    for p in parameters:
        if not isinstance(p.annotation, TensorSpec):
            if p.name == "self":
                raise TenonError(
                    f"tn.function does not decorate methods, such as {function.__qualname__}: make a function that "
                    "uses the object, or tn.function(thing.method), whose object is bound"
                )
            given = "no annotation" if p.annotation is p.empty else f"the annotation {p.annotation!r}"
            raise TenonError(
                f"the argument {p.name!r} of {name} has {given}; a spec was expected, as in "
                f"def {name}({p.name}: tn.spec('B', 28, 28)), or @tn.function(specs=[...])"
            )
        specs.append(p.annotation)
    return tuple(specs)

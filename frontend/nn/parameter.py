"""Tensors whose elements outlive a call: parameters, which are trained, and buffers, which are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import dtypes
from engine.dtypes import DType, as_dtype
from engine.errors import DTypeError, StateError, TraceError
from engine.graph import TensorType, Value, tracing
from engine.state import Cell
from frontend.tensor import Tensor, as_tensor
from frontend.trace import current_trace, type_of


class StateTensor(Tensor):
    """A tensor that owns a state cell. Inside a trace it is the state's value at that point of the program; elsewhere
    its elements are those in the cell."""

    cell: Cell

    def __init__(self, data: Any, dtype: object = None, requires_grad: bool = False):
        if isinstance(data, Tensor) and data.is_symbolic and not isinstance(data, StateTensor):
            raise TraceError(f"a {type(self).__name__} is made from known numbers, not from a traced program's value")
        self.cell = data if isinstance(data, Cell) else _cell(data, dtype)
        self._array = self._value = self._builder = None
        self.requires_grad = requires_grad

    @property
    def _kind(self) -> str:
        """The name of the state in a program where no module gives it a better one."""
        return type(self).__name__.lower()

    @property
    def is_symbolic(self) -> bool:
        return tracing()

    def value(self) -> Value:
        return current_trace(f"a {type(self).__name__}").read(self.cell, self._kind)

    @property
    def _type(self) -> TensorType:
        return type_of(self.cell)

    def numpy(self) -> np.ndarray:
        """The elements as a read-only array that shares the cell's memory. A running program changes it.

        Raises TraceError inside a trace, where it would be a constant of the program.
        """
        if tracing():
            self._unknown(f"the array of a {type(self).__name__}", "; in traced code use the tensor itself")
        array = self.cell.array.view()
        array.flags.writeable = False
        return array

    @property
    def data(self) -> np.ndarray:
        """The elements, read-only. Assigning an array (or a tensor) of the same shape replaces them."""
        return self.numpy()

    @data.setter
    def data(self, value: Any) -> None:
        self.cell.write(as_array(value))

    def assign(self, value: Tensor) -> None:
        """Take a new value: now, or inside a trace whenever the program runs. Raises ShapeError or DTypeError."""
        if tracing():
            current_trace(f"a {type(self).__name__}").assign(self.cell, as_tensor(value).value(), self._kind)
        else:
            self.cell.write(as_array(value))

    def __deepcopy__(self, memo: dict[int, Any]) -> StateTensor:
        cell = Cell(self.cell.array, self.cell.dtype, self.cell.order)
        copy = type(self)(cell, requires_grad=self.requires_grad)
        memo[id(self)] = copy
        return copy

    def __reduce__(self) -> Any:
        return _restore, (type(self), np.array(self.cell.array), self.requires_grad, self.cell.order)

    def __repr__(self) -> str:
        text = np.array2string(self.cell.array, separator=", ")
        return f"{type(self).__name__} containing:\n{text}, dtype={self.dtype}, requires_grad={self.requires_grad}"


def _cell(data: Any, dtype: object) -> Cell:
    array = as_tensor(data).numpy()
    return Cell(array, as_dtype(array.dtype) if dtype is None else as_dtype(dtype))


class Parameter(StateTensor):
    """A tensor that training changes: an attribute of a module that ``parameters()`` finds. Floats are f32 unless
    the data or ``dtype`` says otherwise.

    PyTorch: torch.nn.Parameter.
    """

    def __init__(self, data: Any, requires_grad: bool = True, dtype: object = None):
        super().__init__(data, dtype, requires_grad)
        if not self.dtype.is_float and requires_grad:
            raise DTypeError(f"only floating point parameters can be trained, not {self.dtype}")

    def requires_grad_(self, requires_grad: bool = True) -> Parameter:
        """Train this parameter, or freeze it. Programs compiled before are as they were."""
        self.requires_grad = requires_grad
        return self


class UninitializedParameter(Parameter):
    """A parameter whose shape is not known before its layer has seen an input. It becomes a :class:`Parameter`, and
    stays the same object, so that an optimizer may be given it before.

    PyTorch: torch.nn.UninitializedParameter.
    """

    def __init__(self, requires_grad: bool = True, dtype: object = None):
        self._declared = dtypes.f32 if dtype is None else as_dtype(dtype)
        self._array = self._value = self._builder = None
        self.requires_grad = requires_grad

    @property
    def dtype(self) -> DType:
        return self._declared

    @property
    def cell(self) -> Cell:  # type: ignore[override]
        raise StateError(
            "a parameter of a lazy layer has no shape yet: run the model once (compile it, trace a step, or call it on "
            "an array)"
        )

    def become(self, parameter: Parameter) -> None:
        """Take over the elements of ``parameter``, and be one."""
        cell = parameter.cell
        self.__class__ = Parameter  # type: ignore[assignment]
        self.__dict__["cell"] = cell

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        copy = UninitializedParameter(self.requires_grad, self._declared)
        memo[id(self)] = copy
        return copy

    def __reduce__(self) -> Any:
        return UninitializedParameter, (self.requires_grad, self._declared.name)

    def __repr__(self) -> str:
        return f"UninitializedParameter(dtype={self.dtype})"


class Buffer(StateTensor):
    """State of a module that no optimizer changes, such as a running mean.

    PyTorch: torch.nn.Buffer. Differs: ``persistent`` is an argument of register_buffer.
    """


def _restore(
    kind: type[StateTensor], array: np.ndarray, requires_grad: bool, order: tuple[int, ...] | None = None
) -> StateTensor:
    return kind(Cell(array, as_dtype(array.dtype), order), requires_grad=requires_grad)


def as_array(value: Any) -> np.ndarray:
    """Anything with elements as an array: arrays, tensors of Tenon, and others that have ``__array__``. A tensor that
    records gradients (PyTorch's parameters) is detached first."""
    if not isinstance(value, (Tensor, np.ndarray)) and hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value)

"""Tensor: a value of the program being traced, or outside of tracing a NumPy array with the same methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TypeAlias, Union, overload

import numpy as np

from engine import dtypes
from engine.dtypes import DType, as_dtype
from engine.errors import DTypeError, ShapeError, TraceError, UnsupportedError
from engine.graph import Builder, TensorType, Value, constant, current_builder, tracing
from frontend import elementwise, indexing, reducing, shaping
from frontend.dispatch import call, foreign
from frontend.elementwise import ElementwiseMethods
from frontend.methods import TensorMethods
from frontend.reducing import Extremum
from frontend.sizes import Shape, SizeLike, SymbolicSize, sizes_of
from frontend.trace import active

Operand = Union["Tensor", np.ndarray, int, float, SymbolicSize]
_int: TypeAlias = int  # Tensor has methods called int, float and bool
_float: TypeAlias = float
_bool: TypeAlias = bool

_BRANCH = ", so Python control flow cannot depend on them. To choose by a condition use tn.where(condition, a, b)"
_ARRAY = (
    ". NumPy's functions and compiled programs take arrays: in traced code use Tenon's own functions and methods "
    "(tn.exp(x), x.sum()), and call what was compiled rather than its executable"
)


class Tensor(ElementwiseMethods, TensorMethods):
    """An array of one dtype that ops are applied to.

    Inside a traced function tensors are symbolic: they have a shape and a dtype, and Python cannot see their
    elements. Elsewhere they hold a NumPy array, and ops on them run at once on the reference; inside a trace such a
    tensor is a constant. Tensors never change: an op gives a new one.
    """

    _array: np.ndarray | None
    _value: Value | None
    _builder: Builder | None
    requires_grad: _bool

    def __init__(self, data: Any, dtype: object = None, requires_grad: _bool = False):
        if isinstance(data, Tensor):
            data = data.numpy()
        array = np.asarray(data, None if dtype is None else as_dtype(dtype).numpy)
        as_dtype(array.dtype)
        self._array = array.view()
        self._array.flags.writeable = False
        self._value = self._builder = None
        self.requires_grad = requires_grad

    @staticmethod
    def of(value: Value) -> Tensor:
        """The tensor that stands for ``value`` in the program being traced."""
        self = Tensor.__new__(Tensor)
        self._array, self._value, self._builder = None, value, current_builder()
        self.requires_grad = False
        return self

    # --- what it is ---

    @property
    def is_symbolic(self) -> _bool:
        """Whether the elements are known only when the program runs."""
        return self._array is None

    def value(self) -> Value:
        """This tensor in the program being traced. Raises TraceError for a value of another program."""
        if self._array is not None:
            trace = active()
            if trace is None or trace.builder is not current_builder():
                return constant(self._array)
            return trace.constant(self, self._array)
        if not self._is_being_traced:
            self._left_behind()
        assert self._value is not None
        return self._value

    @property
    def _type(self) -> TensorType:
        if self._value is not None:
            return self._value.type
        array = self.numpy()
        return TensorType(array.shape, as_dtype(array.dtype))

    @property
    def shape(self) -> Shape:
        return Shape(self._type.shape)

    @property
    def dtype(self) -> DType:
        return self._type.dtype

    @property
    def ndim(self) -> _int:
        return self._type.rank

    @property
    def device(self) -> str:
        """Where the program runs is chosen when it is compiled; tensors are all on the host."""
        return "cpu"

    def dim(self) -> _int:
        return self.ndim

    def size(self, dim: _int | None = None) -> Any:
        """The shape, or the size of one axis."""
        if dim is None:
            return self.shape
        if not -self.ndim <= dim < self.ndim:
            raise ShapeError(f"size: axis {dim} does not exist in a tensor of {self.ndim} axes")
        return self.shape[dim]

    def numel(self) -> SizeLike:
        return self.shape.numel()

    nelement = numel
    ndimension = dim

    def element_size(self) -> _int:
        """The bytes of an element."""
        return self.dtype.itemsize

    def is_floating_point(self) -> _bool:
        return self.dtype.is_float

    def is_contiguous(self) -> _bool:
        """True, as far as a program can tell: the compiler chooses where elements lie."""
        return True

    def __len__(self) -> _int:
        if self.ndim == 0:
            raise TypeError("a tensor without axes has no len()")
        size = self.shape[0]
        if isinstance(size, SymbolicSize):
            self._unknown(f"len() of it, whose first axis is {size}")
        return size

    def __repr__(self) -> str:
        if self.is_symbolic:
            return f"Tensor({self._value!r})"
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(")
        return f"tensor({text}, dtype={self.dtype})"

    def __format__(self, spec: str) -> str:
        """With a format, as in ``f"{loss:.4f}"``, the only element formatted; else the tensor's text."""
        return format(self.item(), spec) if spec else str(self)

    # --- Python asking for elements ---

    def _unknown(self, what: str, instead: str = _BRANCH) -> NoReturn:
        """Raise TraceError: Python asked for ``what``, which is not known yet; ``instead`` says what to do."""
        if self._builder is not None and not self._is_being_traced:
            self._left_behind()
        raise TraceError(
            f"Python asked for {what}, but this tensor ({self._type}) is symbolic: its elements are known only when "
            f"the program runs{instead}; to see a value return it from the function"
        )

    @property
    def _is_being_traced(self) -> _bool:
        return tracing() and self._builder is not None and current_builder().sees(self._builder)

    def _left_behind(self) -> NoReturn:
        raise TraceError(
            f"this tensor ({self._type}) belongs to a program whose tracing has ended; return it from that "
            "program, and pass the result on as an input"
        )

    def numpy(self) -> np.ndarray:
        """The elements as a read-only NumPy array that shares their memory.

        PyTorch: torch.Tensor.numpy. Differs: it is read-only.
        """
        if self._array is None:
            self._unknown("the array of a tensor", _ARRAY)
        return self._array

    def __array__(self, dtype: Any = None, copy: _bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> Any:
        """Operators with an array on the left. Raises UnsupportedError for NumPy's other functions."""
        op = _UFUNCS.get(ufunc.__name__)
        if op is None or method != "__call__" or options:
            own = ufunc.__name__ if hasattr(elementwise, ufunc.__name__) else "..."
            raise UnsupportedError(f"np.{ufunc.__name__} takes NumPy arrays, not tensors; use tn.{own}")
        return shaping.matmul(*operands) if op == "matmul" else _binary(op, *operands)

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.is_symbolic:
            self._unknown("the element of a tensor (item())")
        return self._only()

    def tolist(self) -> Any:
        if self.is_symbolic:
            self._unknown("the elements of a tensor (tolist())")
        return self.numpy().tolist()

    def _only(self) -> Any:
        array = self.numpy()
        if array.size != 1:
            raise ShapeError(f"one element was expected, and the tensor has the shape {array.shape}; reduce it first")
        return array.item()

    def __bool__(self) -> _bool:
        if self.is_symbolic:
            self._unknown("the truth of a tensor (an if, while, assert, and, or, not)")
        return bool(self._only())

    def __int__(self) -> _int:
        if self.is_symbolic:
            self._unknown("the integer in a tensor (int())")
        return int(self._only())

    def __float__(self) -> _float:
        if self.is_symbolic:
            self._unknown("the number in a tensor (float())")
        return float(self._only())

    def __index__(self) -> _int:
        if self.is_symbolic:
            self._unknown("an index from a tensor (range(), a list's index)")
        if not self.dtype.is_integer:
            raise DTypeError(f"only an integer tensor can be an index, not {self.dtype}")
        return int(self._only())

    def __iter__(self) -> Iterator[Tensor]:
        """The parts along the first axis, which must be of a known size."""
        if self.ndim == 0:
            raise TypeError("a tensor without axes cannot be iterated over")
        if isinstance(self.shape[0], SymbolicSize):
            self._unknown(f"its parts one by one (a for loop), and there are {self.shape[0]}")
        return (self[i] for i in range(len(self)))

    def backward(self, *_: object) -> NoReturn:
        """Tenon has no tape: gradients are part of the program.

        PyTorch: torch.Tensor.backward. Differs: it raises an error that says what to call instead.
        """
        raise UnsupportedError(
            "there is no backward(): call optimizer.minimize(loss) inside a tn.function, or take tn.grad(f)"
        )

    # --- operators ---

    def __add__(self, other: Operand) -> Tensor:
        return _binary("add", self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return _binary("add", other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return _binary("sub", self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return _binary("sub", other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return _binary("mul", self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return _binary("mul", other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return _binary("div", self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return _binary("div", other, self)

    def __floordiv__(self, other: Operand) -> Tensor:
        return _binary("floordiv", self, other)

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return _binary("floordiv", other, self)

    def __mod__(self, other: Operand) -> Tensor:
        return _binary("mod", self, other)

    def __rmod__(self, other: Operand) -> Tensor:
        return _binary("mod", other, self)

    def __pow__(self, other: Operand) -> Tensor:
        return _binary("pow", self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return _binary("pow", other, self)

    def __and__(self, other: Operand) -> Tensor:
        return _binary("bitand", self, other)

    def __rand__(self, other: Operand) -> Tensor:
        return _binary("bitand", other, self)

    def __or__(self, other: Operand) -> Tensor:
        return _binary("bitor", self, other)

    def __ror__(self, other: Operand) -> Tensor:
        return _binary("bitor", other, self)

    def __xor__(self, other: Operand) -> Tensor:
        return _binary("bitxor", self, other)

    def __rxor__(self, other: Operand) -> Tensor:
        return _binary("bitxor", other, self)

    def __lshift__(self, other: Operand) -> Tensor:
        return _binary("shl", self, other)

    def __rlshift__(self, other: Operand) -> Tensor:
        return _binary("shl", other, self)

    def __rshift__(self, other: Operand) -> Tensor:
        return _binary("shr", self, other)

    def __rrshift__(self, other: Operand) -> Tensor:
        return _binary("shr", other, self)

    def __eq__(self, other: object) -> Any:
        return _binary("eq", self, other)

    def __ne__(self, other: object) -> Any:
        return _binary("ne", self, other)

    def __lt__(self, other: Any) -> Tensor:
        return _binary("lt", self, other)

    def __le__(self, other: Any) -> Tensor:
        return _binary("le", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return _binary("gt", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return _binary("ge", self, other)

    __hash__ = object.__hash__

    def __neg__(self) -> Tensor:
        return call("neg", self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return call("abs", self)

    def __invert__(self) -> Tensor:
        return call("invert", self)

    def __matmul__(self, other: Tensor | np.ndarray) -> Tensor:
        return shaping.matmul(self, other) if isinstance(other, (Tensor, np.ndarray)) else NotImplemented

    def __rmatmul__(self, other: np.ndarray) -> Tensor:
        return shaping.matmul(as_tensor(other), self) if isinstance(other, np.ndarray) else NotImplemented

    def matmul(self, other: Tensor) -> Tensor:
        return shaping.matmul(self, other)

    # --- shapes and parts ---

    def __getitem__(self, key: Any) -> Tensor:
        return indexing.index(self, key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise UnsupportedError(
            "a tensor cannot be changed in place; build a new one with tn.where(condition, a, b), tn.cat, or, where "
            "indices say, x.index_put(indices, values) or x.scatter"
        )

    def reshape(self, *shape: SizeLike | Sequence[SizeLike]) -> Tensor:
        """The elements under another shape; one size may be -1."""
        return shaping.reshape(self, Shape(sizes_of(shape)))

    view = reshape

    def flatten(self, start_dim: _int = 0, end_dim: _int = -1) -> Tensor:
        return shaping.flatten(self, start_dim, end_dim)

    def unflatten(self, dim: _int, sizes: Sequence[SizeLike]) -> Tensor:
        return shaping.unflatten(self, dim, sizes)

    def transpose(self, dim0: _int, dim1: _int) -> Tensor:
        return shaping.transpose(self, dim0, dim1)

    def permute(self, *axes: Any) -> Tensor:
        return shaping.permute(self, axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes)

    def t(self) -> Tensor:
        """A matrix transposed."""
        if self.ndim > 2:
            raise ShapeError(f"t() takes a tensor of at most 2 axes, not {self.ndim}; use mT or transpose")
        return self.T

    @property
    def T(self) -> Tensor:
        """With the axes in reverse order."""
        return shaping.permute(self, range(self.ndim)[::-1])

    @property
    def mT(self) -> Tensor:
        """With the last two axes swapped."""
        return shaping.transpose(self, -2, -1)

    def squeeze(self, dim: _int | Sequence[_int] | None = None) -> Tensor:
        return shaping.squeeze(self, dim)

    def unsqueeze(self, dim: _int) -> Tensor:
        return shaping.unsqueeze(self, dim)

    def expand(self, *sizes: SizeLike | Sequence[SizeLike]) -> Tensor:
        return shaping.expand(self, *sizes)

    def expand_as(self, other: Tensor) -> Tensor:
        return shaping.expand(self, other.shape)

    def reshape_as(self, other: Tensor) -> Tensor:
        return shaping.reshape(self, other.shape)

    def view_as(self, other: Tensor) -> Tensor:
        return shaping.reshape(self, other.shape)

    # --- reductions that give more than a tensor ---

    @overload
    def max(self, dim: Tensor | None = None, keepdim: _bool = False) -> Tensor: ...

    @overload
    def max(self, dim: _int, keepdim: _bool = False) -> Extremum: ...

    @reducing.numpy_names
    def max(self, dim: _int | Tensor | None = None, keepdim: _bool = False) -> Tensor | Extremum:
        """The greatest element; with an axis, the greatest along it and their positions."""
        return reducing.extremum("max", self, dim, keepdim)

    @overload
    def min(self, dim: Tensor | None = None, keepdim: _bool = False) -> Tensor: ...

    @overload
    def min(self, dim: _int, keepdim: _bool = False) -> Extremum: ...

    @reducing.numpy_names
    def min(self, dim: _int | Tensor | None = None, keepdim: _bool = False) -> Tensor | Extremum:
        """The least element; with an axis, the least along it and their positions."""
        return reducing.extremum("min", self, dim, keepdim)

    # --- elementwise, where PyTorch's method is not the plain op ---

    def where(self, condition: Operand, other: Operand) -> Tensor:
        """This tensor where ``condition`` holds, else ``other``."""
        return call("where", condition, self, other)

    def softmax(self, dim: _int) -> Tensor:
        return call("softmax", self, axis=self._axis(dim, "softmax"))

    def log_softmax(self, dim: _int) -> Tensor:
        return call("log_softmax", self, axis=self._axis(dim, "log_softmax"))

    def _axis(self, dim: _int, op: str) -> _int:
        (axis,) = reducing.axes_of(dim, self.ndim, op) or (0,)
        return axis

    # --- dtypes and devices ---

    def to(self, *targets: Any, dtype: object = None, device: object = None) -> Tensor:
        """In another dtype, named by itself, by a string or by a tensor that has it. The device "cpu" is accepted."""
        wanted = target_dtype(targets, dtype, device)
        return self if wanted is None or wanted == self.dtype else call("cast", self, dtype=wanted)

    def type_as(self, other: Tensor) -> Tensor:
        return self.to(other.dtype)

    def cpu(self) -> Tensor:
        return self

    def contiguous(self) -> Tensor:
        return self

    def clone(self) -> Tensor:
        """The tensor itself: tensors never change."""
        return self

    def detach(self) -> Tensor:
        """The same values, through which no gradient flows."""
        return call("detach", self)

    def new_full(self, size: Any, fill_value: _float, dtype: object = None, *, device: object = None) -> Tensor:
        """``fill_value`` everywhere, in this tensor's dtype unless one is given."""
        from frontend.creation import full

        return full(size, fill_value, self.dtype if dtype is None else dtype, device=device)

    def new_zeros(self, *size: Any, dtype: object = None, device: object = None) -> Tensor:
        return self.new_full(sizes_of(size), 0, dtype, device=device)

    def new_ones(self, *size: Any, dtype: object = None, device: object = None) -> Tensor:
        return self.new_full(sizes_of(size), 1, dtype, device=device)

    def new_tensor(self, data: Any, dtype: object = None) -> Tensor:
        """``data`` in this tensor's dtype unless one is given."""
        return as_tensor(data, self.dtype if dtype is None else dtype).detach()

    def float(self) -> Tensor:
        return self.to(dtypes.f32)

    def double(self) -> Tensor:
        return self.to(dtypes.f64)

    def half(self) -> Tensor:
        return self.to(dtypes.f16)

    def bfloat16(self) -> Tensor:
        return self.to(dtypes.bf16)

    def byte(self) -> Tensor:
        return self.to(dtypes.u8)

    def char(self) -> Tensor:
        return self.to(dtypes.i8)

    def long(self) -> Tensor:
        return self.to(dtypes.i64)

    def int(self) -> Tensor:
        return self.to(dtypes.i32)

    def bool(self) -> Tensor:
        return self.to(dtypes.bool_)


def target_dtype(targets: tuple[Any, ...], dtype: object = None, device: object = None) -> DType | None:
    """The dtype that arguments of ``to`` ask for, if any. Raises UnsupportedError for a device other than the cpu."""
    for target in targets:
        if isinstance(target, Tensor):
            dtype = target.dtype
        elif isinstance(target, str) and target.split(":")[0] in ("cpu", "cuda", "mps", "xpu"):
            device = target
        else:
            dtype = target
    if device is not None and str(device) != "cpu":
        raise UnsupportedError(f"tensors live on the cpu, not on {device}; choose where a program runs in tn.compile")
    return None if dtype is None else as_dtype(dtype)


_UFUNCS = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "floor_divide": "floordiv", "remainder": "mod",
    "power": "pow", "matmul": "matmul", "bitwise_and": "bitand", "bitwise_or": "bitor", "bitwise_xor": "bitxor",
    "left_shift": "shl", "right_shift": "shr", "equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le",
    "greater": "gt", "greater_equal": "ge",
}  # fmt: skip
"""The NumPy functions behind the operators of arrays, and their ops."""


def _binary(op: str, a: object, b: object) -> Any:
    for x in (a, b):
        if not _is_operand(x):
            if hasattr(x, "__array__"):
                raise foreign(op, x)
            return NotImplemented
    return call(op, a, b)


def _is_operand(x: object) -> bool:
    return isinstance(x, (Tensor, np.ndarray, bool, int, float, np.generic, SymbolicSize))


def as_tensor(x: Any, dtype: object = None) -> Tensor:
    """``x`` as a tensor, without a copy where it is one or an array. Python floats are f32, ints i64.

    PyTorch: torch.as_tensor.
    """
    if isinstance(x, Tensor):
        return x if dtype is None else x.to(dtype)
    if isinstance(x, SymbolicSize):
        return call("identity", x)
    if dtype is None and not isinstance(x, (np.ndarray, np.generic)) and not hasattr(x, "__array__"):
        array = np.asarray(x)
        return Tensor(array, dtypes.f32 if array.dtype == np.float64 else None)
    return Tensor(x, dtype)

"""Where values come from: inputs, state, constants, sizes and indices; and the ops that stand for no arithmetic."""

from __future__ import annotations

import numpy as np

from engine import dtypes
from engine.dims import Size, shape_text
from engine.dtypes import DType
from engine.errors import DTypeError, IndexRangeError, ShapeError, TenonError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.rules import need_integer


def _port_rule(**_: object) -> TensorType:
    raise TenonError("inputs and state are made by Builder.input and Builder.state_input")


register(Op("input", "source", (), _port_rule, attrs={"name": REQUIRED}, doc="An argument of the program."))
register(
    Op("state", "source", (), _port_rule, attrs={"name": REQUIRED}, doc="The value of named state before the call.")
)

register(
    Op(
        "constant",
        "source",
        (),
        lambda value, dtype: TensorType(value.shape, dtype),
        lambda value, dtype: value,
        attrs={"value": REQUIRED, "dtype": REQUIRED},
        doc="A literal array.",
    )
)

register(
    Op(
        "size",
        "source",
        (),
        lambda size, dtype: TensorType((), dtype),
        lambda size, dtype: np.asarray(size, dtype.numpy),
        attrs={"size": REQUIRED, "dtype": dtypes.i64},
        doc="A symbolic size as a scalar.",
    )
)


def _iota(shape: tuple[int, ...], axis: int, dtype: DType) -> np.ndarray:
    column = [1] * len(shape)
    column[axis] = -1
    return np.broadcast_to(np.arange(shape[axis], dtype=dtype.numpy).reshape(column), shape)


register(
    Op(
        "iota",
        "index",
        (),
        lambda shape, axis, dtype: TensorType(shape, dtype),
        _iota,
        attrs={"shape": REQUIRED, "axis": REQUIRED, "dtype": dtypes.i64},
        doc="The index along ``axis`` at every position of ``shape``.",
    )
)

register(
    Op(
        "identity",
        "view",
        ("x",),
        lambda x: x,
        lambda x: x,
        lambda node, g: (g,),
        doc="``x`` itself, as a value of its own.",
    )
)
register(
    Op(
        "later",
        "view",
        ("x",),
        lambda x: x,
        lambda x: x,
        lambda node, g: (g,),
        doc="``x`` itself, for what is computed again later: no kernel makes ``x`` and reads this.",
    )
)
register(Op("detach", "view", ("x",), lambda x: x, lambda x: x, doc="``x``, through which no gradient flows."))


def _cast_gradient(node: Node, g: Value) -> tuple[Value | None]:
    source = node.inputs[0].dtype
    return (apply("cast", g, dtype=source) if source.is_float and g is not None else None,)


def _cast(x: np.ndarray, dtype: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        return x.astype(dtype.numpy)


register(
    Op(
        "cast",
        "elementwise",
        ("x",),
        lambda x, dtype: TensorType(x.shape, dtype),
        _cast,
        _cast_gradient,
        attrs={"dtype": REQUIRED},
        doc="``x`` in another dtype, as NumPy's astype.",
    )
)


def _grad_rule(y: TensorType, *wrt: TensorType) -> tuple[TensorType, ...]:
    for t in wrt:
        if not t.dtype.is_float:
            raise DTypeError(f"gradients are taken with respect to floating point tensors, not {t.dtype}")
    if not y.dtype.is_float:
        raise DTypeError(f"a gradient is taken of a floating point scalar, not of {y.dtype}")
    if y.size != 1:
        raise ShapeError(
            f"a gradient is taken of a scalar, not of a tensor of shape {shape_text(y.shape)}; reduce it first"
        )
    return wrt


register(
    Op(
        "grad",
        "grad",
        ("y", "*wrt"),
        _grad_rule,
        doc="The gradients of the scalar ``y``; the autodiff pass expands it.",
    )
)


def _check_rule(x: TensorType, limit: Size, first: int, what: str) -> TensorType:
    need_integer(f"an {what}" if what == "index" else f"a {what}", x)
    return x


def out_of_range(value: object, limit: Size, first: int, what: str) -> str:
    """What is said of a value that ``check_index`` refuses."""
    return f"{what} {value} is out of range: expected {first} <= {what} < {limit}"


def _check(x: np.ndarray, limit: int, first: int, what: str) -> np.ndarray:
    bad = x[(x < first) | (x >= limit)]
    if bad.size:
        raise IndexRangeError(out_of_range(bad.flat[0], limit, first, what))
    return x


register(
    Op(
        "check_index",
        "check",
        ("x",),
        _check_rule,
        _check,
        attrs={"limit": REQUIRED, "first": 0, "what": "index"},
        doc="``x``, once every element is known to be in ``first .. limit-1``; else the call fails and state is as it "
        "was. ``what`` an element is, the error says.",
    )
)

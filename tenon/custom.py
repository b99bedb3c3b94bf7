"""`tn.custom_op`: ops that users add, with a reference, a gradient, and an expression or a kernel."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from engine import names, op, scalar
from engine.dims import Expr, shape_text
from engine.dtypes import DType
from engine.errors import ShapeError, TenonError, UnsupportedError
from engine.graph import Node, TensorType, Value, apply
from engine.op import Op
from engine.ops.elementwise import elementwise_op
from engine.rules import build, full, sum_to
from engine.user_kernel import UserKernel
from frontend.dispatch import call
from frontend.sizes import SymbolicSize
from frontend.tensor import Tensor, as_tensor

Derivatives = Callable[..., Any] | str | Sequence[str | None]


def custom_op(
    name: str,
    reference: Callable[..., Any] | None = None,
    *,
    expression: str | None = None,
    attrs: Mapping[str, float] | None = None,
    result: Callable[..., Any] | None = None,
    gradient: Derivatives | None = None,
    kernel: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Add an op, and get the function that applies it to tensors, traced or not.

    ``reference(*arrays, **attributes)`` computes it in NumPy: positional parameters are the inputs, keyword-only ones
    the attributes. It defines the op; ``target="reference"`` needs no more. To be compiled for the CPU it needs one of

    - ``expression``: what it does to each element, such as ``"x * sigmoid(beta * x)"``, in the vocabulary of
      ``engine.scalar``. Its names are the inputs, in the order in which they appear unless there is a reference, and
      the attributes, with their defaults in ``attrs``. Such an op is fused with others, and needs neither reference
      nor gradient
    - ``kernel``: a function in the Python that Numba compiles, of the inputs and then the outputs as C-contiguous
      arrays, followed by the attributes: ``def kernel(x, out): ...`` fills ``out``. With ``lo, hi`` after the outputs
      it fills ``out[lo:hi]`` alone, in any number of calls, from any thread; what it writes there must not depend on
      where the range ends. Without them it is one piece of work, run by one thread, on a GPU too. It can neither raise
      nor allocate, and sees 16-bit floats as f32

    ``result(*types, **attributes)`` gives the type of the output from those of the inputs, each with ``shape`` and
    ``dtype``, as ``tn.spec(*x.shape[:-1], dtype=x.dtype)``; a tuple of several. Without it the output is like the first
    input.

    ``gradient(g, *inputs, output, **attributes)`` gives the gradient of each input, a tuple of several, with None where
    none flows. It is written with Tenon's functions, so that it can be differentiated again; ``g`` and ``output`` are
    tuples where the op has several outputs. Of an expression it may be a string (one for each input) in which ``g`` is
    the gradient that arrives and ``out`` the output.

    The name is how the op prints; registering a custom op's name again replaces it. Raises TenonError for what does not
    fit together, and UnsupportedError where the op is compiled without code, or differentiated without a gradient.
    """
    if reference is None and expression is None:
        raise TenonError(f"the op {name!r} needs a reference, in NumPy, or an expression")
    if expression is not None and (kernel is not None or result is not None):
        raise TenonError(f"the op {name!r} has an expression, which says all that a kernel or a type would")
    if not name.isidentifier() or (name in names.reserved() and not _is_custom(name)):
        raise TenonError(f"{name!r} is no name for an op: it must be an identifier that means nothing else")
    inputs, defaults = _signature(name, reference, expression, attrs)
    if expression is not None:
        record = _elementwise(name, inputs, defaults, reference, expression, gradient)
    else:
        assert reference is not None
        record = _opaque(name, inputs, defaults, reference, result, gradient, kernel)
    op.register(record)
    return _function(record, inputs, defaults)


def _is_custom(name: str) -> bool:
    return name in op.all_ops() and bool(op.get(name).version)


def _signature(
    name: str, reference: Callable[..., Any] | None, expression: str | None, attrs: Mapping[str, float] | None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names of the inputs, and the attributes with their defaults."""
    if reference is None:
        assert expression is not None
        try:
            tree = ast.parse(expression, mode="eval")
        except SyntaxError as error:
            raise TenonError(f"the expression of {name!r} is no expression: {error}") from None
        functions = {n.func for n in ast.walk(tree) if isinstance(n, ast.Call)}
        used = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n not in functions]
        found = dict.fromkeys(n.id for n in sorted(used, key=lambda n: (n.lineno, n.col_offset)))
        return tuple(n for n in found if n not in (attrs or {})), dict(attrs or {})
    if attrs is not None:
        raise TenonError(f"the attributes of {name!r} are the keyword-only parameters of its reference")
    parameters = inspect.signature(reference).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind not in (*positional, inspect.Parameter.KEYWORD_ONLY) for p in parameters):
        raise TenonError(f"the reference of {name!r} takes any number of arguments; name each of them")
    inputs = tuple(p.name for p in parameters if p.kind in positional)
    keywords = [p for p in parameters if p.kind not in positional]
    return inputs, {p.name: op.REQUIRED if p.default is p.empty else p.default for p in keywords}


def _function(record: Op, inputs: tuple[str, ...], defaults: Mapping[str, Any]) -> Callable[..., Any]:
    operands = record.expression is not None

    def function(*tensors: Any, **attributes: Any) -> Any:
        if len(tensors) != len(inputs):
            raise TypeError(f"{record.name}() takes {len(inputs)} tensors ({', '.join(inputs)}), not {len(tensors)}")
        if attributes.keys() - defaults.keys():
            unknown = sorted(attributes.keys() - defaults.keys())[0]
            raise TypeError(f"{record.name}() has no argument {unknown!r}; it has {', '.join(defaults) or 'none'}")
        given = {k: _attribute(record.name, k, v) for k, v in attributes.items()}
        if not operands:
            return call(record.name, *tensors, **given)
        return call(record.name, *tensors, *(given.get(k, default) for k, default in defaults.items()))

    function.__name__ = function.__qualname__ = record.name
    function.__doc__ = record.doc
    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_ONLY) for n in inputs]
    for n, default in defaults.items():
        shown = inspect.Parameter.empty if default is op.REQUIRED else default
        parameters.append(inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=shown))
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def _attribute(op_name: str, name: str, value: Any) -> Any:
    """``value`` as graphs keep attributes. Raises TenonError for what does not print."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, SymbolicSize):
        return value.expr
    if isinstance(value, (tuple, list)):
        return tuple(_attribute(op_name, name, v) for v in value)
    if isinstance(value, (bool, int, float, str, DType, Expr)):
        return value
    kind = type(value).__name__
    raise TenonError(f"{op_name}: {name} is a number, a text, a dtype or a tuple of them, not {kind} {value!r:.60}")


def _version(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


# --- elementwise ops -----------------------------------------------------------------------------------------------


def _elementwise(
    name: str,
    inputs: tuple[str, ...],
    defaults: Mapping[str, Any],
    reference: Callable[..., Any] | None,
    expression: str,
    gradient: Derivatives | None,
) -> Op:
    """Its attributes are further operands: numbers, which become constants of the kernel."""
    every = (*inputs, *defaults)
    _check_expression(name, expression, every)
    derivatives = None
    if gradient is not None and not callable(gradient):
        derivatives = (gradient,) if isinstance(gradient, str) else tuple(gradient)
        if len(derivatives) != len(inputs):
            raise TenonError(
                f"{name!r} has {len(inputs)} inputs ({', '.join(inputs)}) and {len(derivatives)} gradients"
            )
        for d in filter(None, derivatives):
            _check_expression(name, d, (*every, "g", "out"))
        derivatives += (None,) * len(defaults)
    record = elementwise_op(
        name, every, expression, derivatives, (reference and inspect.getdoc(reference)) or expression
    )
    if callable(gradient):
        rule: Callable[..., Any] = partial(_written, name, gradient, inputs, tuple(defaults))
    else:
        rule = record.gradient or partial(_derived, expression, every, len(inputs))
    changes: dict[str, Any] = {"gradient": rule, "version": _version(every, expression, derivatives)}
    if reference is not None:
        changes["reference"] = partial(_on_arrays, reference, inputs, tuple(defaults))
    return replace(record, **changes)


def _check_expression(name: str, expression: str, known: tuple[str, ...]) -> None:
    try:
        lines = scalar.instructions(expression)
    except (SyntaxError, UnsupportedError) as error:
        raise TenonError(f"the op {name!r}: {expression!r}: {error}") from None
    made = {line.name for line in lines}
    unknown = {a for line in lines for a in line.args if isinstance(a, str)} - made - set(known)
    if unknown:
        raise TenonError(f"the op {name!r}: {sorted(unknown)[0]} in {expression!r} is none of {', '.join(known)}")


def _on_arrays(
    reference: Callable[..., Any], inputs: tuple[str, ...], attributes: tuple[str, ...], *arrays: np.ndarray
) -> Any:
    numbers = (a.item() for a in arrays[len(inputs) :])
    return reference(*arrays[: len(inputs)], **dict(zip(attributes, numbers, strict=True)))


def _derived(expression: str, names: tuple[str, ...], count: int, node: Node, g: Value) -> list[Value | None]:
    """The gradient of an expression by differentiating the ops that it consists of."""
    sources = [apply("identity", v) for v in node.inputs]  # the gradient is that of this use alone
    out = build(expression, **dict(zip(names, sources, strict=True)))
    floats = [v for v in sources[:count] if v.dtype.is_float]
    found = apply("grad", apply("sum", out * g, axes=tuple(range(len(out.shape)))), *floats)
    known = dict(zip(floats, found if isinstance(found, tuple) else (found,), strict=True))
    return [known.get(v) for v in sources]


# --- ops with a kernel, or none ------------------------------------------------------------------------------------


def _opaque(
    name: str,
    inputs: tuple[str, ...],
    defaults: Mapping[str, Any],
    reference: Callable[..., Any],
    result: Callable[..., Any] | None,
    gradient: Derivatives | None,
    kernel: Callable[..., Any] | None,
) -> Op:
    if gradient is not None and not callable(gradient):
        raise TenonError(f"the gradient of {name!r} must be a function: strings go with an expression")
    code, outputs = (None, None) if kernel is None else _kernel(name, inputs, tuple(defaults), kernel)
    return Op(
        name,
        "composite" if code is None else "custom",
        inputs,
        partial(_rule, name, result, code, outputs),
        reference,
        partial(_written, name, gradient, inputs, ()),
        attrs=dict(defaults),
        doc=inspect.getdoc(reference) or "",
        kernel=code,
        version=_version(inputs, sorted(defaults), None if code is None else (code.source, code.ranged)),
    )


def _kernel(
    name: str, inputs: tuple[str, ...], attributes: tuple[str, ...], kernel: Callable[..., Any]
) -> tuple[UserKernel, int]:
    """The kernel as data, and the number of arrays that it fills."""
    given = list(inspect.signature(getattr(kernel, "py_func", kernel)).parameters)
    arrays = [p for p in given if p not in attributes and p not in ("lo", "hi")]
    ranged = "lo" in given or "hi" in given
    expected = [*arrays, *(["lo", "hi"] if ranged else []), *attributes]
    if len(arrays) <= len(inputs) or given[: len(expected) - len(attributes)] != expected[: len(arrays) + 2 * ranged]:
        raise TenonError(_kernel_takes(name, inputs, attributes, given))
    if set(given) != set(expected):
        raise TenonError(_kernel_takes(name, inputs, attributes, given))
    code = UserKernel(kernel, ranged)
    _ = code.source  # raises here, where it is registered, for what it may not refer to
    return code, len(arrays) - len(inputs)


def _kernel_takes(name: str, inputs: tuple[str, ...], attributes: tuple[str, ...], given: list[str]) -> str:
    wanted = ", ".join([*inputs, "an array for each output", "lo and hi where it works on ranges", *attributes])
    return f"the kernel of {name!r} takes ({', '.join(given)}); expected {wanted}"


def _rule(
    name: str,
    result: Callable[..., Any] | None,
    kernel: UserKernel | None,
    outputs: int | None,
    *types: TensorType,
    **attributes: Any,
) -> tuple[TensorType, ...]:
    found = types[:1] if result is None else result(*types, **attributes)
    if not isinstance(found, (tuple, list)):
        found = (found,)
    if not found or not all(hasattr(t, "shape") and hasattr(t, "dtype") for t in found):
        raise TenonError(f"{name}: result gave {found!r:.80}; expected a type such as tn.spec(3), or a tuple of them")
    made = tuple(TensorType(tuple(t.shape), t.dtype) for t in found)
    if outputs is not None and len(made) != outputs:
        raise TenonError(f"{name} has {len(made)} outputs, and its kernel fills {outputs}")
    if kernel is not None and kernel.ranged and any(t.rank == 0 or t.shape[0] != made[0].shape[0] for t in made):
        shapes = ", ".join(shape_text(t.shape) for t in made)
        raise ShapeError(f"{name}: a kernel on ranges needs outputs with the same first axis, not of shape {shapes}")
    return made


def _written(
    name: str,
    gradient: Callable[..., Any] | None,
    inputs: tuple[str, ...],
    operands: tuple[str, ...],
    node: Node,
    *grads: Value | None,
) -> list[Value | None]:
    """A user's gradient, on tensors; ``operands`` names the attributes that are operands in the graph."""
    if gradient is None:
        raise UnsupportedError(f"the op {name!r} has no gradient; give it one, or detach() what it is applied to")
    tensors = [Tensor.of(v) for v in node.inputs]
    attributes = dict(node.attrs) | dict(zip(operands, tensors[len(inputs) :], strict=True))
    outputs = tuple(Tensor.of(v) for v in node.outputs)
    flowing = tuple(
        Tensor.of(full(v.shape, 0, v.dtype) if g is None else g) for v, g in zip(node.outputs, grads, strict=True)
    )
    one = len(outputs) == 1
    given = (flowing[0] if one else flowing, *tensors[: len(inputs)], outputs[0] if one else outputs)
    found = gradient(*given, **attributes)
    parts = tuple(found) if isinstance(found, (tuple, list)) else (found,)
    if len(parts) != len(inputs):
        raise TenonError(f"the gradient of {name!r} gave {len(parts)} values; expected one for each of {inputs}")
    pairs = zip(inputs, parts, node.inputs, strict=False)
    return [_fitted(name, n, part, x) for n, part, x in pairs] + [None] * len(operands)


def _fitted(name: str, input_name: str, part: Any, x: Value) -> Value | None:
    """One gradient in the shape of its input: summed over, or repeated along, the axes that one of them lacks."""
    if part is None:
        return None
    value = as_tensor(part, None if isinstance(part, Tensor) else x.dtype).value()
    if len(value.shape) < len(x.shape):
        value = apply("broadcast_to", value, shape=x.shape)
    value = sum_to(value, x.shape) if len(value.shape) >= len(x.shape) and _sums_to(value, x) else value
    if value.shape != x.shape and all(isinstance(n, int) for n in (*value.shape, *x.shape)):
        shapes = f"{shape_text(value.shape)}; expected {shape_text(x.shape)}"
        raise ShapeError(f"the gradient of {name!r} with respect to {input_name} has shape {shapes}")
    return value


def _sums_to(value: Value, x: Value) -> bool:
    extra = len(value.shape) - len(x.shape)
    return all(a == b or b == 1 or not isinstance(a, int) for a, b in zip(value.shape[extra:], x.shape, strict=True))

"""Recurrences over time, each one op: the cells of :mod:`engine.cells` along the steps of a sequence.

``x`` (T, N, gates * H) holds what each step's input is to each gate: a contraction of all steps made it. ``weight``
(gates * H, P) multiplies the state (N, P), P being H unless there is a ``projection``. ``given`` names the inputs that
follow, each of which may be left out, in this order:

- ``h`` (N, P), ``c`` (N, H): the state before the first step; zeros without
- ``bias`` (gates * H): of the recurrent products, in a gru, which needs it
- ``projection`` (P, H): makes a state of P numbers out of the H, in an lstm
- ``lengths`` (N), integers: how many steps each example has, from 1 to T. Beyond, the state stays as it is

With ``reverse`` the steps run from the last to the first; those beyond an example's length come first and leave the
state as it was. The outputs are ``hs`` (T, N, P), the state after each step; ``h_last`` (N, P); in an lstm ``c_last``
(N, H) and ``cs`` (T, N, H); and in an lstm or a gru ``saved``, what the gradient needs of the gates.

The gradient ``<name>_grad`` is an op too: ``weight``, then of what is ``given`` the state ``h`` and ``c``, the
``projection`` and ``lengths``, the outputs ``hs``, ``cs`` and ``saved``, and the gradients ``g_hs``, ``g_h`` and
``g_c`` of ``hs``, ``h_last`` and ``c_last``. It gives ``dx``; in a gru ``dz``, the gradient of the recurrent products;
with a projection ``dhs``, that of what each step projects to; ``dh`` (N, P); and in an lstm ``dc`` (N, H). The
gradients of the weights are contractions of these over all steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine import dims
from engine.cells import CELLS, Cell
from engine.dims import Size
from engine.errors import DTypeError, ShapeError, UnsupportedError
from engine.graph import Node, TensorType, Value, apply
from engine.op import REQUIRED, Op, register
from engine.ops import recurrent_steps
from engine.ops.recurrent_steps import Arrays, Graphs
from engine.rules import build, need_equal, need_float, need_integer, need_rank, transposed, widened

GIVEN = ("h", "c", "bias", "projection", "lengths")
GRAD_GIVEN = ("h", "c", "projection", "lengths", "hs", "cs", "saved", "g_hs", "g_h", "g_c")


def cell_of(op: Op) -> tuple[Cell, bool]:
    """The cell of a recurrence, and whether it is the gradient."""
    name = op.name.removesuffix("_grad")
    return CELLS[name], name != op.name


def input_names(op: Op, given: str) -> tuple[str, ...]:
    """What the inputs of a recurrence, or of its gradient, are called."""
    return (*(n for n in op.inputs if not n.startswith("*")), *given.split())


def output_names(op: Op, given: str) -> tuple[str, ...]:
    """What the outputs of a recurrence, or of its gradient, are called."""
    cell, backward = cell_of(op)
    if backward:
        projected = "projection" in given.split()
        return ("dx", *("dz",) * cell.apart, *("dhs",) * projected, "dh", *("dc",) * cell.memory)
    return ("hs", "h_last", *("c_last", "cs") * cell.memory, *("saved",) * bool(cell.saved))


def _named(cell: Cell, backward: bool, given: str, values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(input_names(_op(cell, backward), given), values, strict=True))


def _op(cell: Cell, backward: bool) -> Op:
    return _OPS[cell.name, backward]


def _known(node: Node) -> dict[str, Value]:
    return dict(zip(input_names(node.op, node.attrs["given"]), node.inputs, strict=True))


# --- types -------------------------------------------------------------------------------------------------------


def _sizes(op: str, cell: Cell, types: Mapping[str, TensorType]) -> tuple[Size, Size, int, int]:
    """Steps, batch, hidden units, and the size of the state. Raises DTypeError and ShapeError."""
    weight, steps_of = types["weight"], types["x" if "x" in types else "hs"]
    need_float(op, *(t for name, t in types.items() if name != "lengths"))
    if len({t.dtype for name, t in types.items() if name != "lengths"}) > 1:
        raise DTypeError(
            f"{op} takes tensors of one dtype, not {', '.join(f'{n} {t.dtype}' for n, t in types.items())}"
        )
    need_rank(op, "the weight (gates * H, P)", weight, 2)
    need_rank(op, "the sequence (T, N, features)", steps_of, 3)
    rows, width = weight.shape
    if not isinstance(rows, int) or not isinstance(width, int) or rows % cell.gates or rows == 0 or width == 0:
        raise ShapeError(
            f"{op}: the weight ({cell.gates} * H, P) must have known sizes, not {dims.shape_text(weight.shape)}"
        )
    steps, batch = steps_of.shape[:2]
    dims.assume(steps - 1, ">= 0", f"{op}: a sequence of {steps} steps; it needs at least one")
    hidden = rows // cell.gates
    if "projection" not in types:
        need_equal(width, hidden, f"{op}: the weight {dims.shape_text(weight.shape)} is not (gates * H, H)")
    expected: dict[str, tuple[Size, ...]] = {
        "x": (steps, batch, rows), "h": (batch, width), "c": (batch, hidden), "bias": (rows,),
        "projection": (width, hidden), "lengths": (batch,), "hs": (steps, batch, width), "cs": (steps, batch, hidden),
        "saved": (steps, batch, len(cell.saved) * hidden), "g_hs": (steps, batch, width), "g_h": (batch, width),
        "g_c": (batch, hidden),
    }  # fmt: skip
    for name, t in types.items():
        if name == "weight":
            continue
        need_rank(op, name, t, len(expected[name]))
        for a, b in zip(t.shape, expected[name], strict=True):
            wanted = dims.shape_text(expected[name])
            need_equal(a, b, f"{op}: {name} has shape {dims.shape_text(t.shape)}, {wanted} was expected")
    if "lengths" in types:
        need_integer(f"{op}'s lengths", types["lengths"])
    return steps, batch, hidden, width


def _rules(cell: Cell) -> tuple[Any, Any]:
    def rule(*types: TensorType, given: str, reverse: bool) -> tuple[TensorType, ...]:
        known = _named(cell, False, given, types)
        steps, batch, hidden, width = _sizes(cell.name, cell, known)
        if cell.biased != ("bias" in known):
            raise ShapeError(f"{cell.name}: a bias was {'not ' * cell.biased}given")
        shapes: dict[str, tuple[Size, ...]] = {
            "hs": (steps, batch, width), "h_last": (batch, width), "c_last": (batch, hidden),
            "cs": (steps, batch, hidden), "saved": (steps, batch, len(cell.saved) * hidden),
        }  # fmt: skip
        return tuple(TensorType(shapes[n], types[0].dtype) for n in output_names(_op(cell, False), given))

    def grad_rule(*types: TensorType, given: str, reverse: bool) -> tuple[TensorType, ...]:
        steps, batch, hidden, width = _sizes(f"{cell.name}_grad", cell, _named(cell, True, given, types))
        rows = cell.gates * hidden
        shapes: dict[str, tuple[Size, ...]] = {
            "dx": (steps, batch, rows), "dz": (steps, batch, rows), "dhs": (steps, batch, width),
            "dh": (batch, width), "dc": (batch, hidden),
        }  # fmt: skip
        return tuple(TensorType(shapes[n], types[0].dtype) for n in output_names(_op(cell, True), given))

    return rule, grad_rule


def _references(cell: Cell) -> tuple[Any, Any]:
    def run(backward: bool, arrays: Sequence[np.ndarray], given: str, reverse: bool) -> tuple[np.ndarray, ...]:
        known = {k: v if k == "lengths" else widened(v) for k, v in _named(cell, backward, given, arrays).items()}
        steps = len(known["hs" if backward else "x"])
        work = recurrent_steps.backward if backward else recurrent_steps.forward
        found = work(Arrays(), cell, known, steps, reverse)
        return tuple(found[n] for n in output_names(_op(cell, backward), given))

    def reference(*arrays: np.ndarray, given: str, reverse: bool) -> tuple[np.ndarray, ...]:
        return run(False, arrays, given, reverse)

    def grad_reference(*arrays: np.ndarray, given: str, reverse: bool) -> tuple[np.ndarray, ...]:
        return run(True, arrays, given, reverse)

    return reference, grad_reference


# --- gradients ---------------------------------------------------------------------------------------------------


def _gradient(node: Node, *grads: Value | None) -> list[Value | None]:
    """One op for the gradient of all steps, and contractions over them for the weights'."""
    names = output_names(node.op, node.attrs["given"])
    flowing = {n: g for n, g in zip(names, grads, strict=True) if g is not None}
    if flowing.keys() & {"cs", "saved"}:
        return _through_steps(node, grads)
    cell, _ = cell_of(node.op)
    known, outputs = _known(node), dict(zip(names, node.outputs, strict=True))
    more = {k: v for k, v in known.items() if k in ("h", "c", "projection", "lengths")}
    more |= {k: v for k, v in outputs.items() if k in ("hs", "cs", "saved")}
    more |= {f"g_{k.removesuffix('_last')}": g for k, g in flowing.items()}
    given = [n for n in GRAD_GIVEN if n in more]
    reverse = node.attrs["reverse"]
    made = apply(
        f"{cell.name}_grad", known["weight"], *(more[n] for n in given), given=" ".join(given), reverse=reverse
    )
    found = dict(zip(output_names(_op(cell, True), " ".join(given)), made, strict=True))
    dz = found.get("dz", found["dx"])
    gradients: dict[str, Value] = {
        "x": found["dx"], "h": found["dh"], "weight": _weight_gradient(dz, outputs["hs"], known.get("h"), reverse)
    }  # fmt: skip
    if cell.memory:
        gradients["c"] = found["dc"]
    if cell.biased:
        gradients["bias"] = apply("sum", dz, axes=(0, 1))
    if "projection" in known:
        parts = {n: Graphs().gate(outputs["saved"], k, len(cell.saved)) for k, n in enumerate(cell.saved)}
        made_by = build(cell.again, **parts, c_next=outputs["cs"])
        gradients["projection"] = apply("matmul", transposed(_flat(found["dhs"])), _flat(made_by))
    return [gradients.get(k) for k in known]


def _weight_gradient(dz: Value, hs: Value, h: Value | None, reverse: bool) -> Value:
    """Each step's gradient times the state before it, summed over steps and examples."""
    steps = dz.shape[0]
    inner, first = (dz, 1), (hs, 0)
    if reverse:
        inner, first = (dz, 0), (hs, 1)
    later, before = (_rows(x, start, start + steps - 1) for x, start in (inner, first))
    found = apply("matmul", transposed(_flat(later)), _flat(before))
    if h is None:
        return found
    at = steps - 1 if reverse else 0
    return found + apply("matmul", transposed(_flat(_rows(dz, at, at + 1))), h)


def _rows(x: Value, start: Size, stop: Size) -> Value:
    return apply("slice", x, start=(start, 0, 0), stop=(stop, *x.shape[1:]), step=(1, 1, 1))


def _flat(x: Value) -> Value:
    steps, batch, features = x.shape
    return apply("reshape", x, shape=(steps * batch, features))


def _through_steps(node: Node, grads: Sequence[Value | None]) -> list[Value | None]:
    """The gradient by way of the steps as a graph: what a gradient's gradient takes. Raises UnsupportedError."""
    cell, backward = cell_of(node.op)
    known, given = _known(node), node.attrs["given"]
    steps = known["hs" if backward else "x"].shape[0]
    if not isinstance(steps, int):
        raise UnsupportedError(f"the second gradient of {cell.name} needs a known number of steps, not {steps}")
    inputs = {k: apply("identity", v) for k, v in known.items()}
    work = recurrent_steps.backward if backward else recurrent_steps.forward
    found = work(Graphs(), cell, inputs, steps, node.attrs["reverse"])
    total: Value | None = None
    for name, g in zip(output_names(node.op, given), grads, strict=True):
        if g is not None:
            part = apply("sum", found[name] * g, axes=tuple(range(len(g.shape))))
            total = part if total is None else total + part
    if total is None:
        return [None] * len(node.inputs)
    wanted = {k: v for k, v in inputs.items() if k != "lengths"}
    slopes = apply("grad", total, *wanted.values())
    slopes = slopes if isinstance(slopes, tuple) else (slopes,)
    gradients = dict(zip(wanted, slopes, strict=True))
    return [gradients.get(k) for k in known]


def _second_gradient(node: Node, *grads: Value | None) -> list[Value | None]:
    return _through_steps(node, grads)


# --- records -----------------------------------------------------------------------------------------------------


def _flops(rows: Value, weight: Value) -> Size:
    """At every step, of which ``rows`` has those of all examples, the state by the weight."""
    return 2 * dims.product(rows.shape[:2]) * weight.type.size


def _make(cell: Cell) -> None:
    rule, grad_rule = _rules(cell)
    reference, grad_reference = _references(cell)
    attrs = {"given": REQUIRED, "reverse": False}
    _OPS[cell.name, False] = register(
        Op(
            cell.name,
            "recurrence",
            ("x", "weight", "*more"),
            rule,
            reference,
            _gradient,
            attrs=attrs,
            flops=lambda node: _flops(node.inputs[0], node.inputs[1]),
            doc=f"The recurrence of {cell.name} over all steps of ``x``: every state, the last one, and what its "
            "gradient needs. ``given`` names the inputs that follow the weight.",
        )
    )
    _OPS[cell.name, True] = register(
        Op(
            f"{cell.name}_grad",
            "recurrence",
            ("weight", "*more"),
            grad_rule,
            grad_reference,
            _second_gradient,
            attrs=attrs,
            flops=lambda node: _flops(node.outputs[0], node.inputs[0]),
            doc=f"The gradient of ``{cell.name}`` with respect to what its steps were given and to the first state.",
        )
    )


_OPS: dict[tuple[str, bool], Op] = {}
for _cell in CELLS.values():
    _make(_cell)

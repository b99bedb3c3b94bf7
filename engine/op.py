"""The op record: everything Tenon knows of an op, in one place.

An op is registered once, in one file of ``engine/ops``. Its record gives the type rule, the NumPy reference that
defines its meaning, its gradient written with graph builders, and either a kernel class that backends implement or a
decomposition into simpler ops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np

from engine.dims import Size
from engine.errors import TenonError, UnsupportedError
from engine.graph import Node, TensorType, Value
from engine.records import dataclass
from engine.user_kernel import UserKernel

Attrs = Mapping[str, Any]
Types = tuple[TensorType, ...]
Infer = Callable[..., TensorType | Types]
Reference = Callable[..., Any]
Gradient = Callable[..., Sequence[Value | None]]
Decomposition = Callable[..., Value | tuple[Value, ...]]

REQUIRED = object()
"""The default of an attribute that has none."""


@dataclass(frozen=True, eq=False)
class Op:
    """One op.

    ``inputs`` names the tensor arguments (a last name that starts with ``*`` takes any number), ``attrs`` the others
    with their defaults. ``kind`` is the kernel class that passes and backends know:
    ``elementwise``, ``reduce``, ``view``, ``contraction``, ``conv2d``, ``conv2d_weight_grad``, ``pool``, ``random``,
    ``index`` (iota), ``check``, ``move`` (writes into parts of a larger tensor), ``gather``, ``sort``, ``scan``,
    ``recurrence``, ``loop`` (over the graph in its ``body``), ``custom`` (a user's ``kernel``), ``composite`` (claimed
    or decomposed), ``source`` (input, state, constant, size), ``grad``.

    - ``rule(*types, **attrs)`` gives the output type, or a tuple of them
    - ``reference(*arrays, **attrs)`` the NumPy result, or a tuple
    - ``gradient(node, *grads)`` one Value or None an input; ``grads`` has one an output, None where nothing flows.
      None as the rule means that no gradient flows
    - ``decompose(*values, **attrs)`` builds the same result from simpler ops
    - ``expression`` over ``inputs`` is the scalar meaning of an elementwise op
    - ``flops(node)`` counts the arithmetic of an op that does much for each element that it reads and writes: two
      operations for each multiply-add. What others do is counted from their kind, see engine/costs.py
    - ``version`` stands for the code of an op that is not Tenon's own: part of the identity of graphs that use it
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    rule: Infer
    reference: Reference | None = None
    gradient: Gradient | None = None
    decompose: Decomposition | None = None
    attrs: Attrs = field(default_factory=dict)
    expression: str | None = None
    doc: str = ""
    kernel: UserKernel | None = None
    version: str = ""
    flops: Callable[[Node], Size] | None = None

    @property
    def variadic(self) -> bool:
        return bool(self.inputs) and self.inputs[-1].startswith("*")

    def complete(self, attrs: Attrs) -> dict[str, Any]:
        """``attrs`` in the record's order with defaults filled in. Raises TenonError for an unknown or missing one."""
        unknown = attrs.keys() - self.attrs.keys()
        if unknown:
            raise TenonError(
                f"{self.name} has no argument {sorted(unknown)[0]!r}; it takes {', '.join(self.attrs) or 'none'}"
            )
        full = {k: attrs.get(k, default) for k, default in self.attrs.items()}
        for k, v in full.items():
            if v is REQUIRED:
                raise TenonError(f"{self.name} needs the argument {k!r}")
        return full

    def infer(self, types: Types, attrs: Attrs) -> Types:
        """The output types. Raises ShapeError, DTypeError or TenonError where the op does not take ``types``."""
        least = len(self.inputs) - self.variadic
        if len(types) < least or (len(types) > least and not self.variadic):
            raise TenonError(f"{self.name} takes {', '.join(self.inputs) or 'no tensors'}, and got {len(types)}")
        found = self.rule(*types, **attrs)
        return found if isinstance(found, tuple) else (found,)

    def evaluate(self, arrays: Sequence[np.ndarray], node_types: Types, attrs: Attrs) -> tuple[np.ndarray, ...]:
        """The reference on concrete arrays; results take the dtypes of ``node_types``."""
        if self.reference is None:
            raise UnsupportedError(f"{self.name} has no reference: it is expanded before anything runs")
        with np.errstate(all="ignore"):
            found = self.reference(*arrays, **attrs)
        outputs = found if isinstance(found, tuple) else (found,)
        return tuple(np.asarray(a, t.dtype.numpy) for a, t in zip(outputs, node_types, strict=True))


_OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Make ``op`` known by its name. A name can be taken only once, save that a user's op may take another's place."""
    if op.name in _OPS and not (op.version and _OPS[op.name].version):
        raise TenonError(f"the op {op.name!r} is registered twice")
    _OPS[op.name] = op
    return op


def get(name: str) -> Op:
    """The op called ``name``. Raises UnsupportedError."""
    _load()
    if name not in _OPS:
        raise UnsupportedError(f"there is no op {name!r}")
    return _OPS[name]


def all_ops() -> dict[str, Op]:
    """Every registered op by name."""
    _load()
    return dict(_OPS)


_loaded = False


def _load() -> None:
    global _loaded
    if not _loaded:
        _loaded = True
        import engine.ops  # noqa: F401  (registers them)


def gradients_of(node: Node, grads: Sequence[Value | None]) -> list[Value | None]:
    """Apply the op's gradient rule: one Value or None an input."""
    if node.op.gradient is None:
        return [None] * len(node.inputs)
    return list(node.op.gradient(node, *grads))

"""From the statements of a kernel to lines of Python source.

:class:`ArgTable` collects the argument block of a call and names its slots; :class:`BodyEmitter` places the
statements of a body inside whatever loops its caller writes: a caller enters one axis after the other, and gets,
for each, the lines that become computable there. What does not depend on an inner axis is so computed outside it.

Generated names depend only on positions, so kernels that do the same have the same source and are compiled once.
Floats of the storage types f16 and bf16 are float32 values in the source.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from engine import dtypes
from engine.dims import Size
from engine.dtypes import DType
from engine.errors import UnsupportedError
from engine.program import ERROR, Arg, Block, BoxMap, Call, Kernel, Pointer
from engine.records import dataclass
from engine.schedule import Access, KernelSpec, Stmt

SCRATCH = "$scratch"
"""The name under which the scratch memory of a thread has its alias scope."""

_COMPUTED = {"f32": "float32", "f64": "float64", "f16": "float32", "bf16": "float32", "i8": "int8", "u8": "uint8",
             "i32": "int32", "i64": "int64", "bool": "bool_"}  # fmt: skip


def computed_type(dtype: DType) -> str:
    """NumPy's name of the type that values of ``dtype`` have inside a kernel."""
    return _COMPUTED[dtype.name]


class ArgTable:
    """The argument block of one call. Addresses and sizes asked for by value share a slot where they are equal;
    those asked for by name have slots of their own."""

    def __init__(self) -> None:
        self._slots: list[tuple[str, Arg]] = []
        self._found: dict[Arg, str] = {}
        self._scopes: dict[str, int] = {}

    def pointer(self, buffer: str, byte_offset: Size = 0) -> str:
        """The name of the address of byte ``byte_offset`` of ``buffer``."""
        self.scope(buffer)
        return self._name(Pointer(buffer, byte_offset), "p")

    def size(self, value: Size) -> str:
        """``value`` as an expression: 0 and 1 are literals, which specialises the kernel; all else is a slot."""
        if isinstance(value, int) and value in (0, 1):
            return str(value)
        return self._name(value, "n")

    def block(self, args: tuple[Arg, ...]) -> str:
        """The name of the address of a nested argument block."""
        return self._name(Block(args), "b")

    def declare(self, **named: Pointer | Block | BoxMap | Size) -> None:
        """Give each of these a slot under its name. The source then does not depend on their values: kernels that
        differ only in them are one."""
        for name, arg in named.items():
            if isinstance(arg, (Pointer, BoxMap)):
                self.scope((arg.at if isinstance(arg, BoxMap) else arg).buffer)
            self._slots.append((name, arg))

    def scope(self, buffer: str) -> int:
        """The alias scope of ``buffer``, or of :data:`SCRATCH`."""
        return self._scopes.setdefault(buffer, len(self._scopes))

    def _name(self, arg: Arg, prefix: str) -> str:
        if arg not in self._found:
            self._found[arg] = f"{prefix}{len(self._slots)}"
            self._slots.append((self._found[arg], arg))
        return self._found[arg]

    @property
    def args(self) -> tuple[Arg, ...]:
        return tuple(arg for _, arg in self._slots)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._slots)

    def prologue(self, block: str = "args") -> list[str]:
        """The lines that read every slot of ``block``; to be placed first, once the body is complete."""
        return [f"{name} = slot({block}, {i})" for i, (name, _) in enumerate(self._slots)]


def load(dtype: DType, pointer: str, index: str, scope: int) -> str:
    return f"load_{dtype.name}({pointer}, {index}, {scope})"


def store(dtype: DType, pointer: str, index: str, value: str, scope: int) -> str:
    return f"store_{dtype.name}({pointer}, {index}, {value}, {scope})"


def note(table: str, index: str, address: str, scope: int) -> str:
    """An address, or a number like it, into a table in scratch. Loops that do so are not worth vector instructions."""
    return f"store_address({table}, {index}, {address}, {scope})"


def total(*terms: str) -> str:
    """A sum of expressions without its zeros."""
    kept = [t for t in terms if t != "0"]
    return " + ".join(kept) or "0"


def times(index: str, stride: str) -> str:
    if stride == "0" or index == "0":
        return "0"
    if stride == "1":
        return index
    factor = index if index.isidentifier() else f"({index})"
    return f"{factor} * {stride}"


def constant(value: int | float | bool, dtype: DType) -> str:
    """``value`` as a literal of exactly the type of ``dtype``: a bare one would widen what it meets."""
    if dtype.kind == "b":
        return str(bool(value))
    if not dtype.is_float:
        bits = 8 * dtype.itemsize
        wrapped = int(value) & ((1 << bits) - 1)
        if dtype.kind == "i" and wrapped >> (bits - 1):
            wrapped -= 1 << bits
        return f"{computed_type(dtype)}({wrapped})"
    return f"{computed_type(dtype)}({float(value)!r})"


def cast(value: str, source: DType, target: DType) -> str:
    """``value`` converted as by NumPy's astype."""
    if source == target:
        return value
    have, want = computed_type(source), computed_type(target)
    if target.kind == "b":
        return f"{value} != {constant(0, source)}"
    if source.is_float and target.is_integer:
        return f"truncate_{target.name}({value})"
    converted = value if have == want else f"{want}({value})"
    if target.storage_only:
        return f"round_{target.name}({converted})"
    return converted


# --- the scalar vocabulary -----------------------------------------------------------------------------------

_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "bitand": "&", "bitor": "|", "bitxor": "^",
              "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}  # fmt: skip
_ON_BOOLS = {"add": "|", "mul": "&", "maximum": "|", "minimum": "&", "and_": "&", "or_": "|"}
_ROUNDINGS = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "round_even"}
_FLOAT_CALLS = {"sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "atan", "atan2", "tanh", "sigmoid", "erf"}
_WRAPPED = {"add", "sub", "mul", "square", "neg", "bitand", "bitor", "bitxor", "invert"}


def _on_integers(op: str, args: list[str]) -> str | None:
    calls = {"floordiv": "integer_floordiv", "mod": "integer_mod", "pow": "integer_pow", "shl": "shift_left",
             "shr": "shift_right", "maximum": "maximum", "minimum": "minimum", "sign": "sign"}  # fmt: skip
    if op in calls:
        return f"{calls[op]}({', '.join(args)})"
    if op in _ROUNDINGS:
        return args[0]
    return {"isnan": "False", "isfinite": "True"}.get(op)


def _on_floats(op: str, args: list[str]) -> str | None:
    calls = {"floordiv": "float_floordiv", "mod": "float_mod", "pow": "float_pow", "maximum": "maximum",
             "minimum": "minimum", "sign": "sign", "abs": "absolute", "isnan": "is_nan",
             "isfinite": "is_finite"} | _ROUNDINGS  # fmt: skip
    if op in calls or op in _FLOAT_CALLS:
        return f"{calls.get(op, op)}({', '.join(args)})"
    return None


def vocabulary(op: str, args: list[str], operand: DType, result: DType) -> str:
    """The expression for ``op`` of the scalar vocabulary on ``args``, all of dtype ``operand``.

    Raises UnsupportedError where NumPy has no such function of that dtype either.
    """
    narrow = operand.is_integer and operand.itemsize < 8  # Numba computes with 64 bits
    if op == "where":
        return f"select({', '.join(args)})"
    if op in ("maximum", "minimum") and "(" in args[1] and "(" not in args[0]:
        args = args[::-1]  # a constant first costs one instruction less
    if operand.kind == "b":
        if op in _ON_BOOLS:
            return f"{args[0]} {_ON_BOOLS[op]} {args[1]}"
        if op in ("not_", "invert"):
            return f"not {args[0]}"
        if op in ("lt", "le", "gt", "ge"):
            args = [f"uint8({a})" for a in args]
        if op == "abs":
            return args[0]
    if op in ("and_", "or_", "not_"):
        zero = constant(0, operand)
        if op == "not_":
            return f"{args[0]} == {zero}"
        return f"({args[0]} != {zero}) {'&' if op == 'and_' else '|'} ({args[1]} != {zero})"
    special = _on_floats(op, args) if operand.is_float else _on_integers(op, args)
    if special is not None:
        return special
    if op in _OPERATORS:
        text = f"{args[0]} {_OPERATORS[op]} {args[1]}"
    elif op == "square":
        text = f"{args[0]} * {args[0]}"
    elif op == "neg":
        text = f"-{args[0]}"
    elif op == "invert" and operand.is_integer:
        text = f"~{args[0]}"
    elif op == "abs":
        return f"maximum({args[0]}, {computed_type(operand)}(-{args[0]}))" if operand.kind == "i" else args[0]
    else:
        raise UnsupportedError(f"kernels have no {op} of {operand} values")
    return f"{computed_type(operand)}({text})" if narrow and op in _WRAPPED else text


# --- bodies ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reference:
    """An access as the source sees it."""

    access: Access
    pointer: str
    scope: int
    strides: tuple[str, ...]


class BodyEmitter:
    """Places the statements of one body into loops.

    ``core`` gives the expression of each output of the core, valid in the innermost loop; ``known`` gives
    expressions for statements computed elsewhere (reductions of an earlier phase). ``only`` restricts the body to
    those statements and whatever they need; those of ``later`` wait for :meth:`release`. ``chunk`` is the expression
    of a split reduction's chunk number, ``reduced`` the axes along which results of reductions do not vary. ``tag``
    sets the names of this body apart from those of another in the same kernel.

    After construction call :meth:`start` once, then :meth:`enter` for every axis, outermost loop first; each
    returns lines, not indented. :meth:`fork` gives a copy for a pass of its own over the axes inside. Reductions
    are the caller's: it adds up the :meth:`value` of their arguments and hands in results by :meth:`place_known`.
    """

    def __init__(self, body: Sequence[Stmt], reads: Sequence[Access], writes: Sequence[Access], rank: int,
                 table: ArgTable, *, core: Mapping[int, str] | None = None, known: Mapping[str, str] | None = None,
                 only: Iterable[str] | None = None, chunk: str = "0",
                 reduced: Iterable[int] = (), tag: str = "", later: Iterable[str] = ()):  # fmt: skip
        self._row = ""
        self.table = table
        self.core = dict(core or {})
        self._rank = rank
        self._reduced = frozenset(reduced)
        self._dtypes = {s.name: s.dtype for s in body}
        self._tag = tag
        self._names = {s.name: f"v{tag}{i}" for i, s in enumerate(body)}
        self._value: dict[str, str] = dict(known or {})
        self._chunk = chunk
        self._later = frozenset(later)
        self._pending = _needed(body, set(self._value), only)
        self._reads, self._writes = reads, writes
        self._references: dict[tuple[str, int], _Reference] = {}
        self._offset: dict[tuple[str, int], str] = {}
        self._index: dict[str, str] = {}
        self._axes_of: dict[str, frozenset[int]] = {name: frozenset() for name in self._value}
        self._entered: frozenset[int] = frozenset()
        self._depth = 0
        for stmt in self._pending:
            self._axes_of[stmt.name] = self._dependence(stmt)
            self._refer(stmt)

    def depends_on(self, name: str) -> frozenset[int]:
        """The axes along which statement ``name`` varies."""
        return self._axes_of[name]

    def value(self, name: str) -> str:
        """The expression of a statement that has been placed."""
        return self._value[name]

    @property
    def pending(self) -> Sequence[Stmt]:
        """The statements that are still to be placed."""
        return self._pending

    def written(self, write: int) -> tuple[str, str, int]:
        """Where a write goes at this point of the loops: its pointer, its index and its memory's scope."""
        key = "store", write
        return self._references[key].pointer, self._offset[key], self._references[key].scope

    def read(self, read: int) -> tuple[str, str, int]:
        """Where a read that is still to be placed looks at this point of the loops, in the same way."""
        key = "load", read
        return self._references[key].pointer, self._offset[key], self._references[key].scope

    def stored(self, stmt: Stmt) -> str:
        """The value that a store writes, in the type that its dtype is computed with; the store itself rounds."""
        dtype = self._writes[int(stmt.args[0])].dtype
        value = self._operand(stmt.args[1], dtype)
        if isinstance(stmt.args[1], str):
            value = cast(value, self._dtypes[stmt.args[1]], dtype.computed)
        return value

    def fork(self, only: Iterable[str] | None = None, known: Mapping[str, str] | None = None,
             core: Mapping[int, str] | None = None, tag: str = "", row: str = "") -> BodyEmitter:  # fmt: skip
        """A copy at the same point of the loops; lines placed so far count as visible to both. ``only`` leaves
        it those statements and what they need, ``known``, ``core`` and ``tag`` are as for the constructor. With
        ``row``, the size of a row of registers such as ``f32_2x16``, what lies along the last axis is read so many
        elements at a time."""
        twin = object.__new__(BodyEmitter)
        twin.__dict__.update(self.__dict__)
        for name in ("_value", "_offset", "_index", "_axes_of"):
            setattr(twin, name, dict(getattr(self, name)))
        twin._value.update(known or {})
        twin._pending = _needed(self._pending, set(twin._value), only)
        twin.core = dict(self.core if core is None else core)
        twin._row = row or self._row
        if tag:
            twin._tag = tag
            twin._names = {name: f"v{tag}{i}" for i, name in enumerate(self._names)}
        return twin

    def start(self) -> list[str]:
        """The lines outside all loops: addresses of the chunk, and what varies along no axis."""
        lines = []
        for key, ref in self._references.items():
            moved = times(self._chunk, self.table.size(ref.access.chunk_stride))
            self._offset[key] = moved
            if not moved.isidentifier() and moved != "0":
                self._offset[key] = self._offset_name(key)
                lines.append(f"{self._offset[key]} = {moved}")
        for stmt in self._pending:
            if stmt.op == "index":
                self._index[stmt.name] = "0"
        return lines + self._place()

    def enter(self, axis: int, variable: str, inline: bool = False) -> list[str]:
        """The lines at the top of the loop in which ``variable`` counts ``axis``.

        ``inline`` leaves address arithmetic inside the accesses, for the innermost loop.
        """
        lines = []
        self._entered |= {axis}
        self._depth += 1
        for key, ref in self._references.items():
            step = times(variable, ref.strides[axis])
            if step == "0":
                continue
            moved = total(self._offset[key], step)
            if inline or moved.isidentifier():
                self._offset[key] = moved
            else:
                self._offset[key] = self._offset_name(key)
                lines.append(f"{self._offset[key]} = {moved}")
        for stmt in self._pending:
            if stmt.op == "index":
                step = times(variable, self.table.size(stmt.sizes[axis]))
                self._index[stmt.name] = total(self._index[stmt.name], step)
        return lines + self._place()

    def place_known(self, values: Mapping[str, str]) -> list[str]:
        """Make statements computed by the caller (reductions) known here; returns the lines that follow from them."""
        self._value.update(values)
        self._pending = [s for s in self._pending if s.name not in values]
        return self._place()

    def release(self) -> list[str]:
        """The lines of the statements that have waited, as far as they can be placed here."""
        self._later = frozenset()
        return self._place()

    # --- inside ---

    def _dependence(self, stmt: Stmt) -> frozenset[int]:
        if stmt.op == "load":
            return _moving(self._reads[int(stmt.args[0])].strides)
        if stmt.op == "index":
            return _moving(stmt.sizes)
        if stmt.op == "core":
            return frozenset(range(self._rank))
        own: frozenset[int] = frozenset()
        if stmt.op in ("store", "load_at"):
            access = (self._writes if stmt.op == "store" else self._reads)[int(stmt.args[0])]
            own = _moving(access.strides)
        found = own.union(*(self._axes_of[a] for a in stmt.args if isinstance(a, str)))
        return found - self._reduced if stmt.op.startswith("reduce_") else found

    def _refer(self, stmt: Stmt) -> None:
        if stmt.op not in ("load", "load_at", "store"):
            if stmt.op == "check_index":
                self.table.pointer(ERROR)
            return
        k = int(stmt.args[0])
        kind = "store" if stmt.op == "store" else "load"
        access = (self._reads if kind == "load" else self._writes)[k]
        offset = access.offset * access.dtype.itemsize
        pointer = self.table.pointer(access.buffer, offset)
        strides = tuple(self.table.size(s) for s in access.strides)
        self._references[kind, k] = _Reference(access, pointer, self.table.scope(access.buffer), strides)
        self._offset[kind, k] = "0"

    def _offset_name(self, key: tuple[str, int]) -> str:
        number = list(self._references).index(key)  # equal bodies may have their accesses in another order
        return f"{'r' if key[0] == 'load' else 'w'}{self._tag}{number}_{self._depth}"

    def _place(self) -> list[str]:
        """The lines of all pending statements whose axes have been entered and whose arguments are known."""
        lines: list[str] = []
        waiting: list[Stmt] = []
        for stmt in self._pending:
            ready = all(a in self._value for a in stmt.args if isinstance(a, str))
            waits = stmt.op.startswith("reduce_") or stmt.name in self._later
            if waits or not ready or not self._axes_of[stmt.name] <= self._entered:
                waiting.append(stmt)
                continue
            line = self._line(stmt)
            if line is not None:
                lines.append(line)
        self._pending = waiting
        return lines

    def _operand(self, arg: str | int | float | bool, dtype: DType) -> str:
        return self._value[arg] if isinstance(arg, str) else constant(arg, dtype)

    def _line(self, stmt: Stmt) -> str | None:
        name = self._names[stmt.name]
        if stmt.op == "store":
            ref = self._references["store", int(stmt.args[0])]
            offset = self._offset["store", int(stmt.args[0])]
            return store(ref.access.dtype, ref.pointer, offset, self.stored(stmt), ref.scope)
        if stmt.op == "check_index":
            value = cast(self._operand(stmt.args[0], dtypes.i64), self._dtypes[str(stmt.args[0])], dtypes.i64)
            limit, first = (*map(self.table.size, stmt.sizes), "0")[:2]
            bad = f"({value} < {first}) | ({value} >= {limit})"
            return f"report({self.table.pointer(ERROR)}, {bad}, {stmt.args[1]}, {value})"
        if stmt.op == "const":
            self._value[stmt.name] = constant(stmt.args[0], stmt.dtype)  # type: ignore[arg-type]
            return None
        self._value[stmt.name] = name
        return f"{name} = {self._expression(stmt)}"

    def _expression(self, stmt: Stmt) -> str:
        match stmt.op:
            case "load":
                k = int(stmt.args[0])
                ref = self._references["load", k]
                if self._row and ref.access.strides[-1] == 1:
                    return f"load_row_{self._row}({ref.pointer}, {self._offset['load', k]})"
                loaded = load(ref.access.dtype, ref.pointer, self._offset["load", k], ref.scope)
                return cast(loaded, ref.access.dtype, stmt.dtype)
            case "load_at":
                k = int(stmt.args[0])
                ref = self._references["load", k]
                step = times(self._value[str(stmt.args[1])], self.table.size(stmt.sizes[0]))
                loaded = load(ref.access.dtype, ref.pointer, total(self._offset["load", k], step), ref.scope)
                return cast(loaded, ref.access.dtype, stmt.dtype)
            case "core":
                return self.core[int(stmt.args[0])]
            case "index":
                return cast(self._index[stmt.name], dtypes.i64, stmt.dtype)
            case "size":
                return cast(self.table.size(stmt.sizes[0]), dtypes.i64, stmt.dtype)
            case "cast" | "identity":
                return cast(self._operand(stmt.args[0], stmt.dtype), self._operand_dtype(stmt), stmt.dtype)
            case "uniform":
                args = [self._operand(a, dtypes.i64) for a in stmt.args]
                return f"uniform_{'f64' if stmt.dtype == dtypes.f64 else 'f32'}({', '.join(args)})"
        operand = self._operand_dtype(stmt)
        args = [self._operand(a, operand) for a in stmt.args]
        return vocabulary(stmt.op, args, operand, stmt.dtype)

    def _operand_dtype(self, stmt: Stmt) -> DType:
        names = [] if stmt.op == "where" else [a for a in stmt.args if isinstance(a, str)]
        return self._dtypes[names[0]] if names else stmt.dtype


def _moving(strides: Sequence[Size]) -> frozenset[int]:
    return frozenset(a for a, s in enumerate(strides) if s != 0)


def _needed(body: Sequence[Stmt], known: set[str], only: Iterable[str] | None) -> list[Stmt]:
    """The statements of ``body`` not known yet, in order; with ``only``, those and what they depend on."""
    if only is None:
        return [s for s in body if s.name not in known]
    wanted = set(only)
    kept = []
    for stmt in reversed(body):
        if stmt.name in wanted and stmt.name not in known:
            kept.append(stmt)
            wanted.update(a for a in stmt.args if isinstance(a, str))
    return kept[::-1]


# --- kernels ---------------------------------------------------------------------------------------------------


def indent(lines: Iterable[str], depth: int = 1) -> list[str]:
    return ["    " * depth + line for line in lines]


def loop(variable: str, start: str, stop: str, body: list[str]) -> list[str]:
    """``for variable in range(start, stop)`` around ``body``."""
    bounds = stop if start == "0" else f"{start}, {stop}"
    return [f"for {variable} in range({bounds}):", *indent(body or ["pass"])]


def function_source(name: str, parameters: str, lines: Sequence[str], package: str, comment: str = "",
                    modules: Mapping[str, Iterable[str]] | None = None) -> str:  # fmt: skip
    """A module that defines the function ``name`` of ``lines``. ``comment`` heads it.

    What is called in the lines is imported from ``modules`` (module name to what it provides), from NumPy (types) and
    from the backend's ``package``: its mathlib and, for all others, its intrinsics.
    """
    text = "\n".join(indent(lines))
    head = [f"# {comment}"] if comment else []
    return "\n".join([*head, *_imports(text, package, modules or {}), "", "", f"def {name}({parameters}):", text, ""])


def kernel_name(name: str) -> str:
    """``name`` as that of a kernel: without the sizes that its words end in, for others may share it."""
    return re.sub(r"\W", "_", re.sub(r"(_\d+(x\d+)*)+(?= )|_\d+(x\d+)*$", "", name)) + "_kernel"


def key_of(source: str, *further: object) -> str:
    """The key of a kernel: the hash of all that it is compiled from."""
    return hashlib.sha256("\n".join([source, *map(str, further)]).encode()).hexdigest()[:32]


def call(spec: KernelSpec, code: Kernel, table: ArgTable, tasks: Size, scratch: int = 0) -> Call:
    """The step that runs ``code`` for ``spec``; it touches what the accesses of the spec name."""
    reads = tuple(dict.fromkeys(a.buffer for a in spec.reads))
    writes = tuple(dict.fromkeys(a.buffer for a in spec.writes))
    return Call(code.key, spec.name, table.args, tasks, reads, writes, scratch, spec.nodes, goes_by_index(spec))


def goes_by_index(spec: KernelSpec) -> bool:
    """Whether the body reads where indices send it (see Call.indexed)."""
    return any(s.op == "load_at" for s in spec.body)


_NUMPY_NAMES = frozenset([*_COMPUTED.values(), "uint16", "uint32", "inf", "nan"])
_NAMES = re.compile(r"(?<![\w.])[A-Za-z_][\w.]*\(?")
_MATH_NAMES = frozenset([*(_FLOAT_CALLS - {"sqrt"}), "float_floordiv", "float_mod", "float_pow", "integer_pow",
                         "uniform_f32", "uniform_f64"])  # fmt: skip


def _imported(text: str) -> set[str]:
    """What a kernel's text has to import: what it calls, and the names of types and constants."""
    names = set(_NAMES.findall(text))
    called = {n[:-1] for n in names if n.endswith("(") and "." not in n}
    packages = {"cuda" for n in names if n.startswith("cuda.")}
    return (called | packages | (names & _NUMPY_NAMES)) - {"range", "min", "max"}


def _imports(text: str, package: str, modules: Mapping[str, Iterable[str]]) -> list[str]:
    words = _imported(text)
    lines = []
    for module, provided in {"numpy": _NUMPY_NAMES, **modules, f"{package}.mathlib": _MATH_NAMES}.items():
        used = words & set(provided)
        words -= used
        if used:
            lines.append(f"from {module} import {', '.join(sorted(used))}")
    return [*lines, f"from {package}.intrinsics import {', '.join(sorted(words))}"]

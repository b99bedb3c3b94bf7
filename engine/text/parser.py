"""Reading a printed graph back. The text is taken apart through ``ast`` and never executed."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

from engine import dims, dtypes
from engine.dims import Assumption, Expr
from engine.dtypes import DType
from engine.errors import SourceLocation, TenonError, TextError
from engine.graph import Graph, Group, Node, TensorType, Value
from engine.names import reserved
from engine.op import Op, get
from engine.text.literals import DTYPES, NO_LOCATION, array_from, as_constant, attr_from, quoted, type_from

Annotation = tuple[TensorType, tuple[int, ...] | None]

_OPERATORS: dict[type, str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}


def parse(text: str, constants: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph that ``text`` spells; ``constants`` holds the arrays that it only names.

    Every annotation is checked against what the op's type rule gives. Raises TextError, naming the line, for
    anything that is not a printed graph.
    """
    try:
        module = ast.parse(text)
        locations = _locations(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        line = getattr(error, "lineno", None)
        raise TextError(f"{f'line {line}: ' if line else ''}not Python: {error}") from None
    return _program(module, locations, constants or {})


def _program(
    module: ast.Module, locations: Mapping[int, SourceLocation | None], constants: Mapping[str, np.ndarray]
) -> Graph:
    """The graph of the program's function, which follows those of the bodies of its loops."""
    match module.body:
        case [ast.ImportFrom(module="tenon.text", level=0), *statements] if any(map(_is_function, statements)):
            pass
        case _:
            raise TextError("line 1: expected 'from tenon.text import *' and then one function")
    bodies: dict[str, Graph] = {}
    while _is_body(statements[0]):
        function, *statements = statements
        assert isinstance(function, ast.FunctionDef)
        bodies[function.name] = _Parser(function, locations, constants, bodies).graph()
    function, *footer = statements
    if not isinstance(function, ast.FunctionDef):
        raise TextError("line 1: expected 'from tenon.text import *' and then one function")
    parser = _Parser(function, locations, constants, bodies)
    for statement in footer:
        with parser.at(statement):
            parser.footer(statement, function.name)
    return parser.graph()


def _is_function(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.FunctionDef) and not _is_body(statement)


def _is_body(statement: ast.stmt) -> bool:
    match statement:
        case ast.FunctionDef(decorator_list=[ast.Name(id="body")]):
            return True
    return False


def _locations(text: str) -> dict[int, SourceLocation | None]:
    """The source location of each line: that of its own comment, or else of the line before."""
    own: dict[int, SourceLocation | None] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line, column = token.start
        if token.type != tokenize.COMMENT or not token.line[:column].strip():
            continue
        if found := re.fullmatch(r"# (.+):(\d+) in (.+)", token.string.rstrip()):
            own[line] = SourceLocation(found[1], int(found[2]), found[3])
        elif token.string.startswith(f"# {NO_LOCATION}"):
            own[line] = None
    result: dict[int, SourceLocation | None] = {}
    current = None
    for line in range(1, text.count("\n") + 2):
        current = result[line] = own.get(line, current)
    return result


class _Parser:
    """Reads one function; ``bodies`` are the graphs of those before it."""

    def __init__(
        self,
        function: ast.FunctionDef,
        locations: Mapping[int, SourceLocation | None],
        constants: Mapping[str, np.ndarray],
        bodies: Mapping[str, Graph],
    ):
        self.function = function
        self.bodies = bodies
        self.locations = locations
        self.constants = constants
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.layouts: dict[Value, tuple[int, ...]] = {}
        self.groups: list[Group] = []
        self.assumptions: list[Assumption] = []
        self.reserved = reserved()
        self.pending: dict[str, Annotation] = {}
        self.location: SourceLocation | None = None
        self.taken = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
        self.taken |= {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
        self._literal_numbers = count()

    # --- structure -------------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        function = self.function
        with self.at(function):
            name = self.name(function)
            inputs, state = self.ports(function.args)
        *body, last = function.body
        for statement in body:
            with self.at(statement):
                self.statement(statement)
        with self.at(last):
            if self.pending:
                raise TextError(f"{next(iter(self.pending))} has a type but no value")
            outputs, updates = self.returned(last)
        return Graph(
            name,
            inputs,
            state,
            tuple(self.nodes),
            outputs,
            updates,
            tuple(self.assumptions),
            self.layouts,
            tuple(self.groups),
        )

    @contextmanager
    def at(self, node: ast.stmt | ast.expr | ast.arg) -> Iterator[None]:
        """Errors raised meanwhile name the line of ``node``, unless they name one already."""
        try:
            yield
        except TenonError as error:
            if isinstance(error, TextError) and error.message.startswith("line "):
                raise
            raise TextError(f"line {node.lineno}: {error.message}") from error

    def footer(self, statement: ast.stmt, name: str) -> None:
        match statement:
            case ast.If(
                test=ast.Compare(
                    left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant(value="__main__")]
                ),
                body=[ast.Expr(value=ast.Call(func=ast.Name(id="run"), args=[ast.Name(id=ran)], keywords=[]))],
                orelse=[],
            ) if ran == name:
                return
        raise TextError(f"only 'if __name__ == \"__main__\": run({name})' may follow the function")

    def name(self, function: ast.FunctionDef) -> str:
        match function.decorator_list:
            case [ast.Name(id="program" | "body")]:
                return function.name
            case [ast.Call(func=ast.Name(id="program"), args=[ast.Constant(value=str(name))], keywords=[])]:
                return name
        raise TextError('expected the decorator @program or @program("name")')

    def ports(self, args: ast.arguments) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        if args.posonlyargs or args.vararg or args.kwarg or args.defaults or any(args.kw_defaults):
            raise TextError("the function's parameters take neither defaults nor stars, save one * before the state")
        return tuple(map(self.input, args.args)), tuple(map(self.state, args.kwonlyargs))

    def input(self, arg: ast.arg) -> Value:
        with self.at(arg):
            match arg.annotation:
                case ast.Subscript(
                    value=ast.Name(id="Input"), slice=ast.Tuple(elts=[ast.Constant(value=str(name)), annotation])
                ):
                    return self.port("input", name, arg, annotation)
                case None:
                    raise TextError(f"{arg.arg} needs a type")
                case annotation:
                    return self.port("input", arg.arg, arg, annotation)

    def state(self, arg: ast.arg) -> Value:
        with self.at(arg):
            match arg.annotation:
                case ast.Subscript(
                    value=ast.Name(id="State"), slice=ast.Tuple(elts=[ast.Constant(value=str(name)), annotation])
                ):
                    return self.port("state", name, arg, annotation)
        raise TextError(f'line {arg.lineno}: the state {arg.arg} needs a type such as State["name", f32[3]]')

    def port(self, op: str, name: str, arg: ast.arg, annotation: ast.expr) -> Value:
        type_, order = type_from(annotation)
        node = Node(get(op), (), {"name": name}, (type_,), arg.arg, self.locations.get(arg.lineno))
        self.define(arg.arg, node.output, order)
        return node.output

    def define(self, name: str, value: Value, order: tuple[int, ...] | None) -> None:
        if name in self.reserved:
            raise TextError(f"{name} is the name of an op or word of the language")
        if name in self.values:
            raise TextError(f"{name} is defined twice")
        self.values[name] = value
        if order is not None:
            self.layouts[value] = order

    # --- statements ------------------------------------------------------------------------------------------

    def statement(self, statement: ast.stmt) -> None:
        self.location = self.locations.get(statement.lineno)
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=None):
                self.pending[name] = type_from(annotation)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as right):
                self.assign(name, [name], [type_from(annotation)], right)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=right):
                names = [t.id if isinstance(t, ast.Name) else "" for t in targets]
                self.assign(_common_name(names), names, [self.pending_type(n) for n in names], right)
            case ast.With(items=[ast.withitem(context_expr=call, optional_vars=None)], body=body):
                self.group(call, body)
            case ast.Expr(
                value=ast.Call(
                    func=ast.Name(id="assume"),
                    args=[ast.Constant(value=str(fact)), ast.Constant(value=str(reason))],
                    keywords=[],
                )
            ):
                self.assumptions.append(assumption(fact, reason, self.location))
            case _:
                raise TextError(f"not a statement of a printed graph: {ast.unparse(statement)}")

    def pending_type(self, name: str) -> Annotation:
        if name not in self.pending:
            raise TextError(f"{name or 'each target'} needs its type on a line before, such as {name or 'y'}: f32[3]")
        return self.pending.pop(name)

    def group(self, call: ast.expr, body: list[ast.stmt]) -> None:
        match call:
            case ast.Call(func=ast.Name(id="kernel"), args=[ast.Constant(value=str(name))], keywords=[]):
                guard = None
            case ast.Call(
                func=ast.Name(id="kernel"),
                args=[ast.Constant(value=str(name))],
                keywords=[ast.keyword(arg="when", value=ast.Name(id=condition))],
            ):
                guard = self.value(condition)
            case _:
                raise TextError("expected 'with kernel(\"name\"):' or 'with kernel(\"name\", when=condition):'")
        if any(isinstance(s, ast.With) for s in body):
            raise TextError("a kernel cannot hold another")
        first = len(self.nodes)
        for statement in body:
            with self.at(statement):
                self.statement(statement)
        self.groups.append(Group(name, tuple(self.nodes[first:]), guard))

    def assign(self, name: str, names: list[str], annotations: list[Annotation], right: ast.expr) -> None:
        node = self.expression(name, right)
        if len(node.outputs) != len(names):
            raise TextError(f"{node.op.name} has {len(node.outputs)} outputs, not {len(names)}")
        for n, v, (type_, order) in zip(names, node.outputs, annotations, strict=True):
            if v.type != type_:
                raise TextError(f"{n} is declared as {type_}, but {node.op.name} gives {v.type}")
            self.define(n, v, order)

    def returned(self, statement: ast.stmt) -> tuple[tuple[Value, ...], dict[str, Value]]:
        match statement:
            case ast.Return(value=ast.Tuple(elts=items)):
                pass
            case ast.Return(value=ast.expr() as item):
                items = [item]
            case _:
                raise TextError("the function must end with a return")
        self.location = self.locations.get(statement.lineno)
        updates: dict[str, Value] = {}
        match items:
            case [*outputs, ast.Call(func=ast.Name(id="State"), args=[ast.Dict() as new], keywords=[])]:
                for key, value in zip(new.keys, new.values, strict=True):
                    if not isinstance(key, ast.Constant) or not isinstance(key.value, str) or key.value in updates:
                        raise TextError("State takes each name once, as a string")
                    updates[key.value] = self.operands([value])[0]
            case outputs:
                pass
        return tuple(self.operands([o])[0] for o in outputs), updates

    # --- expressions -----------------------------------------------------------------------------------------

    def expression(self, name: str, right: ast.expr) -> Node:
        match right:
            case ast.Call(func=ast.Name(id="constant")):
                return self.constant(name, right)
            case ast.Call(func=ast.Name(id=op_name), args=args, keywords=keywords):
                op = get(op_name)
                if op.name in ("input", "state"):
                    raise TextError(f"{op_name} belongs among the function's parameters")
                attrs = {k.arg: self.attribute(k) for k in keywords if k.arg is not None}
                if len(attrs) != len(keywords):
                    raise TextError("each attribute may be given once, by name")
                return self.add(op, self.operands(args), attrs, name)
            case ast.BinOp(left=left, op=operator, right=other) if type(operator) in _OPERATORS:
                return self.add(get(_OPERATORS[type(operator)]), self.operands([left, other]), {}, name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.add(get("neg"), self.operands([operand]), {}, name)
        raise TextError(f"not the application of an op: {ast.unparse(right)}")

    def attribute(self, keyword: ast.keyword) -> Any:
        match keyword:
            case ast.keyword(arg="body", value=ast.Name(id=name)):
                if name not in self.bodies:
                    raise TextError(f"{name} is not a body that was defined before")
                return self.bodies[name]
        return attr_from(keyword.value)

    def operands(self, nodes: list[ast.expr]) -> tuple[Value, ...]:
        """Values, with literals made constants of the dtype that they take beside the tensors."""
        found = [self.value(n.id) if isinstance(n, ast.Name) and n.id not in ("inf", "nan") else None for n in nodes]
        tensors = [v.dtype for v in found if v is not None]
        beside = dtypes.promote(*tensors) if tensors else None
        return tuple(self.literal(n, beside) if v is None else v for n, v in zip(nodes, found, strict=True))

    def value(self, name: str) -> Value:
        if name not in self.values:
            raise TextError(f"{name} is used and not defined before")
        return self.values[name]

    def literal(self, node: ast.expr, beside: DType | None) -> Value:
        match node:
            case ast.Call(func=ast.Name(id=name), args=[number], keywords=[]) if name in DTYPES:
                array = as_constant(array_from(number), DTYPES[name], ())
            case _:
                number = array_from(node)
                array = as_constant(number, dtypes.of_scalar(number, beside), ())
        return self.constant_node(array, self.fresh()).output

    def fresh(self) -> str:
        """A name that the text does not use, for a literal."""
        name = next(n for n in (f"c{i}" for i in self._literal_numbers) if n not in self.taken)
        self.taken.add(name)
        return name

    def constant(self, name: str, call: ast.Call) -> Node:
        match call:
            case ast.Call(args=[ast.Constant(value=str(key))], keywords=[]):
                if key not in self.constants:
                    raise TextError(f"the constant {key!r} is not in the text; its array must be given beside it")
                array = np.array(self.constants[key], order="C")
                array.flags.writeable = False
            case ast.Call(args=[value, ast.Name(id=dtype)], keywords=[]) if dtype in DTYPES:
                array = as_constant(array_from(value), DTYPES[dtype])
            case ast.Call(args=[value, ast.Name(id=dtype)], keywords=[ast.keyword(arg="shape", value=shape)]) if (
                dtype in DTYPES
            ):
                array = as_constant(array_from(value), DTYPES[dtype], attr_from(shape))
            case _:
                raise TextError('expected constant([...], dtype) or constant("name")')
        return self.constant_node(array, name)

    def constant_node(self, array: np.ndarray, name: str) -> Node:
        return self.add(get("constant"), (), {"value": array, "dtype": dtypes.as_dtype(array.dtype)}, name)

    def add(self, op: Op, inputs: tuple[Value, ...], attrs: Mapping[str, Any], name: str) -> Node:
        """Check the op against its inputs and append it."""
        assumed = list(self.assumptions)
        try:
            with dims.recording(assumed):
                full = op.complete(attrs)
                types = op.infer(tuple(v.type for v in inputs), full)
        except TenonError:
            raise
        except Exception as error:  # a type rule that was handed nonsense: it may trip in any way
            raise TextError(f"{op.name} does not take these arguments: {error}") from error
        for a in assumed[len(self.assumptions) :]:
            raise TextError(f"{op.name} relies on assume({quoted(str(a))}, {quoted(a.reason)}), which the text lacks")
        node = Node(op, inputs, full, types, name, self.location)
        self.nodes.append(node)
        return node


def _common_name(names: list[str]) -> str:
    """``t3`` of ``t3_0, t3_1``: the name of a node with several outputs."""
    name = names[0].removesuffix("_0")
    if names != [f"{name}_{i}" for i in range(len(names))]:
        raise TextError(f"the outputs of one op are named such as {name}_0, {name}_1; not {', '.join(names)}")
    return name


def assumption(fact: str, reason: str, location: SourceLocation | None = None) -> Assumption:
    """The assumption that ``fact`` spells, such as ``"B - 1 >= 0"``. Raises TextError."""
    found = re.fullmatch(r"(.+) (== 0|!= 0|>= 0)", fact)
    expr = dims.parse(found[1]) if found else 0
    if found is None or not isinstance(expr, Expr):
        raise TextError(f'an assumption is such as "B - 1 >= 0" with a dim in it, not {fact!r}')
    return Assumption(expr, found[2], reason, location)

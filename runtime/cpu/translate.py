"""The short way from a kernel's source to LLVM IR, for sources as plain as generated ones are.

Numba finds types and lowers an operation in microseconds. What takes it a third of a second a kernel is everything
around that: bytecode back to blocks, closures, rewrites, lifetimes, inference to a fixed point. A generated kernel
needs none of it: a variable has one type, known from the first assignment, and control flow is loops and branches.
So :func:`translate` walks the syntax tree once, asks Numba for the type and the code of each operation, and remembers
both. Variables live in stack slots, which LLVM turns into registers.

A call of a function that ``njit`` marks is its body in place, with variables of its own.

Whatever it does not know (functions of other modules, arrays, a variable that changes its type) is :class:`Unknown`;
such a kernel goes the long way. Both mean the same, as both are Numba's operations.
"""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic as Intrinsic
from numba.core.fastmathpass import rewrite_module
from numba.core.types.misc import literal, unliteral

from engine.records import dataclass
from runtime.cpu.arithmetic import contexts
from runtime.cpu.register_tiles import elementwise, widest

_INT64, _BOOL = types.int64, types.boolean
_WORD, _BIT = ir.IntType(64), ir.IntType(1)
_RESULT = "return"
"""The variable that holds what a function returns; no other is called so."""
_BINARY: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_UNARY: dict[type[ast.AST], Callable[..., Any]] = {
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}


class Unknown(Exception):
    """The source holds something that only the whole of Numba understands."""


class _Typed(NamedTuple):
    """A value in the IR; of a literal also what it is."""

    type: types.Type
    value: ir.Value
    literal: int | float | bool | None = None


@dataclass(frozen=True)
class _Loop:
    next: ir.Block
    end: ir.Block


def translate(
    source: str, name: str, globals_: dict[str, Any], entry: str, fastmath: frozenset[str], parts: Mapping[str, str]
) -> str:
    """LLVM IR in which ``entry`` is the function ``name`` of ``source``; its parameters are i64.

    ``globals_`` are the names of the module that the source makes. What ``parts`` names is called, by the symbol given
    there, and stays outside. Raises Unknown.
    """
    functions = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    with _contexts(fastmath)[1].push_code_library(_Alone()):
        return _Function(name, functions, globals_, entry, fastmath, parts).text()


def get_ready(fastmath: frozenset[str]) -> None:
    """Set up Numba's contexts."""
    _contexts(fastmath)


class _Alone:
    """Stands for the library that Numba would link what an operation calls into."""

    def add_linking_library(self, library: Any) -> None:
        raise Unknown(f"an operation that calls {library.name}")


@cache
def _contexts(fastmath: frozenset[str]) -> tuple[Any, Any]:
    return contexts({*_BINARY.values(), *_UNARY.values(), bool}, fastmath)


@cache
def _operation(fastmath: frozenset[str], function: Callable[..., Any], operands: tuple[types.Type, ...]) -> Any:
    """The signature of an operator on operands of these types, and what emits its code."""
    if not all(isinstance(t, types.Number | types.Boolean) for t in operands):
        raise Unknown(f"{function.__name__} of {operands}")
    typing, target = _contexts(fastmath)
    signature = typing.resolve_function_type(function, operands, {})
    if signature is None:
        raise Unknown(f"{function.__name__} of {operands}")
    return signature, target.get_function(function, signature)


@cache
def _intrinsic(fastmath: frozenset[str], function: Intrinsic, arguments: tuple[types.Type, ...]) -> Any:
    """The signature of an intrinsic for arguments of these types, and what emits its code."""
    return function._defn(_contexts(fastmath)[0], *arguments)


def _notes_an_address(statement: ast.stmt) -> bool:
    """Whether it writes into a table of addresses."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name("store_address"))):
            return True
    return False


class _Function:
    def __init__(
        self,
        name: str,
        functions: dict[str, ast.FunctionDef],
        globals_: dict[str, Any],
        entry: str,
        fastmath: frozenset[str],
        parts: Mapping[str, str],
    ):
        self.functions = functions
        self.globals = globals_
        self.fastmath = fastmath
        self.parts = parts
        self.typing, self.context = _contexts(fastmath)
        self.module = self.context.create_module(entry)
        function = self._declared(entry, len(functions[name].args.args))
        self.slots = ir.IRBuilder(function.append_basic_block("entry"))
        self.builder = ir.IRBuilder(function.append_basic_block("body"))
        self.variables: dict[str, tuple[types.Type, ir.Value]] = {}
        self.places: dict[tuple[str, types.Type], ir.Value | None] = {}
        self.loops: list[_Loop] = []
        self.called: ir.Block | None = None  # where the function that is put in place of its call returns to
        self._run(functions[name], [_Typed(_INT64, argument) for argument in function.args])
        if not self.builder.block.is_terminated:
            self.builder.ret_void()
        self.slots.position_at_end(function.entry_basic_block)  # Numba's own slots have come behind
        self.slots.branch(function.blocks[1])

    def _declared(self, symbol: str, parameters: int) -> ir.Function:
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [_WORD] * parameters), symbol)
        function.attributes.add("nounwind")
        return function

    def text(self) -> str:
        rewrite_module(self.module, self.context.fastmath)
        return str(self.module)

    def _run(self, tree: ast.FunctionDef, args: list[_Typed]) -> None:
        """The body of a function, its parameters set to ``args``."""
        if tree.args.posonlyargs or tree.args.kwonlyargs or len(tree.args.args) != len(args):
            raise Unknown(f"the parameters of {tree.name}")
        for parameter, argument in zip(tree.args.args, args, strict=True):
            self._assign(parameter.arg, argument)
        self._block(tree.body)

    # --- statements ----------------------------------------------------------------------------------------

    def _block(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if self.builder.block.is_terminated:
                return  # what follows a break is never reached
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(name)], value=value):
                self._assign(name, self._value(value))
            case ast.AugAssign(target=ast.Name(name) as target, op=op, value=value):
                read = ast.Name(target.id, ast.Load())
                self._assign(name, self._binary(type(op), self._value(read), self._value(value)))
            case ast.For(target=ast.Name(name), iter=ast.Call(ast.Name("range"), args, []), body=body, orelse=[]):
                self._for(name, args, body)
            case ast.While(test=test, body=body, orelse=[]):
                self._while(test, body)
            case ast.If(test=test, body=body, orelse=orelse):
                self._if(test, body, orelse)
            case ast.Expr(value=ast.Call() as call):
                self._value(call)
            case ast.Break():
                self.builder.branch(self.loops[-1].end)
            case ast.Continue():
                self.builder.branch(self.loops[-1].next)
            case ast.Return(value=value):
                self._return(value)
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case _:
                raise Unknown(ast.dump(node)[:100])

    def _assign(self, name: str, value: _Typed) -> None:
        kind = unliteral(value.type)
        if name not in self.variables:
            if kind is types.void:
                raise Unknown(f"{name} is nothing")
            if (name, kind) not in self.places:
                self.places[name, kind] = self.slots.alloca(self.context.get_value_type(kind), name=name)
            self.variables[name] = kind, self.places[name, kind]
        known, slot = self.variables[name]
        if known != kind:
            raise Unknown(f"{name} is {known} and {kind}")
        self.builder.store(value.value, slot)

    def _return(self, value: ast.expr | None) -> None:
        if self.called is None:
            if value is not None:
                raise Unknown("a kernel that returns something")
            self.builder.ret_void()
            return
        if value is None:
            self.places[_RESULT, types.void] = None
        else:
            self._assign(_RESULT, self._value(value))
        self.builder.branch(self.called)

    def _for(self, name: str, args: list[ast.expr], body: list[ast.stmt]) -> None:
        given = [self._value(a) for a in args]
        bounds = [self._as(a, _INT64) for a in given]
        start, stop = bounds[:2] if len(bounds) > 1 else (_WORD(0), bounds[0])
        step, order = _WORD(1), "<"
        if len(args) == 3:
            if not given[2].literal:
                raise Unknown("a step that may be negative, or zero")
            step, order = bounds[2], "<" if given[2].literal > 0 else ">"
        builder = self.builder
        counter = self.slots.alloca(_WORD, name=f"{name}.next")
        builder.store(start, counter)
        test, inside, after, end = (builder.append_basic_block(f"for.{n}") for n in ("test", "body", "next", "end"))
        builder.branch(test)
        builder.position_at_end(test)
        now = builder.load(counter)
        builder.cbranch(builder.icmp_signed(order, now, stop), inside, end)
        builder.position_at_end(inside)
        self._assign(name, _Typed(_INT64, now))
        self._body(body, _Loop(after, end))
        builder.position_at_end(after)
        builder.store(builder.add(builder.load(counter), step, flags=["nsw"]), counter)
        back = builder.branch(test)
        if any(map(_notes_an_address, body)):
            back.set_metadata("llvm.loop", self._not_vectorised())
        builder.position_at_end(end)

    def _not_vectorised(self) -> ir.MDValue:
        """The mark of a loop of few turns, or cheap ones: vector code for it takes longer to compile than it saves."""
        module = self.module
        switch = module.add_metadata([ir.MetaDataString(module, "llvm.loop.vectorize.enable"), _BIT(0)])
        loop = ir.MDValue(module, [switch], name=str(len(module.metadata)))
        loop.operands = (loop, switch)  # what refers to itself is equal to no other
        return loop

    def _while(self, test: ast.expr, body: list[ast.stmt]) -> None:
        again, inside, end = (self.builder.append_basic_block(f"while.{n}") for n in ("test", "body", "end"))
        self.builder.branch(again)
        self.builder.position_at_end(again)
        self._branch(test, inside, end)
        self.builder.position_at_end(inside)
        self._body(body, _Loop(again, end))
        self.builder.position_at_end(end)

    def _body(self, body: list[ast.stmt], loop: _Loop) -> None:
        self.loops.append(loop)
        self._block(body)
        self.loops.pop()
        if not self.builder.block.is_terminated:
            self.builder.branch(loop.next)

    def _if(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]) -> None:
        if isinstance(test, ast.Name) and test.id not in self.variables and isinstance(self._global(test.id), bool):
            self._block(body if self._global(test.id) else orelse)  # the other way is never taken
            return
        then, other, end = (self.builder.append_basic_block(f"if.{n}") for n in ("then", "else", "end"))
        self._branch(test, then, other)
        before, ways = self.variables, []
        for block, statements in ((then, body), (other, orelse)):
            self.variables = dict(before)
            self.builder.position_at_end(block)
            self._block(statements)
            if not self.builder.block.is_terminated:
                self.builder.branch(end)
                ways.append(self.variables)
        # What only one of two ways has set is not known behind them, nor what both have set to different types.
        self.variables = {n: v for n, v in ways[0].items() if all(w.get(n) == v for w in ways)} if ways else before
        self.builder.position_at_end(end)

    def _branch(self, test: ast.expr, then: ir.Block, other: ir.Block) -> None:
        """Go to ``then`` where ``test`` holds, else to ``other``; ``and`` and ``or`` look no further than they must."""
        if isinstance(test, ast.BoolOp):
            for part in test.values[:-1]:
                following = self.builder.append_basic_block("test")
                targets = (following, other) if isinstance(test.op, ast.And) else (then, following)
                self._branch(part, *targets)
                self.builder.position_at_end(following)
            self._branch(test.values[-1], then, other)
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self._branch(test.operand, other, then)
        else:
            condition = self._value(test)
            if unliteral(condition.type) == _INT64:
                condition = self._binary(ast.NotEq, condition, self._literal(0))
            self.builder.cbranch(self._as(condition, _BOOL, exactly=True), then, other)

    # --- expressions ---------------------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> _Typed:
        match node:
            case ast.Constant(value=value):
                return self._literal(value)
            case ast.Name(id=name) if name in self.variables:
                kind, slot = self.variables[name]
                return _Typed(kind, self.builder.load(slot))
            case ast.Name(id=name):
                return self._literal(self._global(name))
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(type(op), self._value(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(type(op), self._value(left), self._value(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._binary(type(op), self._value(left), self._value(right))
            case ast.BoolOp():
                return self._choice(node, ast.Constant(True), ast.Constant(False))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._choice(test, body, orelse)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name not in self.variables:
                function, given = self._global(name), [self._value(a) for a in args]
                if name in self.parts:
                    return self._call_part(self.parts[name], given)
                if isinstance(function, Dispatcher) and name in self.functions:
                    return self._in_place(self.functions[name], given)
                return self._call(function, given)
        raise Unknown(ast.dump(node)[:100])

    def _global(self, name: str) -> Any:
        if any(name == known for known, _ in self.places):
            raise Unknown(f"{name}, which is not set on every way")
        if name in self.globals:
            return self.globals[name]
        if hasattr(builtins, name):
            return getattr(builtins, name)
        raise Unknown(f"the name {name}")

    def _literal(self, value: object) -> _Typed:
        if isinstance(value, bool):
            return _Typed(_BOOL, _BIT(value), value)
        if isinstance(value, int) and -(2**63) <= value < 2**63:
            return _Typed(_INT64, _WORD(value), value)
        if isinstance(value, float):
            return _Typed(types.float64, ir.DoubleType()(value), value)
        raise Unknown(f"the value {value!r}")

    def _as(self, value: _Typed, kind: types.Type, exactly: bool = False) -> ir.Value:
        """The value converted to ``kind``; ``exactly`` allows only what has it already."""
        have = unliteral(value.type)
        kind = unliteral(kind)
        if have == kind:
            return value.value
        if exactly or not all(isinstance(t, types.Number | types.Boolean) for t in (have, kind)):
            raise Unknown(f"{have} as {kind}")
        return self.context.cast(self.builder, value.value, have, kind)

    def _unary(self, op: type[ast.unaryop], operand: _Typed) -> _Typed:
        if op is ast.USub and operand.literal is not None and not isinstance(operand.literal, bool):
            return self._literal(-operand.literal)
        if op not in _UNARY:
            raise Unknown(op.__name__)
        return self._apply(_UNARY[op], [operand])

    def _binary(self, op: type[ast.AST], left: _Typed, right: _Typed) -> _Typed:
        if op not in _BINARY:
            raise Unknown(op.__name__)
        return self._apply(_BINARY[op], [left, right])

    def _apply(self, function: Callable[..., Any], operands: list[_Typed]) -> _Typed:
        kinds = [o.type for o in operands]
        if tile := widest(kinds):
            _, emit = _operation(self.fastmath, function, (tile.number,) * len(kinds))
            combined = elementwise(self.builder, kinds, [o.value for o in operands], lambda *v: emit(self.builder, v))
            return _Typed(tile, combined)
        signature, emit = _operation(self.fastmath, function, tuple(o.type for o in operands))
        values = [self._as(o, kind) for o, kind in zip(operands, signature.args, strict=True)]
        value = emit(self.builder, values)
        if isinstance(value, ir.Instruction) and value.opname == "fdiv":
            value.flags.append("nsz")  # reassociated with a product behind it, it would move into that one's loop
        return _Typed(signature.return_type, value)

    def _choice(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> _Typed:
        """``body if test else orelse``, of which only one is computed."""
        then, other, end = (self.builder.append_basic_block(f"choice.{n}") for n in ("then", "else", "end"))
        self._branch(test, then, other)
        found = []
        for block, expression in ((then, body), (other, orelse)):
            self.builder.position_at_end(block)
            found.append((self._value(expression), self.builder.block))
            self.builder.branch(end)
        self.builder.position_at_end(end)
        if found[0][0].type != found[1][0].type:
            raise Unknown("a choice between types")
        joined = self.builder.phi(found[0][0].value.type)
        for value, block in found:
            joined.add_incoming(value.value, block)
        return _Typed(found[0][0].type, joined)

    def _call(self, function: Any, args: list[_Typed]) -> _Typed:
        if isinstance(function, Intrinsic):
            return self._call_intrinsic(function, args)
        if isinstance(function, type) and issubclass(function, np.generic) and len(args) == 1:
            return self._convert(args[0], np.dtype(function))
        if function in (min, max) and len(args) == 2 and all(a.type == _INT64 for a in args):
            order = "<" if function is min else ">"
            first = self.builder.icmp_signed(order, args[0].value, args[1].value)
            return _Typed(_INT64, self.builder.select(first, args[0].value, args[1].value))
        raise Unknown(f"a call of {function!r}")

    def _in_place(self, tree: ast.FunctionDef, args: list[_Typed]) -> _Typed:
        """The body of a function instead of its call."""
        outside = self.variables, self.places, self.loops, self.called
        self.variables, self.places, self.loops = {}, {}, []
        end = self.called = self.builder.append_basic_block("called")
        self._run(tree, args)
        if not self.builder.block.is_terminated:
            self._return(None)
        results = [(kind, slot) for (name, kind), slot in self.places.items() if name == _RESULT]
        self.variables, self.places, self.loops, self.called = outside
        self.builder.position_at_end(end)
        if len(results) > 1:
            raise Unknown(f"{tree.name} returns {' or '.join(str(kind) for kind, _ in results)}")
        ((kind, slot),) = results
        return _Typed(kind, self.context.get_dummy_value() if kind is types.void else self.builder.load(slot))

    def _call_intrinsic(self, function: Intrinsic, args: list[_Typed]) -> _Typed:
        kinds = [a.type for a in args]
        if function._prefer_literal:
            whole = [isinstance(a.literal, int) and not isinstance(a.literal, bool) for a in args]
            kinds = [literal(a.literal) if w else a.type for a, w in zip(args, whole, strict=True)]
        found = _intrinsic(self.fastmath, function, tuple(kinds))
        if found is None:
            raise Unknown(f"{function!r} of {kinds}")
        signature, emit = found
        values = [self._as(a, kind) for a, kind in zip(args, signature.args, strict=True)]
        return _Typed(signature.return_type, emit(self.context, self.builder, signature, values))

    def _call_part(self, symbol: str, args: list[_Typed]) -> _Typed:
        function = self.module.globals.get(symbol) or self._declared(symbol, len(args))
        self.builder.call(function, [self._as(a, _INT64) for a in args])
        return _Typed(types.void, self.context.get_dummy_value())

    def _convert(self, value: _Typed, dtype: np.dtype) -> _Typed:
        kind = getattr(types, {"bool": "boolean"}.get(dtype.name, dtype.name))
        if isinstance(kind, types.Float) and isinstance(value.literal, int | float):
            return _Typed(kind, self.context.get_value_type(kind)(float(value.literal)))
        return _Typed(kind, self._as(value, kind))

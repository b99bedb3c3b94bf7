"""The short way from a kernel's source to LLVM IR, for sources as plain as generated ones are.

Numba takes a third of a second a kernel, most of it for what a generated kernel does not need: bytecode back to
blocks, closures, rewrites, lifetimes, inference to a fixed point. Here a variable has one kind, known from the first
assignment, and control flow is loops and branches. So :func:`translate` walks the syntax tree once; what operators do
is in arithmetic.py, and words bring their own code. Variables live in stack slots, which LLVM turns into registers.

A call of a ``helper`` is its body in place, with variables of its own.

Whatever it does not know (Numba's functions, arrays, a variable that changes its kind) is :class:`Unknown`; such a
kernel goes the long way, through Numba, and means the same.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from engine.records import dataclass
from runtime.cpu.arithmetic import Unknown, binary, convert, unary
from runtime.cpu.kinds import BY_NAME, Kind, Literal, boolean, float64, int64, void
from runtime.cpu.machine import machine
from runtime.cpu.words import Helper, Intrinsic

_WORD, _BIT = int64.ir, boolean.ir
_REORDERED = frozenset({"fadd", "fsub", "fmul", "fdiv", "frem", "fcmp"})
"""Instructions that take the kernel's fast-math flags where they have none of their own."""
_RESULT = "return"
"""The variable that holds what a function returns; no other is called so."""


class _Typed(NamedTuple):
    """A value in the IR; of a literal also what it is."""

    kind: Kind
    value: Any  # an ir.Value, or None for nothing
    literal: int | float | bool | None = None


@dataclass(frozen=True)
class _Loop:
    next: ir.Block
    end: ir.Block


def translate(
    source: str, name: str, globals_: Mapping[str, Any], entry: str, fastmath: Iterable[str], parts: Mapping[str, str]
) -> str:
    """LLVM IR in which ``entry`` is the function ``name`` of ``source``; its parameters are i64.

    ``globals_`` are the names of the module that the source makes. What ``parts`` names is called, by the symbol given
    there, and stays outside. Raises Unknown.
    """
    functions = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    return _Function(name, functions, globals_, entry, parts).text(sorted(fastmath))


class _Function:
    def __init__(
        self,
        name: str,
        functions: Mapping[str, ast.FunctionDef],
        globals_: Mapping[str, Any],
        entry: str,
        parts: Mapping[str, str],
    ):
        self.functions = functions
        self.globals = globals_
        self.parts = parts
        self.module = ir.Module(entry)
        self.module.triple, self.module.data_layout = machine().triple, str(machine().target_data)
        function = self._declared(entry, len(functions[name].args.args))
        self.slots = ir.IRBuilder(function.append_basic_block("entry"))
        self.builder = ir.IRBuilder(function.append_basic_block("body"))
        self.variables: dict[str, tuple[Kind, ir.Value]] = {}
        self.places: dict[tuple[str, Kind], ir.Value | None] = {}
        self.loops: list[_Loop] = []
        self.called: ir.Block | None = None  # where the function that is put in place of its call returns to
        self._run(functions[name], [_Typed(int64, argument) for argument in function.args])
        if not self.builder.block.is_terminated:
            self.builder.ret_void()
        self.slots.position_at_end(function.entry_basic_block)
        self.slots.branch(function.blocks[1])

    def _declared(self, symbol: str, parameters: int) -> ir.Function:
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [_WORD] * parameters), symbol)
        function.attributes.add("nounwind")
        return function

    def text(self, fastmath: Sequence[str]) -> str:
        for instruction in (i for f in self.module.functions for block in f.blocks for i in block.instructions):
            if instruction.opname in _REORDERED:
                instruction.flags = instruction.flags or fastmath
            elif isinstance(instruction, ir.CallInstr) and isinstance(instruction.type, ir.FloatType | ir.DoubleType):
                instruction.fastmath.update(fastmath)
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
        kind = value.kind
        if name not in self.variables:
            if kind == void:
                raise Unknown(f"{name} is nothing")
            if (name, kind) not in self.places:
                self.places[name, kind] = self.slots.alloca(kind.ir, name=name)
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
            self.places[_RESULT, void] = None
        else:
            self._assign(_RESULT, self._value(value))
        self.builder.branch(self.called)

    def _for(self, name: str, args: list[ast.expr], body: list[ast.stmt]) -> None:
        given = [self._value(a) for a in args]
        bounds = [self._as(a, int64) for a in given]
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
        self._assign(name, _Typed(int64, now))
        self._body(body, _Loop(after, end))
        builder.position_at_end(after)
        builder.store(builder.add(builder.load(counter), step, flags=["nsw"]), counter)
        builder.branch(test)
        builder.position_at_end(end)

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
            if condition.kind not in (int64, boolean):
                raise Unknown(f"{condition.kind} as a condition")
            self.builder.cbranch(self._as(condition, boolean), then, other)

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
            case ast.Call(func=ast.Call(ast.Name("type"), [like], []), args=[value], keywords=[]):
                return self._convert(self._value(value), np.dtype(self._value(like).kind.name))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name not in self.variables:
                function, given = self._global(name), [self._value(a) for a in args]
                if name in self.parts:
                    return self._call_part(self.parts[name], given)
                if isinstance(function, Helper):
                    return self._in_place(name, function, given)
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
            return _Typed(boolean, _BIT(value), value)
        if isinstance(value, int) and -(2**63) <= value < 2**63:
            return _Typed(int64, _WORD(value), value)
        if isinstance(value, float):
            return _Typed(float64, float64.ir(value), value)
        raise Unknown(f"the value {value!r}")

    def _as(self, value: _Typed, kind: Kind) -> ir.Value:
        """The value converted to ``kind``."""
        return convert(self.builder, value.value, value.kind, kind)

    def _unary(self, op: type[ast.unaryop], operand: _Typed) -> _Typed:
        if op is ast.USub and operand.literal is not None and not isinstance(operand.literal, bool):
            return self._literal(-operand.literal)
        return _Typed(*unary(self.builder, op, operand.kind, operand.value))

    def _binary(self, op: type[ast.AST], left: _Typed, right: _Typed) -> _Typed:
        return _Typed(*binary(self.builder, op, left.kind, left.value, right.kind, right.value))

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
        if found[0][0].kind != found[1][0].kind:
            raise Unknown("a choice between types")
        joined = self.builder.phi(found[0][0].value.type)
        for value, block in found:
            joined.add_incoming(value.value, block)
        return _Typed(found[0][0].kind, joined)

    def _call(self, function: Any, args: list[_Typed]) -> _Typed:
        if isinstance(function, Intrinsic):
            return self._call_intrinsic(function, args)
        if isinstance(function, type) and issubclass(function, np.generic) and len(args) == 1:
            return self._convert(args[0], np.dtype(function))
        if function in (min, max) and len(args) == 2 and all(a.kind == int64 for a in args):
            order = "<" if function is min else ">"
            first = self.builder.icmp_signed(order, args[0].value, args[1].value)
            return _Typed(int64, self.builder.select(first, args[0].value, args[1].value))
        raise Unknown(f"a call of {function!r}")

    def _in_place(self, name: str, helper: Helper, args: list[_Typed]) -> _Typed:
        """The body of a function instead of its call."""
        outside = self.functions, self.globals, self.variables, self.places, self.loops, self.called
        tree = self.functions.get(name)
        if tree is None:
            tree, self.functions, self.globals = helper.tree, {}, helper.names
        self.variables, self.places, self.loops = {}, {}, []
        end = self.called = self.builder.append_basic_block("called")
        self._run(tree, args)
        if not self.builder.block.is_terminated:
            self._return(None)
        results = [(kind, slot) for (name, kind), slot in self.places.items() if name == _RESULT]
        self.functions, self.globals, self.variables, self.places, self.loops, self.called = outside
        self.builder.position_at_end(end)
        if len(results) > 1:
            raise Unknown(f"{helper} returns {' or '.join(str(kind) for kind, _ in results)}")
        ((kind, slot),) = results
        return _Typed(kind, None if kind == void else self.builder.load(slot))

    def _call_intrinsic(self, word: Intrinsic, args: list[_Typed]) -> _Typed:
        if len(args) != word.arity:
            raise Unknown(f"{word} of {len(args)} arguments")
        given = [
            Literal(a.kind, a.literal) if word.literals and isinstance(a.literal, int) and a.kind == int64 else a.kind
            for a in args
        ]
        signature, emit = word.define(*given)
        wanted = [p.kind if isinstance(p, Literal) else p for p in signature.parameters]
        values = [self._as(a, kind) for a, kind in zip(args, wanted, strict=True)]
        return _Typed(signature.result, emit(self.builder, values))

    def _call_part(self, symbol: str, args: list[_Typed]) -> _Typed:
        function = self.module.globals.get(symbol) or self._declared(symbol, len(args))
        self.builder.call(function, [self._as(a, int64) for a in args])
        return _Typed(void, None)

    def _convert(self, value: _Typed, dtype: np.dtype) -> _Typed:
        if dtype.name not in BY_NAME:
            raise Unknown(f"a conversion to {dtype}")
        kind = BY_NAME[dtype.name]
        if kind.is_float and isinstance(value.literal, int | float):
            return _Typed(kind, kind.ir(float(value.literal)))
        return _Typed(kind, self._as(value, kind))

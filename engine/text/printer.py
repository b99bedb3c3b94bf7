"""Printing a graph as a Python program."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from engine import dtypes
from engine.dtypes import DType
from engine.errors import SourceLocation
from engine.graph import Graph, Node, Value
from engine.names import identifier
from engine.text.literals import (
    INFIX,
    NO_LOCATION,
    SMALL,
    array_text,
    attr_text,
    literals,
    number_text,
    plain,
    quoted,
    type_text,
)

COMMENT_COLUMN = 80
LINE = 110


def to_text(graph: Graph, title: str | None = None) -> str:
    """``graph`` as a Python program that :func:`engine.text.parse` reads and that runs on the reference.

    ``title`` is the first line's comment, of one line. Constants of more than 16 elements are named and left out; see
    :func:`to_text_and_constants`.
    """
    return to_text_and_constants(graph, title)[0]


def to_text_and_constants(graph: Graph, title: str | None = None) -> tuple[str, dict[str, np.ndarray]]:
    """The program, and the arrays of the constants that it only names."""
    printer = _Printer(graph)
    body = [*printer.function()]  # which prints those of loops on the way
    lines = [f"# {title or printer.title()}", "from tenon.text import *", "", "", *printer.bodies, *body]
    lines += ["", "", 'if __name__ == "__main__":', f"    run({printer.name})", ""]
    return "\n".join(lines), printer.constants


def node_lines(graph: Graph) -> dict[str, str]:
    """For each node by name, those of loops' bodies as ``loop.node``, the line that it prints as, without its source
    location. Numbers that stand where they are used have none."""
    printer = _Printer(graph)
    found: dict[str, str] = {}
    for node in graph.nodes:
        for name, attr in node.attrs.items():
            if isinstance(attr, Graph) and name == "body":
                found |= {f"{node.name}.{inner}": line for inner, line in node_lines(attr).items()}
        if node.outputs[0] not in printer.literals:
            values = ", ".join(f"{v.name}: {type_text(v.type, graph.layouts.get(v))}" for v in node.outputs)
            found[node.name] = f"{values} = {printer.expression(node)}"
    return found


class _Printer:
    """Prints one graph. The bodies of its loops become functions in ``bodies``, numbered throughout the program."""

    def __init__(self, graph: Graph, outer: _Printer | None = None):
        self.graph = graph
        self.literals = literals(graph)
        self.constants: dict[str, np.ndarray] = {} if outer is None else outer.constants
        self.bodies: list[str] = [] if outer is None else outer.bodies
        self.numbers: Iterator[int] = count(1) if outer is None else outer.numbers
        self.name = identifier(graph.name) if outer is None else f"body{next(self.numbers)}"
        self.decorator = "body" if outer else "program" if self.name == graph.name else f"program({quoted(graph.name)})"
        self._last_location: SourceLocation | None = None

    def title(self) -> str:
        ops, kernels = len(self.graph.nodes) - len(self.literals), len(self.graph.groups)
        counts = [f"{ops} op{'s' * (ops != 1)}", *([f"{kernels} kernel{'s' * (kernels != 1)}"] if kernels else [])]
        return f"{self.name}: {', '.join(counts)}"

    def function(self) -> Iterator[str]:
        g = self.graph
        yield f"@{self.decorator}"
        if g.inputs or g.state:
            yield f"def {self.name}("
            for v in g.inputs:
                yield self.noted(f"    {v.name}: {self.port(v, 'Input')},", v.node.location)
            if g.state:
                yield "    *,"
            for v in g.state:
                yield self.noted(f"    {v.name}: {self.port(v, 'State')},", v.node.location)
            yield "):"
        else:
            yield f"def {self.name}():"
        for a in g.assumptions:
            yield self.noted(f"    assume({quoted(str(a))}, {quoted(a.reason)})", a.location)
        group_of = {n: i for i, group in enumerate(g.groups) for n in group.nodes}
        current = None
        for node in g.nodes:
            if node.outputs[0] in self.literals:
                continue
            group = group_of.get(node)
            if group is not None and group != current:
                guard = g.groups[group].guard
                when = f", when={self.operand(guard, None)}" if guard is not None else ""
                yield f"    with kernel({quoted(g.groups[group].name)}{when}):"
            current = group
            yield from self.node(node, "    " if group is None else "        ")
        yield from self.returned()

    def port(self, v: Value, kind: str) -> str:
        """The annotation of an input or state; an input under its own name needs only the type."""
        type_ = type_text(v.type, self.graph.layouts.get(v))
        name = v.node.attrs["name"]
        return type_ if kind == "Input" and name == v.name else f"{kind}[{quoted(name)}, {type_}]"

    def noted(self, line: str, location: SourceLocation | None) -> str:
        """``line`` with the location as a comment, unless it is that of the line before."""
        if location is None and self._last_location is None:
            return line
        if location is not None and str(location) == str(self._last_location):
            return line
        self._last_location = location
        return f"{line.ljust(COMMENT_COLUMN - 2)}  # {NO_LOCATION if location is None else location}"

    def node(self, node: Node, indent: str) -> Iterator[str]:
        types = [type_text(v.type, self.graph.layouts.get(v)) for v in node.outputs]
        right = self.expression(node)
        if len(node.outputs) == 1:
            yield self.noted(f"{indent}{node.output.name}: {types[0]} = {right}", node.location)
            return
        for v, t in zip(node.outputs, types, strict=True):
            yield f"{indent}{v.name}: {t}"
        yield self.noted(f"{indent}{', '.join(v.name for v in node.outputs)} = {right}", node.location)

    def expression(self, node: Node) -> str:
        if node.op.name == "constant":
            return self.constant(node)
        inputs = [v for v in node.inputs if v not in self.literals]
        beside = dtypes.promote(*(v.dtype for v in inputs)) if inputs else None
        operands = [self.operand(v, beside) for v in node.inputs]
        if inputs and all(v.dtype == beside for v in node.inputs) and plain(inputs[0].dtype):
            if node.op.name in INFIX:
                return f"{operands[0]} {INFIX[node.op.name]} {operands[1]}"
            if node.op.name == "neg":
                return f"-{operands[0]}"
        for name, value in node.attrs.items():
            text = self.body(value) if isinstance(value, Graph) else attr_text(value)
            default = node.op.attrs.get(name)
            if not _spells(default, text):
                operands.append(f"{name}={text}")
        return f"{node.op.name}({', '.join(operands)})"

    def body(self, graph: Graph) -> str:
        """Print the body of a loop, and give its name."""
        printer = _Printer(graph, self)
        lines = [*printer.function()]
        self.bodies += [*lines, "", ""]
        return printer.name

    def operand(self, v: Value, beside: DType | None) -> str:
        """A value's name, or a literal: bare where it takes its dtype from the tensors ``beside`` it."""
        if v not in self.literals:
            return v.name
        element = v.node.attrs["value"][()]
        text = number_text(element, v.dtype)
        number = float(element) if v.dtype.is_float else element.item()
        return text if dtypes.of_scalar(number, beside) == v.dtype else f"{v.dtype}({text})"

    def constant(self, node: Node) -> str:
        array = node.attrs["value"]
        if array.size > SMALL:
            name = node.name if self.decorator != "body" else f"{self.name}.{node.name}"
            self.constants[name] = array
            return f"constant({quoted(name)})"
        dtype = node.output.dtype
        shape = f", shape={attr_text(array.shape)}" if array.size == 0 else ""
        return f"constant({'[]' if array.size == 0 else array_text(array, dtype)}, {dtype}{shape})"

    def returned(self) -> Iterator[str]:
        values = [self.operand(v, None) for v in self.graph.outputs]
        updates = [f"{quoted(k)}: {self.operand(v, None)}" for k, v in self.graph.updates.items()]
        parts = [*values, f"State({{{', '.join(updates)}}})"] if updates else values
        line = f"    return {', '.join(parts) or '()'}"
        if len(line) <= LINE or not updates:
            yield line
            return
        yield f"    return {''.join(f'{v}, ' for v in values)}State({{"
        for update in updates:
            yield f"        {update},"
        yield "    })"


def _spells(default: object, text: str) -> bool:
    """Whether ``text`` is how ``default`` prints; an op's marker for "required" has no spelling."""
    from engine.op import REQUIRED

    return default is not REQUIRED and attr_text(default) == text

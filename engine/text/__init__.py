"""Graphs as Python programs: printed, parsed back, compared.

One op a line, its type in the annotation and the user's line in the comment::

    from tenon.text import *


    @program
    def step(x: f32["B", 4], *, weight: State["linear.weight", f32[4, 2]]):
        assume("B - 1 >= 0", "the batch must not be empty")
        with kernel("matmul_relu"):
            t0: f32["B", 2] = matmul(x, weight)  # model.py:12 in Net.forward
            t1: f32["B", 2].order(1, 0) = relu(t0)
        t2_0: f32["B"]
        t2_1: i64["B"]
        t2_0, t2_1 = some_op_with_two_outputs(t1, axis=1)
        return t2_0, State({"linear.weight": weight})

Arguments that are tensors come first, attributes follow by name where they are not the op's default. A comment holds
until the next one. Scalar constants are written as literals where they are used: they have no name of their own.
"""

from engine.text.equality import difference, structurally_equal
from engine.text.parser import assumption, parse
from engine.text.printer import node_lines, to_text, to_text_and_constants

__all__ = ["assumption", "difference", "node_lines", "parse", "structurally_equal", "to_text", "to_text_and_constants"]

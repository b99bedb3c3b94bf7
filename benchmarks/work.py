"""What a case has to do at least: floating-point operations and bytes, counted from Tenon's graph.

Operations are those of contractions, convolutions, attention and recurrences, a multiply-add being two; all others are
few beside them. Bytes are inputs, state and results, each once: what a step cannot do without, however it is fused.
"""

from __future__ import annotations

from benchmarks import engines
from benchmarks.models import Case
from engine import dims
from engine.graph import Graph, Node, Value


def of_case(case: Case) -> tuple[int, int]:
    """Operations and bytes of one step of a case."""
    step = engines.tenon_program(case, target="reference")
    (graph,) = (stage for name, stage in step.stages.items() if name == "autodiff")
    return counted(graph, {"B": case.inputs[0].shape[0]})


def counted(graph: Graph, sizes: dict[str, int]) -> tuple[int, int]:
    """Operations and bytes of a graph whose gradients are written out."""
    needed, operations = set(graph.results), 0
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):  # autodiff leaves gradients that nobody asked for
            needed.update(node.inputs)
            operations += _operations(node, sizes)
    moved = [*graph.inputs, *graph.state, *graph.results]
    return operations, sum(_elements(v, sizes) * v.dtype.itemsize for v in moved)


def _elements(value: Value, sizes: dict[str, int]) -> int:
    return dims.evaluate(dims.product(value.shape), sizes)


def _operations(node: Node, sizes: dict[str, int]) -> int:
    """Twice the multiply-adds of a node."""
    inputs = [_elements(v, sizes) for v in node.inputs]
    outputs = [_elements(v, sizes) for v in node.outputs]
    match node.op.name:
        case "matmul":
            return 2 * outputs[0] * dims.evaluate(node.inputs[0].shape[-1], sizes)
        case "conv2d":
            return 2 * outputs[0] * inputs[1] // node.inputs[1].shape[0]
        case "conv2d_input_grad":  # as the convolution, whose result is as large as dy
            return 2 * inputs[0] * inputs[1] // node.inputs[1].shape[0]
        case "conv2d_weight_grad":
            return 2 * inputs[1] * outputs[0] // node.outputs[0].shape[0]
        case "attention" | "attention_backward" as name:
            q, k, v = node.inputs[:3]
            scores = _elements(q, sizes) // q.shape[-1] * dims.evaluate(k.shape[2], sizes)
            backward = name != "attention"  # five products there: scores again, g v^T, and the three gradients
            wide = (3 * q.shape[-1] + 2 * v.shape[-1]) if backward else q.shape[-1] + v.shape[-1]
            return 2 * scores * wide // (2 if node.attrs["causal"] else 1)
        case "rnn_tanh" | "rnn_relu" | "lstm" | "gru":  # every step's state by the weight
            rows = dims.evaluate(dims.product(node.inputs[0].shape[:2]), sizes)
            return 2 * rows * inputs[1]
        case "rnn_tanh_grad" | "rnn_relu_grad" | "lstm_grad" | "gru_grad":
            rows = dims.evaluate(dims.product(node.outputs[0].shape[:2]), sizes)
            return 2 * rows * inputs[0]
    return 0

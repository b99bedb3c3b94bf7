"""The engines of :mod:`benchmarks.sweeps`: each kind of operation in the words of each, as a step of no arguments."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks.sweep_cases import Op

Step = Callable[[], Any]


def _turned(x: Any, turn: object) -> Any:
    return x.swapaxes(-1, -2) if turn else x


def _chains(exp: Any, log: Any, gelu: Any, tanh: Any, sigmoid: Any) -> dict[str, Callable[[Any, Any], Any]]:
    return {
        "multiply-add": lambda x, y: (x * 2 + y) * (x - y) + 1,
        "gelu": lambda x, y: gelu(x + y),
        "tanh-sigmoid": lambda x, y: tanh(x) * sigmoid(y) + x,
        "exp-log": lambda x, y: log(1 + exp(x)) * y,
    }


def tenon() -> Callable[[Op], Step]:
    import tenon as tn
    from tenon import F, nn, optim

    def functions(op: Op) -> Callable[..., Any]:
        window = {k: op.options.get(k, 1) for k in ("stride", "padding", "groups")}
        chain = _chains(tn.exp, tn.log, F.gelu, tn.tanh, tn.sigmoid).get(str(op.options.get("chain")))
        norm = (op.inputs[0].shape[-1],)

        def grad_of(function: Callable[..., Any], g: Any, *inputs: Any) -> Any:
            return tn.grad(lambda *xs: (function(*xs) * g).sum(), tuple(range(len(inputs))))(*inputs)

        kinds: dict[str, Callable[..., Any]] = {
            "matmul": lambda a, b: _turned(a, op.options["left"]) @ _turned(b, op.options["right"]),
            "conv2d": lambda x, w: F.conv2d(x, w, **window),
            "conv2d_input_grad": lambda g, w: grad_of(lambda x: F.conv2d(x, w, **window), g, tn.zeros(*op.result))[0],
            "conv2d_weight_grad": lambda x, g: grad_of(lambda w: F.conv2d(x, w, **window), g, tn.zeros(*op.result))[0],
            "softmax": lambda x: F.softmax(x, -1),
            "softmax_grad": lambda x, g: grad_of(lambda x: F.softmax(x, -1), g, x)[0],
            "cross_entropy": lambda x, t: tn.grad(lambda x: F.cross_entropy(x, t))(x),
            "layer_norm": lambda x, w, b: F.layer_norm(x, norm, w, b),
            "layer_norm_grad": lambda x, w, b, g: grad_of(lambda x, w, b: F.layer_norm(x, norm, w, b), g, x, w, b),
        }
        return chain or kinds[op.kind]

    def build(op: Op) -> Step:
        if op.kind == "adam":
            model, gradients = nn.ParameterList([nn.Parameter(p) for p in op.arrays()[0]]), op.arrays()[1]
            optimizer = optim.Adam(model.parameters(), lr=1e-3)

            def update(g):  # type: ignore[no-untyped-def]
                optimizer.minimize(sum((p * g[i]).sum() for i, p in enumerate(model)))
                return model[0][:1000]

            run, given = tn.compile(update, tn.spec(*gradients.shape)), [gradients]
        else:
            given = op.arrays()
            specs = [tn.spec(*x.shape, dtype="i64" if x.dtype.kind == "i" else "f32") for x in given]
            run = tn.compile(functions(op), *specs)
        return lambda: run(*given)

    return build


def torch(compiled: bool = False) -> Callable[[Op], Step]:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def build(op: Op) -> Step:
        given = [torch.from_numpy(x) for x in op.arrays()]
        if op.kind == "adam":
            parameters = [torch.nn.Parameter(p.clone()) for p in given[0]]
            for p, g in zip(parameters, given[1], strict=True):
                p.grad = g
            optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)  # the fastest of PyTorch's three

            def update() -> Any:
                optimizer.step()
                return parameters[0].detach()[:1000]

            return update
        run = torch.compile(torch_function(op), dynamic=False) if compiled else torch_function(op)
        return lambda: run(*given)

    return build


def torch_function(op: Op) -> Callable[..., Any]:
    import torch
    from torch.nn import functional as F

    window = {k: op.options.get(k, 1) for k in ("stride", "padding", "groups")}
    chain = _chains(torch.exp, torch.log, F.gelu, torch.tanh, torch.sigmoid).get(str(op.options.get("chain")))
    norm = (op.inputs[0].shape[-1],)

    def grad_of(function: Callable[..., Any], g: Any, *inputs: Any) -> Any:
        inputs = tuple(x.detach().requires_grad_() for x in inputs)
        return torch.autograd.grad(function(*inputs), inputs, g)

    kinds: dict[str, Callable[..., Any]] = {
        "matmul": lambda a, b: _turned(a, op.options["left"]) @ _turned(b, op.options["right"]),
        "conv2d": lambda x, w: F.conv2d(x, w, **window),
        "conv2d_input_grad": lambda g, w: torch.nn.grad.conv2d_input(op.result, w, g, **window),
        "conv2d_weight_grad": lambda x, g: torch.nn.grad.conv2d_weight(x, op.result, g, **window),
        "softmax": lambda x: F.softmax(x, -1),
        "softmax_grad": lambda x, g: grad_of(lambda x: F.softmax(x, -1), g, x)[0],
        "cross_entropy": lambda x, t: grad_of(lambda x: F.cross_entropy(x, t), None, x)[0],
        "layer_norm": lambda x, w, b: F.layer_norm(x, norm, w, b),
        "layer_norm_grad": lambda x, w, b, g: grad_of(lambda x, w, b: F.layer_norm(x, norm, w, b), g, x, w, b),
    }
    run = chain or kinds[op.kind]
    return run if op.kind.endswith("_grad") or op.kind == "cross_entropy" else torch.inference_mode()(run)


def jax() -> Callable[[Op], Step]:
    import jax
    import jax.numpy as jnp
    from jax import lax

    def functions(op: Op) -> Callable[..., Any]:
        stride, padding, groups = (op.options.get(k, 1) for k in ("stride", "padding", "groups"))
        chain = _chains(jnp.exp, jnp.log, lambda x: jax.nn.gelu(x, approximate=False), jnp.tanh, jax.nn.sigmoid)

        def conv(x: Any, w: Any) -> Any:
            pads = [(padding, padding)] * 2
            return lax.conv_general_dilated(x, w, (stride, stride), pads, feature_group_count=groups)

        def layer_norm(x: Any, w: Any, b: Any) -> Any:
            mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
            return (x - mean) * lax.rsqrt(var + 1e-5) * w + b

        def loss(x: Any, t: Any) -> Any:
            return -jnp.take_along_axis(jax.nn.log_softmax(x), t[:, None], 1).mean()

        empty = jax.ShapeDtypeStruct(op.result, "float32")
        kinds: dict[str, Callable[..., Any]] = {
            "matmul": lambda a, b: _turned(a, op.options["left"]) @ _turned(b, op.options["right"]),
            "conv2d": conv,
            "conv2d_input_grad": lambda g, w: jax.linear_transpose(lambda x: conv(x, w), empty)(g)[0],
            "conv2d_weight_grad": lambda x, g: jax.linear_transpose(lambda w: conv(x, w), empty)(g)[0],
            "softmax": jax.nn.softmax,
            "softmax_grad": lambda x, g: jax.vjp(jax.nn.softmax, x)[1](g)[0],
            "cross_entropy": jax.grad(loss),
            "layer_norm": layer_norm,
            "layer_norm_grad": lambda x, w, b, g: jax.vjp(layer_norm, x, w, b)[1](g),
        }
        return chain.get(str(op.options.get("chain"))) or kinds[op.kind]

    def adam(p: Any, m: Any, v: Any, t: Any, g: Any) -> Any:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return p - 1e-3 * step, m, v, t + 1

    def build(op: Op) -> Step:
        given = [jnp.asarray(x) for x in op.arrays()]
        if op.kind == "adam":
            run = jax.jit(adam, donate_argnums=(0, 1, 2))
            state = (given[0], jnp.zeros_like(given[0]), jnp.zeros_like(given[0]), jnp.float32(1))

            def update() -> Any:
                nonlocal state
                state = run(*state, given[1])
                return jax.block_until_ready(state)[0][0, :1000]

            return update
        compiled = jax.jit(functions(op))
        return lambda: jax.block_until_ready(compiled(*given))

    return build


def onnxruntime() -> Callable[[Op], Step]:
    import warnings

    import onnxruntime
    import torch

    warnings.simplefilter("ignore")  # of the exporter that needs no further package, which PyTorch calls legacy
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])

    class Module(torch.nn.Module):
        def __init__(self, run: Callable[..., Any]) -> None:
            super().__init__()
            self.run = run

        def forward(self, *given: Any) -> Any:
            return self.run(*given)

    def build(op: Op) -> Step:
        given = op.arrays()
        names = [f"x{i}" for i in range(len(given))]
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            example = tuple(map(torch.from_numpy, given))
            settings: dict[str, Any] = {"dynamo": False, "opset_version": 17, "input_names": names}
            torch.onnx.export(Module(torch_function(op)), example, file.name, **settings)
            session = onnxruntime.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, dict(zip(names, given, strict=True)))[0]

    return build


def forward_only(op: Op) -> bool:
    return not op.kind.endswith("_grad") and op.kind not in ("cross_entropy", "adam")


ENGINES: dict[str, tuple[Callable[[], Callable[[Op], Step]], tuple[str, ...], Callable[[Op], bool]]] = {
    "tenon": (tenon, (), lambda op: True),
    "torch": (torch, ("torch",), lambda op: True),
    "torch.compile": (lambda: torch(compiled=True), ("torch",), lambda op: op.kind != "adam"),
    "jax": (jax, ("jax",), lambda op: True),
    "onnxruntime": (onnxruntime, ("onnxruntime", "onnx", "torch"), forward_only),
}
"""Each with what it needs to be installed, and the operations that it can do."""

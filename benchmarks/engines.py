"""The engines that are measured: each imports what it needs, and gives a function that builds a case's step.

Imports come first because they are not measured. A step returns its loss or its logits as NumPy sees them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.models import CASES, Case, load, weights

Step = Callable[[], Any]
Build = Callable[[], Step]


def tenon_program(case: Case, **options: Any) -> Any:
    """Tenon's executable of a case, for every size of the batch. ``options`` go to the compiler."""
    import tenon as tn

    function, specs = tenon_function(case)
    return tn.compile(function, *specs, level=case.level, **options)


def tenon_function(case: Case) -> tuple[Callable[..., Any], list[Any]]:
    """What Tenon compiles of a case, and the specs of its inputs."""
    import tenon as tn
    from tenon import F, nn, optim

    model = load(case.build(nn, F), lambda x: x)
    specs = [tn.spec("B", *g.shape[1:], dtype="i64" if g.below else "f32") for g in case.inputs]
    if case.target is None:
        return model.eval(), specs
    optimizer = getattr(optim, case.optimizer)(model.parameters(), lr=case.rate)
    classes = case.target.below

    def step(*given):  # type: ignore[no-untyped-def]
        *inputs, target = given
        loss = F.cross_entropy(model(*inputs).reshape(-1, classes), target.reshape(-1))
        optimizer.minimize(loss)
        return loss

    return step, [*specs, tn.spec("B", *case.target.shape[1:], dtype="i64")]


def tenon(case: Case, autotune: bool = False) -> Build:
    import llvmlite.binding  # noqa: F401  # Tenon imports it at the first call; it counts as an import all the same

    import tenon  # noqa: F401

    def build() -> Step:
        program, arrays = tenon_program(case, autotune=autotune), case.arrays()
        return lambda: program(*arrays)

    return build


def torch(case: Case, variant: str = "") -> Build:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def build() -> Step:
        model = load(case.build(torch.nn, F), torch.from_numpy)
        given = [torch.from_numpy(x) for x in case.arrays()]
        if variant == "channels_last":
            model = model.to(memory_format=torch.channels_last)
            given = [x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in given]
        run = torch.compile(model) if variant == "compile" else model
        if case.target is None:
            model.eval()

            def infer() -> Any:
                with torch.inference_mode():
                    return run(*given).numpy()

            return infer
        *inputs, target = given
        target, classes = target.reshape(-1), case.target.below
        optimizer = getattr(torch.optim, case.optimizer)(model.parameters(), lr=case.rate)

        def train() -> float:
            optimizer.zero_grad()
            loss = F.cross_entropy(run(*inputs).reshape(-1, classes), target)
            loss.backward()
            optimizer.step()
            return loss.item()

        return train

    return build


def jax(case: Case) -> Build:
    import jax

    from benchmarks import jax_models
    from tenon import F, nn

    shapes = {name: tuple(w.shape) for name, w in case.build(nn, F).state_dict().items()}  # the names are Tenon's, too

    def build() -> Step:
        model = jax_models.MODELS[case.model]
        values = {name: jax.numpy.asarray(x) for name, x in weights(shapes).items()}
        given = [jax.numpy.asarray(x) for x in case.arrays()]
        if case.target is None:
            infer = jax.jit(lambda values, *inputs: model(values, False, *inputs)[0])
            return lambda: np.asarray(infer(values, *given))
        step = jax.jit(jax_models.train_step(model, case.optimizer, case.rate), donate_argnums=(0, 1))
        state = jax_models.first_state(values) if case.optimizer == "Adam" else ()

        def train() -> float:
            nonlocal values, state
            values, state, loss = step(values, state, *given)
            return float(loss)

        return train

    return build


def tinygrad(case: Case) -> Build:
    os.environ |= {"DEV": "CPU", "NUM_CPU_THREADS": os.environ["OMP_NUM_THREADS"], "CC": str(_command("clang"))}
    import tinygrad

    from benchmarks import tinygrad_models
    from tenon import F, nn

    shapes = {name: tuple(w.shape) for name, w in case.build(nn, F).state_dict().items()}  # the names are Tenon's, too

    def tensor(array: np.ndarray) -> Any:
        return tinygrad.Tensor(array.astype(np.int32) if array.dtype == np.int64 else array).realize()

    def build() -> Step:
        model = tinygrad_models.MODELS[case.model]
        values = {name: tensor(x) for name, x in weights(shapes).items()}
        given = [tensor(x) for x in case.arrays()]
        if case.target is None:
            step = tinygrad_models.infer(model, values)
        else:
            step = tinygrad_models.train_step(model, values, case.optimizer, case.rate)
        return lambda: step(*given).numpy()

    return build


def _command(name: str) -> str | None:
    """The path of an installed program, or of its newest version where names have one, as in ``clang-19``."""
    names = (name, *(f"{name}-{version}" for version in range(30, 13, -1)))
    return next(filter(None, map(shutil.which, names)), None)


def onnxruntime(case: Case) -> Build:
    import onnxruntime

    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "model.onnx")
    subprocess.run([sys.executable, "-m", "benchmarks.engines", case.name, path], check=True)  # not measured
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])

    def build() -> Step:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        folder.cleanup()
        given = dict(zip((x.name for x in session.get_inputs()), case.arrays(), strict=True))
        return lambda: session.run(None, given)[0]

    return build


def export(case: Case, path: str) -> None:
    """Write the case's model for ONNX Runtime, through PyTorch's exporter."""
    import warnings

    import torch

    warnings.simplefilter("ignore")  # of the exporter that needs no further package, which PyTorch calls legacy
    model = load(case.build(torch.nn, torch.nn.functional), torch.from_numpy).eval()
    torch.onnx.export(model, tuple(map(torch.from_numpy, case.arrays())), path, dynamo=False, opset_version=17)


@dataclass(frozen=True)
class Engine:
    """``commands`` are programs that it runs; ``cached``: it keeps what it compiled on disk, so that a first and a
    second start differ."""

    start: Callable[[Case], Build]
    packages: tuple[str, ...]
    supports: Callable[[Case], bool] = lambda case: True
    cached: bool = False
    commands: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        packages = [p for p in self.packages if importlib.util.find_spec(p) is None]
        return packages + [c for c in self.commands if _command(c) is None]


ENGINES = {
    "tenon": Engine(tenon, (), cached=True),
    "tenon.tuned": Engine(lambda case: tenon(case, autotune=True), (), cached=True),
    "torch": Engine(torch, ("torch",)),
    "torch.channels_last": Engine(
        lambda case: torch(case, "channels_last"), ("torch",), lambda case: len(case.inputs[0].shape) == 4
    ),
    "torch.compile": Engine(lambda case: torch(case, "compile"), ("torch",), cached=True),
    "jax": Engine(jax, ("jax",)),
    "onnxruntime": Engine(onnxruntime, ("onnxruntime", "onnx", "torch"), lambda case: case.target is None),
    "tinygrad": Engine(tinygrad, ("tinygrad",), lambda case: case.model != "lstm", cached=True, commands=("clang",)),
}


if __name__ == "__main__":
    export(CASES[sys.argv[1]], sys.argv[2])

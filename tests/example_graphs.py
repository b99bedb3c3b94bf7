"""The graphs of every program that an example compiles: ``python example_graphs.py OUT EXAMPLE [ARGUMENTS]``.

The example runs as it is, save that nothing is compiled and programs give zeros: what it traces is all that is wanted.
Each graph is written to the folder OUT as a dump of its trace.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import runpy
import sys
from pathlib import Path

import numpy as np

from engine import binding, dims
from engine.graph import Graph
from tenon import backends, text


class Zeros:
    """An executor that gives zeros."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def run(self, inputs, out=None):
        ports = binding.ports(self.graph.inputs)
        arrays = binding.arrange(ports, inputs)
        sizes = binding.solve(ports, [a.shape for a in arrays])
        shapes = [tuple(dims.evaluate(s, sizes) for s in v.shape) for v in self.graph.outputs]
        return tuple(np.zeros(shape, v.dtype.numpy) for shape, v in zip(shapes, self.graph.outputs, strict=True))


class Backend:
    in_place = True

    def __init__(self, folder: Path):
        self.folder = folder
        self.numbers = itertools.count()

    def build(self, graph, cells, *_options):
        text.write(graph, self.folder / f"{next(self.numbers):03}.py")
        return backends.Built(Zeros(graph), backends.Origin(), None, dict, lambda sizes: {})

    def rebuild(self, built, cells):
        return built


def main() -> None:
    folder, script = map(Path, sys.argv[1:3])
    backends._BACKENDS["cpu"] = Backend(folder)
    sys.argv = sys.argv[2:]
    # What an example makes of zeros need not make sense: it may well stop there.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception, SystemExit):
        runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()

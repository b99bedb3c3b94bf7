"""Scripts that show again what tn.bisect found, each with all that it needs beside it, and what they run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import interpreter, program_json, text
from engine.dtypes import as_dtype
from engine.graph import Graph
from engine.options import Options
from engine.program import Program
from engine.records import dataclass
from engine.state import Cell
from tenon import backends
from tenon.inspection.comparing import computing_in, worst
from tenon.text import load_arrays, save_arrays, write, write_inputs

if TYPE_CHECKING:
    from tenon.inspection.bisect import Difference

Arrays = Mapping[str, np.ndarray]

_SCRIPT = '''\
"""{title}

{found}
"""

import sys

from tenon.inspection import reproduce

sys.exit(reproduce.{call})
'''


def _write_script(folder: Path, difference: Difference, call: str) -> Path:
    kind = f"The {difference.kind} {difference.name}"
    path = folder / "reproduce.py"
    found = str(difference).replace("\\", "\\\\").replace('"""', "'''")
    path.write_text(_SCRIPT.format(title=f"{kind} parts from the reference.", found=found, call=call), encoding="utf-8")
    return path


def _report(found: Arrays, expected: Arrays, near: Arrays, what: str) -> int:
    """Print the worst element of each result that differs; 1 where one does."""
    wrong = {n: w for n, a in expected.items() if (w := worst(found[n], a, near.get(n))) is not None}
    for name, bad in wrong.items():
        print(f"{what} parts from the reference at {name}{bad}")
    if not wrong:
        print(f"{what} agrees with the reference")
    return int(bool(wrong))


# --- passes ------------------------------------------------------------------------------------------------


def write_pass(
    folder: Path,
    difference: Difference,
    before: Graph,
    after: Graph,
    given: tuple[Arrays, Arrays],
    at: tuple[str, Options],
    target: str = "cpu",
) -> Path:
    """The graphs before and after a pass (its name and the options), with the inputs and the state that they ran on."""
    write(before, folder / "before.py", f'before the pass "{at[0]}"')
    write(after, folder / "after.py", f'after the pass "{at[0]}"')
    write_inputs(folder, *given)
    return _write_script(
        folder,
        difference,
        f'run_pass(__file__, "{at[0]}", level={at[1].level}, precision="{at[1].precision}", target="{target}")',
    )


def run_pass(script: str, name: str, level: int, precision: str = "f32", target: str = "cpu") -> int:
    """Run the graphs beside ``script``, and what the pass makes now of the first. Returns 1 if the saved ones part."""
    with computing_in(as_dtype(precision)):
        return _run_pass(Path(script).parent, name, Options(level, as_dtype(precision)), target)


def _run_pass(folder: Path, name: str, options: Options, target: str) -> int:
    from passes.pipeline import graph_passes

    before, after = (_parsed(folder / f"{n}.py") for n in ("before", "after"))
    saved = load_arrays(folder / "inputs.npz")
    expected, near = _graph_results(before, saved), dict[str, np.ndarray]()
    status = 0
    if name != "schedule":
        status = _report(_graph_results(after, saved), expected, near, f"the graph after {name}, as it was saved,")
    passes = dict(graph_passes(backends.compiling(target).target(options), options))
    base = name.rsplit("-", 1)[0] if name not in passes else name
    if name == "schedule":
        return _report(_scheduled(before, saved), expected, near, "the schedule, as it is made now,")
    if base in passes:
        _report(_graph_results(passes[base](before), saved), expected, near, f"what {name} makes of it now")
    return status


def _parsed(path: Path) -> Graph:
    return text.parse(path.read_text(encoding="utf-8"), load_arrays(path.with_suffix(".npz")))


def _given(graph: Graph, saved: Arrays) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    inputs, state = (
        {v.node.attrs["name"]: saved[f"{v.node.op.name}:{v.node.attrs['name']}"] for v in ports}
        for ports in (graph.inputs, graph.state)
    )
    return inputs, state


def _graph_results(graph: Graph, saved: Arrays) -> dict[str, np.ndarray]:
    from passes.autodiff import expand_gradients

    outputs, after = interpreter.run(expand_gradients(graph), *_given(graph, saved))
    found = {f"output {i}": a for i, a in enumerate(outputs)}
    return found | {f"state {n}": after[n] for n in graph.updates}


def _scheduled(graph: Graph, saved: Arrays) -> dict[str, np.ndarray]:
    from engine import scheduled
    from passes.schedule import schedule
    from tenon.inspection.one_kernel import results_of, schedule_memory

    inputs, state = _given(graph, saved)
    _, sizes = interpreter.bind(graph, inputs, state)
    plan = schedule(graph)
    memory = schedule_memory(graph, plan, sizes, inputs, state)
    scheduled.run(plan, memory)
    return results_of(graph, memory)


# --- programs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Saved:
    """A program, what it is run on, and its results: ``expected``, and as they are of inputs moved a little."""

    program: Program
    inputs: Arrays
    state: Arrays
    expected: Arrays
    near: Arrays
    target: str = "cpu"


def run_saved(saved: Saved) -> dict[str, np.ndarray]:
    """Run the program; gives its outputs and the state that it updates."""
    program = saved.program
    cells = {p.name: Cell(saved.state[p.name], p.dtype, p.order) for p in program.state}
    executor, _ = backends.compiling(saved.target).executor(program, cells)
    outputs = executor.run(dict(saved.inputs))
    found = {f"output {i}": a for i, a in enumerate(outputs)}
    return found | {f"state {n}": cells[n].array for n in program.updates}


def write_program(folder: Path, difference: Difference, saved: Saved) -> Path:
    """A compiled program as it is, the sources of its kernels to read, and arrays before and after."""
    (folder / "program.json").write_text(program_json.to_json(saved.program), encoding="utf-8")
    kernels = folder / "kernels"
    kernels.mkdir()
    for kernel in saved.program.kernels:
        (kernels / f"{kernel.name}-{kernel.key[:8]}.py").write_text(kernel.source, encoding="utf-8")
    write_inputs(folder, saved.inputs, saved.state)
    save_arrays(folder / "expected.npz", dict(saved.expected))
    save_arrays(folder / "near.npz", dict(saved.near))
    return _write_script(folder, difference, f'run_program(__file__, "{saved.target}")')


def run_program(script: str, target: str = "cpu") -> int:
    """Run the program beside ``script`` on ``target``. Returns 1 where it parts from what is expected."""
    folder = Path(script).parent
    program = program_json.from_json((folder / "program.json").read_text(encoding="utf-8"))
    arrays = load_arrays(folder / "inputs.npz")
    inputs, state = (
        {n.removeprefix(kind): a for n, a in arrays.items() if n.startswith(kind)} for kind in ("input:", "state:")
    )
    expected, near = (load_arrays(folder / f"{n}.npz") for n in ("expected", "near"))
    found = run_saved(Saved(program, inputs, state, expected, near, target))
    return _report(found, expected, near, program.name)

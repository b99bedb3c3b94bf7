"""Writing everything that there is to read about an executable into a folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import binding
from engine.errors import TenonError
from engine.graph import Graph
from engine.program import Program
from engine.schedule import Schedule
from tenon import backends, text
from tenon.inspection import listings, viewer
from tenon.inspection.diff import of_stages
from tenon.inspection.profiling import is_native
from tenon.text_format import plural

if TYPE_CHECKING:
    from tenon.executable import Executable

_MARK = ".tenon-dump"
"""A file that says that a folder is a dump, and may be replaced by another."""

_UNSAID = 64
"""The size of every dim that no inputs settle, in what a dump says of memory."""

_CALLS = 10
"""From how many calls on the given inputs a dump takes its times."""


def dump(executable: Executable, folder: Path, inputs: Sequence[Any] = ()) -> Path:
    """Write the dump into a new folder beside ``folder`` and move it there. Returns ``folder``.

    Raises TenonError where ``folder`` exists and is not an older dump, and what the inputs' checks raise.
    """
    if folder.exists() and not (folder / _MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise TenonError(f"{folder} exists and is no dump of Tenon's; give dump an empty or a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(executable, new, inputs)
        new.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder


def _write(executable: Executable, folder: Path, inputs: Sequence[Any]) -> None:
    (folder / _MARK).write_text(f"{executable!r}\n", encoding="utf-8")
    changes = of_stages(list(executable.stages.items()))
    code: dict[str, dict[str, str]] = {}
    for number, (name, stage) in enumerate(executable.stages.items()):
        if isinstance(stage, Graph):
            what = f'after pass "{name}"' if number else "as traced"
            title = f"{number:02}-{name}.py: {executable.name} {what}, "
            if name in changes:
                title += changes[name].summary
                _save(folder / f"{number:02}-{name}.diff", f"{changes[name]}\n")
            else:
                title += plural(len(stage.nodes), "node")
            text.write(stage, folder / f"{number:02}-{name}.py", title)
        elif isinstance(stage, Schedule):
            _save(folder / "schedule.txt", listings.schedule_text(stage))
        elif isinstance(stage, Program):
            code = _write_program(stage, folder, executable.target)
    profile = None
    if inputs:
        ports = binding.ports(executable.graph.inputs)
        arrays = binding.arrange(ports, inputs)
        sizes = binding.solve(ports, [a.shape for a in arrays])
        state = {n: np.array(c.array) for n, c in executable.cells.items()}
        text.write_inputs(folder, dict(zip((p.name for p in ports), arrays, strict=True)), state)
        if is_native(executable):
            profile = executable.profile(*arrays, repeats=_CALLS)
    else:
        sizes = dict.fromkeys(executable.graph.dims(), _UNSAID)
    _save(folder / "report.txt", f"{executable.report}\n")
    if executable.tuning is not None:
        _save(folder / "tuning.txt", listings.tuning_text(executable.tuning))
    if executable.has_program:
        _write_memory(executable, folder, sizes)
    record = viewer.record(executable, sizes, profile)
    _save(folder / "index.html", viewer.page(record, code))
    drawn = viewer.picture(record)
    _save(folder / "graph.svg", viewer.to_svg(drawn))
    _save(folder / "graph.dot", viewer.to_dot(drawn))


def _write_program(program: Program, folder: Path, target: str) -> dict[str, dict[str, str]]:
    """Write the program, and what each kernel is compiled from and to; returns the latter by kernel and suffix."""
    backend = backends.compiling(target)
    _save(folder / "program.txt", listings.program_text(program))
    (folder / "kernels").mkdir()
    names = listings.kernel_names(program)
    code = {names[kernel.key]: backend.inspect(kernel) for kernel in program.kernels}
    for name, texts in code.items():
        for suffix, content in texts.items():
            _save(folder / "kernels" / f"{name}{suffix}", content)
    return code


def _write_memory(executable: Executable, folder: Path, sizes: Mapping[str, int]) -> None:
    from engine.memory import Sizes, plan

    program = executable.program
    found = plan(program, Sizes(sizes))
    at = ", ".join(f"{n}={v}" for n, v in sizes.items()) or "no dims"
    timeline = listings.arena_text(program, found.nbytes, found.offsets, found.arena)
    _save(folder / "memory.txt", f"{at}\n\n{executable.memory(**sizes)}\n\n{timeline}")


def _save(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")

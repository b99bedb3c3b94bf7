"""``tn.bisect``: the first pass or kernel of a program whose numbers part from the NumPy reference."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import SourceLocation
from engine.records import dataclass
from tenon import executable as executables
from tenon.executable import Executable, unused_folder
from tenon.inspection.comparing import Worst


@dataclass(frozen=True)
class Difference:
    """Where a program parts from the reference.

    ``kind`` is ``pass``, ``kernel`` or ``program``; ``name`` the pass (``schedule`` among them) or the kernel.
    ``value`` is what is wrong, ``worst`` its worst element, ``rules`` the rewrite rules that made it, ``turns`` the
    turns of the loops around. ``location`` is the user's line, ``lines`` all that are fused in the kernel.
    ``reproducer`` is the script that shows it again.
    """

    kind: str
    name: str
    value: str
    worst: Worst
    location: SourceLocation | None
    rules: tuple[str, ...] = ()
    op: str = ""
    turns: tuple[int, ...] = ()
    note: str = ""
    lines: tuple[SourceLocation, ...] = ()
    reproducer: Path | None = None

    def __str__(self) -> str:
        what = f"the {self.kind} {self.name}" if self.kind != "program" else "the program as a whole"
        lines = [f"{what} parts from the reference at {self.value}{self.worst}"]
        if self.op:
            lines.append(f"  computed by {self.op}")
        if self.rules:
            lines.append(f"  made by the rule {', then '.join(map(repr, self.rules))}")
        if self.turns:
            lines.append(f"  in turn {', '.join(map(str, self.turns))} of its loop")
        if self.note:
            lines.append(f"  {self.note}")
        lines.append(f"  from {self.location or 'no line known'}")
        if len(self.lines) > 1:
            lines.append(f"  fused with {', '.join(str(line) for line in self.lines if line != self.location)}")
        if self.reproducer:
            lines.append(f"  shown again by: python {self.reproducer}")
        return "\n".join(lines)


def bisect(
    executable: Executable, *inputs: Any, folder: str | os.PathLike[str] | None = "tenon-bisect"
) -> Difference | None:
    """The first pass or kernel that parts from the reference on these inputs and the state as it is; None where the
    program agrees with it. State stays as it is.

    A difference counts where it is more than rounding explains (see comparing.py). The reference is the trace, or what
    the pass ``precision`` made of it, which rounds on purpose; gradients are taken from it as the pass ``autodiff``
    expands them. A script that shows the difference again, with what it needs, is
    written to a new folder inside of ``folder``, unless that is None. Raises what the inputs' checks raise.
    """
    from tenon.inspection.bisecting import Search
    from tenon.inspection.comparing import computing_in

    with computing_in(executable.options.precision):
        found = Search(executable, inputs).run()
    if found is None or folder is None:
        return found[0] if found else None
    difference, write = found
    target = unused_folder(Path(folder), executable.name)
    target.mkdir(parents=True)
    return replace(difference, reproducer=write(target, difference))


@contextmanager
def at_first_calls(folder: Path, tell: Callable[[str, Difference | None], None]) -> Iterator[None]:
    """Bisect every program that is compiled inside, on the inputs and the state of its first call, before that runs;
    ``tell(name, found)`` learns what came of it."""

    def watch(executable: Executable) -> None:
        run = executable._run

        def first(inputs: Any, out: Any = None) -> Any:
            executable._run = run
            names = [v.node.attrs["name"] for v in executable.graph.inputs]
            given = [inputs[n] for n in names] if isinstance(inputs, dict) and inputs.keys() == set(names) else inputs
            tell(executable.name, bisect(executable, *given, folder=folder))
            return executable._run(inputs, out)

        executable._run = first

    executables.on_created.append(watch)
    try:
        yield
    finally:
        executables.on_created.remove(watch)

"""How much memory a program takes, told from its plan alone, and how much it may take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from engine import dims
from engine.dims import Shape
from engine.errors import ShapeError, TenonError, UnsupportedError
from engine.graph import Graph
from engine.memory import MemoryLimit
from engine.program import Program
from engine.records import dataclass
from tenon.text_format import bytes_text, table


@dataclass(frozen=True)
class MemoryUse:
    """Bytes by class: ``state`` (parameters, moments, running statistics, shared with other programs), ``constants``,
    ``arena`` (all temporaries, by the memory plan), ``packed`` (weights in the kernels' layout),
    ``inputs`` and ``outputs`` (the caller's arrays), ``scratch`` (private to the threads)."""

    state: int
    constants: int
    arena: int
    packed: int
    inputs: int
    outputs: int
    scratch: int

    @classmethod
    def of(cls, kinds: Mapping[str, int]) -> MemoryUse:
        """From bytes by kind of buffer, as a runtime counts them."""
        return cls(
            state=kinds["state"],
            constants=kinds["const"],
            arena=kinds["temp"],
            packed=kinds["packed"],
            inputs=kinds["input"],
            outputs=kinds["output"],
            scratch=kinds["scratch"],
        )

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def __str__(self) -> str:
        rows = [(name, f"{count:,}", bytes_text(count)) for name, count in asdict(self).items()]
        return table([*rows, ("total", f"{self.total:,}", bytes_text(self.total))])


def program_dims(program: Program) -> list[str]:
    """The names of the dims in the inputs' shapes, in order of appearance."""
    return _names(port.shape for port in program.inputs)


def _names(shapes: Iterable[Shape]) -> list[str]:
    return list(dict.fromkeys(name for shape in shapes for size in shape for name in sorted(dims.names(size))))


_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def bytes_of(given: int | str) -> int:
    """A number of bytes, or a text such as ``"200 MB"`` or ``"1.5GiB"``, as bytes. Raises TenonError."""
    if isinstance(given, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", given)
        if found and found[2].upper() in _UNITS:
            return int(float(found[1]) * _UNITS[found[2].upper()])
    elif isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return given
    raise TenonError(f'memory_limit is {given!r}; expected bytes, or a text such as "200 MB" or "1.5 GiB"')


def limit_at(graph: Graph, nbytes: int, sizes: Mapping[str, int], target: str) -> MemoryLimit:
    """The limit of ``nbytes`` for the program of ``graph`` at these sizes of its dims. Raises ShapeError."""
    if target == "reference":
        raise UnsupportedError('memory_limit needs a target whose memory is planned, such as "cpu", not "reference"')
    known = _names(v.shape for v in (*graph.inputs, *graph.state))
    check_known(graph.name, known, sizes)
    missing = [n for n in known if n not in sizes]
    if missing:
        example = ", ".join(f'"{n}": 64' for n in missing)
        raise ShapeError(
            f"how much memory {graph.name} takes depends on {', '.join(missing)}: "
            f"memory_limit needs memory_at={{{example}}}, the sizes for which it shall hold"
        )
    return MemoryLimit(nbytes, dict(sizes))


def check_sizes(program: Program, sizes: Mapping[str, int]) -> None:
    """Raise ShapeError unless ``sizes`` gives each of the program's dims, and no other, a size."""
    check_dims(program.name, program_dims(program), sizes, "memory")


def check_dims(title: str, known: Sequence[str], sizes: Mapping[str, int], call: str) -> None:
    """Raise ShapeError unless ``sizes``, given to the function ``call``, has each of the dims ``known`` of the program
    ``title``, and no other."""
    check_known(title, known, sizes)
    missing = [n for n in known if n not in sizes]
    if missing:
        raise ShapeError(
            f"{title} needs the size of {', '.join(missing)}: {call}({', '.join(f'{n}=64' for n in missing)})"
        )


def check_known(program: str, known: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Raise ShapeError unless all ``sizes`` are of dims that are known, and fit to be sizes."""
    for name, value in sizes.items():
        if name not in known:
            raise ShapeError(f"{program} has no dim {name!r}; its dims are: {', '.join(known) or 'none'}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ShapeError(f"the dim {name} is {value!r}; a size of at least 0 was expected")

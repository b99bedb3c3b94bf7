"""How much memory a program takes, told from its plan alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from engine import dims
from engine.errors import ShapeError
from engine.program import Program
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
    found: dict[str, None] = {}
    for port in program.inputs:
        for size in port.shape:
            found.update(dict.fromkeys(sorted(dims.names(size))))
    return list(found)


def check_sizes(program: Program, sizes: Mapping[str, int]) -> None:
    """Raise ShapeError unless ``sizes`` gives each of the program's dims, and no other, a size."""
    check_dims(program.name, program_dims(program), sizes, "memory")


def check_dims(title: str, known: Sequence[str], sizes: Mapping[str, int], call: str) -> None:
    """Raise ShapeError unless ``sizes``, given to the function ``call``, has each of the dims ``known`` of the program
    ``title``, and no other."""
    for name, value in sizes.items():
        if name not in known:
            raise ShapeError(f"{title} has no dim {name!r}; its dims are: {', '.join(known) or 'none'}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ShapeError(f"the dim {name} is {value!r}; a size of at least 0 was expected")
    missing = [n for n in known if n not in sizes]
    if missing:
        raise ShapeError(
            f"{title} needs the size of {', '.join(missing)}: {call}({', '.join(f'{n}=64' for n in missing)})"
        )

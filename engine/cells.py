"""What recurrent cells compute at one step for one hidden unit, as scalar expressions.

References, graphs and kernels are all made from these. ``x0, x1 ...`` are a unit's inputs at the step, one a gate,
``z0, z1 ...`` what the recurrent weights make of the state before, ``h`` and ``c`` the state before, ``h_next`` and
``c_next`` the state after, ``bias0, bias1 ...`` recurrent biases. Going backward, ``dh`` and ``dc`` are the
gradients of the state after, ``dx0 ...`` those of the inputs, ``dz0 ...`` those of the recurrent products (where they
differ), ``dc_before`` that of the cell before, and ``dh_direct`` what reaches ``h`` without passing the weights.

Sources: Elman (1990), "Finding structure in time"; Hochreiter and Schmidhuber (1997), "Long short-term memory", with
the forget gate of Gers et al. (2000); Cho et al. (2014), "Learning phrase representations using RNN encoder-decoder".
The order of gates is PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from engine import scalar
from engine.records import dataclass

T = TypeVar("T")
Lines = tuple[tuple[str, str], ...]
"""Names and their expressions, in order; a later one may use an earlier name."""


@dataclass(frozen=True, repr=False)
class Cell:
    """A kind of recurrence of ``gates`` gates. ``memory``: it has a state ``c`` beside ``h``; ``biased``: the biases of
    the recurrent products are not those of the inputs. ``saved`` names the values of ``forward`` that ``backward``
    needs; ``again`` gives ``h_next`` from these and ``c_next``."""

    name: str
    gates: int
    forward: Lines
    backward: Lines
    saved: tuple[str, ...] = ()
    memory: bool = False
    biased: bool = False
    again: str = ""

    def __repr__(self) -> str:
        return self.name

    @property
    def apart(self) -> bool:
        """Whether the gradients of the recurrent products are not those of the inputs."""
        return any(name == "dz0" for name, _ in self.backward)

    @property
    def direct(self) -> bool:
        """Whether gradient reaches ``h`` without passing the weights."""
        return any(name == "dh_direct" for name, _ in self.backward)


def evaluate(lines: Lines, known: Mapping[str, T], value: Callable[[str, Mapping[str, T]], T]) -> dict[str, T]:
    """Every name of ``lines``; ``value`` evaluates an expression."""
    found = dict(known)
    for name, expression in lines:
        found[name] = value(expression, {k: found[k] for k in names_in(expression)})
    return found


def names_in(*expressions: str) -> tuple[str, ...]:
    """The parameters of the expressions."""
    args = [a for e in expressions for line in scalar.instructions(e) for a in line.args]
    return tuple(dict.fromkeys(a for a in args if isinstance(a, str) and not a.startswith("_")))


def needed(lines: Lines) -> tuple[str, ...]:
    """What ``lines`` take from outside."""
    made = {name for name, _ in lines}
    return tuple(n for n in names_in(*(e for _, e in lines)) if n not in made)


CELLS = {
    cell.name: cell
    for cell in (
        Cell("rnn_tanh", 1, (("h_next", "tanh(x0 + z0)"),), (("dx0", "dh * (1 - h_next * h_next)"),)),
        Cell("rnn_relu", 1, (("h_next", "maximum(x0 + z0, 0)"),), (("dx0", "where(h_next > 0, dh, 0)"),)),
        Cell(
            "lstm",
            4,
            (
                ("i", "sigmoid(x0 + z0)"),
                ("f", "sigmoid(x1 + z1)"),
                ("g", "tanh(x2 + z2)"),
                ("o", "sigmoid(x3 + z3)"),
                ("c_next", "f * c + i * g"),
                ("h_next", "o * tanh(c_next)"),
            ),
            (
                ("s", "tanh(c_next)"),
                ("d", "dc + dh * o * (1 - s * s)"),
                ("dx0", "d * g * i * (1 - i)"),
                ("dx1", "d * c * f * (1 - f)"),
                ("dx2", "d * i * (1 - g * g)"),
                ("dx3", "dh * s * o * (1 - o)"),
                ("dc_before", "d * f"),
            ),
            saved=("i", "f", "g", "o"),
            memory=True,
            again="o * tanh(c_next)",
        ),
        Cell(
            "gru",
            3,
            (
                ("r", "sigmoid(x0 + z0 + bias0)"),
                ("u", "sigmoid(x1 + z1 + bias1)"),
                ("m", "z2 + bias2"),
                ("n", "tanh(x2 + r * m)"),
                ("h_next", "n + u * (h - n)"),
            ),
            (
                ("dx2", "dh * (1 - u) * (1 - n * n)"),
                ("dx1", "dh * (h - n) * u * (1 - u)"),
                ("dx0", "dx2 * m * r * (1 - r)"),
                ("dz0", "dx0 + 0"),
                ("dz1", "dx1 + 0"),
                ("dz2", "dx2 * r"),
                ("dh_direct", "dh * u"),
            ),
            saved=("r", "u", "m", "n"),
            biased=True,
        ),
    )
}

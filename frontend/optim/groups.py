"""Parameter groups: parameters that share options, and a learning rate that can change without compiling again."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy as np

from engine import dtypes
from engine.errors import TenonError
from engine.state import Cell
from frontend.nn.parameter import Parameter


class ParameterGroup(MutableMapping[str, Any]):
    """A mapping of "params", "lr" and the optimizer's other options.

    "lr" is state (an f64 scalar): assigning it takes effect at the next call of a compiled step. The others are
    constants of the step: once a step has been traced, assigning them raises TenonError.
    """

    def __init__(self, params: list[Parameter], lr: float, options: dict[str, Any]):
        self._options = {"params": params, **options}
        self.lr_cell = Cell(np.zeros(()), dtypes.f64)
        self.traced = False
        self.initial_lr = float(lr)
        """What schedules start from: the rate that the group was made with."""
        self["lr"] = lr

    @property
    def params(self) -> list[Parameter]:
        return self._options["params"]

    def __getitem__(self, key: str) -> Any:
        return float(self.lr_cell.array) if key == "lr" else self._options[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "lr":
            if not float(value) >= 0:
                raise TenonError(f"a learning rate is at least 0, not {value}")
            self.lr_cell.write(np.asarray(value, np.float64))
        elif key not in self._options:
            raise TenonError(f"a parameter group has no option {key!r}; it has {', '.join(self)}")
        elif self.traced:
            raise TenonError(
                f"{key!r} is a constant of the training step that was traced with {self._options[key]!r:.60}; "
                "only lr can change afterwards. Make a new optimizer, and a new step from it"
            )
        else:
            self._options[key] = value

    def __delitem__(self, key: str) -> None:
        raise TenonError(f"the option {key!r} cannot be removed from a parameter group")

    def __iter__(self) -> Iterator[str]:
        return iter(("params", "lr", *(k for k in self._options if k != "params")))

    def __len__(self) -> int:
        return len(self._options) + 1

    def __repr__(self) -> str:
        options = "".join(f", {k}={v!r}" for k, v in self.items() if k != "params")
        return f"ParameterGroup({len(self.params)} parameters{options})"

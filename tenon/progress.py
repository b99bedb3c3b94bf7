"""The progress bar of training."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class Progress:
    """One bar that counts samples, with the latest numbers, samples a second and the time left; silent unless
    ``enabled``, and where standard error is no terminal."""

    def __init__(self, title: str, total: int | None, enabled: bool = True):
        self._bar: Any = None
        if enabled and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=title, unit=" samples", mininterval=0.2, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def shown(self) -> bool:
        return self._bar is not None

    def advance(self, samples: int, logs: Mapping[str, float]) -> None:
        """``samples`` more are done, with these means so far."""
        if self._bar is not None:
            self._bar.set_postfix_str(text_of(logs), refresh=False)
            self._bar.update(samples)

    def finish(self, logs: Mapping[str, float]) -> None:
        """Show the final numbers."""
        if self._bar is not None:
            self._bar.set_postfix_str(text_of(logs))


def text_of(logs: Mapping[str, float]) -> str:
    """The numbers by name, in a line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in logs.items())

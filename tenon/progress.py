"""The progress bar of training, and of whatever else takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

FORMAT = "{desc} {percentage:3.0f}%|{bar:10}| {n}/{total} [{remaining} left, {rate_fmt}{postfix}]"
UNKNOWN = "{desc} {n} [{elapsed}, {rate_fmt}{postfix}]"  # where nobody knows how many samples there are


class Progress:
    """One bar that counts samples, or another ``unit``, with the latest numbers, samples a second and the time left; at
    the end a line with all numbers stands in its place. Silent unless ``enabled``, and where standard error is no
    terminal."""

    def __init__(self, title: str, total: int | None, enabled: bool = True, unit: str = "samples"):
        self._bar: Any = None
        self._begin = self._latest = time.perf_counter()
        if enabled and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=title, unit=f" {unit}", unit_scale=True, mininterval=0.2, dynamic_ncols=True,
                leave=False, bar_format=FORMAT if total else UNKNOWN,
            )  # fmt: skip

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
            self._latest = time.perf_counter()

    def finish(self, logs: Mapping[str, float]) -> None:
        """All samples are done: leave the final numbers."""
        if self._bar is not None:
            seconds = time.perf_counter() - self._begin  # validation included, other than in the speed
            speed = f"{self._bar.n / max(self._latest - self._begin, 1e-9):,.0f} samples/s"
            self._bar.write(f"{self._bar.desc}: {text_of(logs)} ({seconds:.1f} s, {speed})", file=sys.stderr)


def text_of(logs: Mapping[str, float]) -> str:
    """The numbers by name, in a line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in logs.items())

"""What users can set: by an environment variable for a process, by ``tn.config`` for a while.

Each setting is one record. A variable ``TENON_...`` that is none of them, or a value that makes no sense, is an error
that lists what is known: a typing mistake is never taken for silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any

from engine.errors import TenonError
from engine.records import dataclass

PREFIX = "TENON_"


@dataclass(frozen=True)
class Setting:
    """One setting. ``parse`` makes its value of the variable's text and raises ValueError; ``expected`` says in words
    what that takes. An empty or missing variable gives ``default``."""

    name: str
    expected: str
    parse: Callable[[str], Any]
    default: Any

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    def value(self, text: str, said: str) -> Any:
        """The value of ``text``, which ``said`` names in an error."""
        if not text:
            return self.default
        try:
            return self.parse(text)
        except ValueError:
            raise TenonError(f"{said} is {text!r}; expected {self.expected}") from None


def _one_of(**values: Any) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if text not in values:
            raise ValueError
        return values[text]

    return parse


def _switch(name: str, default: bool) -> Setting:
    return Setting(name, "0 or 1", _one_of(**{"0": False, "1": True}), default)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError
    return int(text)


EXACTNESS = ("highest", "high", "medium")
"""How exact products of float32 may be on tensor cores."""


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("dump", "a folder", str, None),
        _switch("profile", False),
        _switch("verify", False),
        Setting("opt", "0, 1, 2 or 3", _one_of(**{str(level): level for level in range(4)}), 2),
        _switch("autotune", False),
        Setting("cache", "a folder, or 0 for none", lambda text: False if text == "0" else text, None),
        _switch("jit", True),
        Setting("threads", "a whole number of at least 1", _count, None),
        Setting("threading", "'openmp' or 'python'", _one_of(openmp="openmp", python="python"), "openmp"),
        Setting("float32_matmul_precision", _listed(EXACTNESS), _one_of(**{e: e for e in EXACTNESS}), "highest"),
    )
}

_overrides: ContextVar[dict[str, Any] | None] = ContextVar("tenon_config", default=None)


def get(name: str) -> Any:
    """The value that holds now: the innermost :class:`config`'s, else the environment's, else the default.

    Raises TenonError for a variable's value that makes no sense.
    """
    inner = _overrides.get()
    if inner is not None and name in inner:
        return inner[name]
    setting = SETTINGS[name]
    return setting.value(os.environ.get(setting.variable, ""), setting.variable)


def assign(name: str, given: Any) -> None:
    """Let a setting hold for the process, and those that it starts, from now on: by its variable."""
    os.environ[SETTINGS[name].variable] = _text(given)


def check_environment() -> None:
    """Raise TenonError for a variable ``TENON_...`` that is no setting, or whose value makes no sense."""
    known = {s.variable: s for s in SETTINGS.values()}
    for variable, text in os.environ.items():
        if variable.startswith(PREFIX):
            if variable not in known:
                raise _unknown(variable, list(known), "environment variable")
            known[variable].value(text, variable)


def _unknown(name: str, known: list[str], kind: str) -> TenonError:
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {close[0]}?" if close else "."
    return TenonError(f"Tenon knows no {kind} {name}{hint} The known ones: {', '.join(sorted(known))}")


def _text(given: Any) -> str:
    """A Python value as the variable would spell it."""
    if given is None:
        return ""
    if isinstance(given, bool):
        return str(int(given))
    return os.fspath(given) if isinstance(given, os.PathLike) else str(given)


class config(ContextDecorator):
    """Settings for a while, by the variables' names in lower case without ``TENON_``::

        with tn.config(opt=0, verify=True, dump="out"):
            exe = tn.compile(model, tn.spec("B", 784))

    It holds for the thread that enters it, for what is compiled and made ready inside; also as a decorator of a
    function. ``None`` stands for the default, whatever the environment says. Raises TenonError for an unknown name or
    a value that makes no sense.
    """

    def __init__(self, **settings: Any):
        self._values: dict[str, Any] = {}
        self._tokens: list[Token[dict[str, Any] | None]] = []
        for name, given in settings.items():
            if name not in SETTINGS:
                raise _unknown(name, list(SETTINGS), "setting")
            self._values[name] = SETTINGS[name].value(_text(given), f"the setting {name}")

    def __enter__(self) -> config:
        self._tokens.append(_overrides.set({**(_overrides.get() or {}), **self._values}))
        return self

    def __exit__(self, *exc: object) -> None:
        _overrides.reset(self._tokens.pop())

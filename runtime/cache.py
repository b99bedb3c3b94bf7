"""The compile cache: object code and programs on disk, trusted only where every byte is as it was written.

One folder, private to its owner, with one file an entry. A file's name is the hash of what was compiled and the hash
of the environment it was compiled in (processor, versions, Tenon's code), so a miss can be explained by what is
there for the same thing. Programs are JSON; nothing here is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import struct
import sys
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache as once
from pathlib import Path

from engine import settings, tuning
from engine.errors import CacheError, TextError
from engine.program import Program
from engine.program_json import from_json, to_json
from engine.records import dataclass
from engine.tuning import Tuned
from runtime.fingerprint import cpu_environment, cuda_environment, program_environment

_MAGIC = b"TENONCCH"
_FORMAT = 1
_HEAD = struct.Struct("<8sII32s")  # magic, format, length of the header, sha256 of header and payload
_REMEMBERED = 1000
"""Lookups that ``explain`` can tell of."""
_MOST_ENTRIES = 10_000
"""Of each kind; beyond it the quarter that has gone unused longest is deleted."""
OBJECT, CUBIN, PROGRAM, TUNING = "object", "cubin", "program", "tuning"
_KINDS = (OBJECT, CUBIN, PROGRAM, TUNING)
Environment = Mapping[str, str]


@dataclass(frozen=True)
class Lookup:
    """One question to the cache: ``outcome`` is ``hit``, ``absent``, ``damaged: ...`` or ``disabled: ...``."""

    kind: str
    label: str
    identity: str
    outcome: str


def digest(*parts: str) -> str:
    """sha256 over strings, each with its length, so that no two lists of parts give the same text."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode()
        sha.update(b"%d:" % len(data))
        sha.update(data)
    return sha.hexdigest()


def environment_digest(environment: Environment) -> str:
    return digest(*(text for item in sorted(environment.items()) for text in item))


class Cache:
    """The entries in ``folder``; with ``folder`` None nothing is kept and ``reason`` says why.

    Raises CacheError where the folder belongs to another user or others may write to it, OSError where it cannot be
    created.
    """

    def __init__(self, folder: Path | None, reason: str = ""):
        self.folder = folder
        self.reason = reason
        self.lookups: deque[Lookup] = deque(maxlen=_REMEMBERED)
        self._pruned: set[str] = set()
        if folder is not None:
            make_private(folder)
            for kind in _KINDS:
                make_private(folder / kind)

    # --- entries -------------------------------------------------------------------------------------------

    def load(self, kind: str, identity: str, environment: Environment, label: str) -> bytes | None:
        """The payload stored for ``identity`` (a sha256 in hex) in ``environment``, or None."""
        payload, outcome = self._read(kind, identity, environment)
        self.lookups.append(Lookup(kind, label, identity, outcome))
        return payload

    def _read(self, kind: str, identity: str, environment: Environment) -> tuple[bytes | None, str]:
        if self.folder is None:
            return None, f"disabled: {self.reason}"
        path = self._path(kind, identity, environment)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None, "absent"
        except OSError as error:
            return None, f"damaged: {error.strerror}"
        try:
            header, payload = _unpack(data)
        except ValueError as error:
            return None, f"damaged: {error}"
        if header != _header(kind, identity, environment):
            return None, "damaged: it holds the entry of another key"
        with contextlib.suppress(OSError):
            os.utime(path)  # pruning goes by it
        return payload, "hit"

    def store(self, kind: str, identity: str, environment: Environment, payload: bytes) -> None:
        """Keep ``payload``. A full or read-only disk is no error: the cache is then just not filled."""
        if self.folder is None:
            return
        path = self._path(kind, identity, environment)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            with open(temporary, "xb") as file:
                file.write(_pack(_header(kind, identity, environment), payload))
            os.replace(temporary, path)
        except OSError as error:
            self.reason = f"could not write {path}: {error.strerror}"
            with contextlib.suppress(OSError):
                temporary.unlink()
        self._prune(kind)

    def _prune(self, kind: str) -> None:
        """Keep the number of entries in bounds; looked after once in a process."""
        if kind in self._pruned:
            return
        self._pruned.add(kind)
        with contextlib.suppress(OSError):
            entries = [path for path, _ in self._entries(kind)]
            if len(entries) > _MOST_ENTRIES:
                for path in sorted(entries, key=lambda p: p.stat().st_mtime)[: len(entries) // 4]:
                    path.unlink(missing_ok=True)

    def reject(self, kind: str, identity: str, environment: Environment, why: str) -> None:
        """Drop the entry just loaded, whose payload turned out to be unusable: it was no hit."""
        last = self.lookups[-1]
        self.lookups[-1] = replace(last, outcome=f"damaged: {why}")
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self._path(kind, identity, environment).unlink()

    def _path(self, kind: str, identity: str, environment: Environment) -> Path:
        assert self.folder is not None
        return self.folder / kind / f"{identity[:40]}-{environment_digest(environment)[:24]}"

    # --- programs ------------------------------------------------------------------------------------------

    def load_program(self, key: str, label: str = "program", environment: Environment | None = None) -> Program | None:
        """The program stored under ``key`` (any text), or None. ``environment`` defaults to this processor, these
        versions and Tenon's code as it is."""
        where = program_environment() if environment is None else environment
        payload = self.load(PROGRAM, digest(key), where, label)
        if payload is None:
            return None
        try:
            return from_json(payload)
        except TextError as error:
            self.reject(PROGRAM, digest(key), where, error.message)
            return None

    def store_program(self, key: str, program: Program, environment: Environment | None = None) -> None:
        """Keep ``program`` under ``key``, as JSON."""
        where = program_environment() if environment is None else environment
        self.store(PROGRAM, digest(key), where, to_json(program).encode())

    # --- what was measured -----------------------------------------------------------------------------------

    def load_tuned(self, key: str, label: str) -> tuple[Tuned, ...] | None:
        """What a tuner found for ``key`` (any text), or None."""
        payload = self.load(TUNING, digest(key), program_environment(), label)
        if payload is None:
            return None
        try:
            return tuning.from_json(payload)
        except TextError as error:
            self.reject(TUNING, digest(key), program_environment(), error.message)
            return None

    def store_tuned(self, key: str, tuned: tuple[Tuned, ...]) -> None:
        """Keep what a tuner found for ``key``."""
        self.store(TUNING, digest(key), program_environment(), tuning.to_json(tuned).encode())

    # --- what a user sees ----------------------------------------------------------------------------------

    def info(self) -> dict[str, object]:
        """The folder (or why there is none), and the number and bytes of each kind of entry."""
        found: dict[str, object] = {"folder": str(self.folder) if self.folder else None, "reason": self.reason}
        for kind in _KINDS:
            sizes = [size for _, size in self._entries(kind)]
            found[f"{kind}s"] = len(sizes)
            found[f"{kind} bytes"] = sum(sizes)
        return found

    def clear(self) -> int:
        """Delete every entry; returns how many. Other files in the folder stay."""
        count = 0
        for kind in _KINDS:
            for path, _ in list(self._entries(kind)):
                with contextlib.suppress(OSError):
                    path.unlink()
                    count += 1
        return count

    def explain(self, limit: int = 50) -> str:
        """What this process's latest lookups found and, for each miss, why."""
        hits = sum(x.outcome == "hit" for x in self.lookups)
        lines = [f"compile cache: {self.folder or 'none, ' + self.reason}"]
        if self.folder is not None and self.reason:
            lines.append(f"  {self.reason}")
        lines.append(f"  {len(self.lookups)} lookups, {hits} hits, {len(self.lookups) - hits} misses")
        for lookup in list(self.lookups)[-limit:]:
            name = f"{lookup.kind} {lookup.label or lookup.identity[:12]}"
            lines.append(f"  {name}: {lookup.outcome}")
            if lookup.outcome == "absent":
                lines += [f"    there is one {other}" for other in self._others(lookup)]
        return "\n".join(lines)

    def _entries(self, kind: str) -> Iterator[tuple[Path, int]]:
        if self.folder is None:
            return
        try:
            paths = sorted((self.folder / kind).iterdir())
        except OSError:  # somebody has deleted it meanwhile
            return
        for path in paths:
            with contextlib.suppress(OSError):
                yield path, path.stat().st_size

    def why(self, kind: str, identity: str) -> str:
        """What the latest lookup of ``identity`` found, and of a miss the reason; empty where it was not looked up."""
        lookup = next((x for x in reversed(self.lookups) if (x.kind, x.identity) == (kind, identity)), None)
        if lookup is None or lookup.outcome != "absent":
            return lookup.outcome if lookup else ""
        others = list(self._others(lookup))
        return f"absent: there is one {others[0]}" if others else "absent: it was never compiled into this cache"

    def _others(self, lookup: Lookup) -> Iterator[str]:
        """For each entry of the same thing from another environment: in what that one differs."""
        here = _environment(lookup.kind)
        for path, _ in self._entries(lookup.kind):
            if not path.name.startswith(lookup.identity[:40]):
                continue
            with contextlib.suppress(OSError, ValueError):
                there = json.loads(_unpack(path.read_bytes())[0])["environment"]
                changes = [_difference(name, there.get(name), here.get(name)) for name in sorted({*here, *there})]
                if any(changes):
                    yield "for " + ", ".join(filter(None, changes))


def _environment(kind: str) -> dict[str, str]:
    """What entries of that kind depend on here."""
    if kind in (PROGRAM, TUNING):
        return program_environment()
    return cuda_environment() if kind == CUBIN else cpu_environment()


def _difference(name: str, there: str | None, here: str | None) -> str:
    if there == here:
        return ""
    if there is None or here is None or max(len(there), len(here)) > 40:
        return f"other {name}"
    return f"{name} {there} (here {here})"


def _header(kind: str, identity: str, environment: Environment) -> bytes:
    fields = {"kind": kind, "identity": identity, "environment": dict(environment)}
    return json.dumps(fields, sort_keys=True).encode()


def _pack(header: bytes, payload: bytes) -> bytes:
    check = hashlib.sha256(header + payload).digest()
    return _HEAD.pack(_MAGIC, _FORMAT, len(header), check) + header + payload


def _unpack(data: bytes) -> tuple[bytes, bytes]:
    """Header and payload of an entry. ValueError says what is wrong with it."""
    if len(data) < _HEAD.size:
        raise ValueError("it is cut short")
    magic, version, length, check = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("it is not a cache entry")
    if version != _FORMAT:
        raise ValueError(f"it is in format {version}, not {_FORMAT}")
    body = data[_HEAD.size :]
    if hashlib.sha256(body).digest() != check:
        raise ValueError("its checksum does not match")
    return body[:length], body[length:]


def make_private(folder: Path) -> None:
    """Create ``folder`` for its owner alone, or make sure that no other may write to it. Raises CacheError where one
    may, OSError where it cannot be created."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if not hasattr(os, "getuid"):
        return
    if found.st_uid != os.getuid():
        raise CacheError(
            f"the compile cache does not use {folder}: it belongs to user {found.st_uid}, not to you "
            f"({os.getuid()}), and machine code is run from it; set TENON_CACHE to a folder of your own"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        raise CacheError(
            f"the compile cache does not use {folder}: its mode {mode:04o} lets others write to it, and machine "
            f"code is run from it; delete its contents and run: chmod 700 {folder}"
        )
    if mode & 0o077:
        with contextlib.suppress(OSError):  # on a read-only disk it stays readable, which is safe
            folder.chmod(0o700)


def user_folder() -> Path | None:
    """The user's own cache folder by the platform's custom, or None where there is no home."""
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            xdg = os.environ.get("XDG_CACHE_HOME", "")
            base = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "tenon"


def asked_for(asked: str | bool | None) -> Cache:
    """The cache that a setting asks for (a folder, or False for none), else the user's own.

    Raises CacheError for an unsafe folder. Where the folder cannot be created there is no cache, and a RuntimeWarning
    says so.
    """
    if asked is False:
        return Cache(None, "TENON_CACHE=0")
    folder = Path(os.path.abspath(os.path.expanduser(str(asked)))) if asked else user_folder()
    why = "no home folder is known"
    if folder is not None:
        try:
            return Cache(folder)
        except CacheError:
            raise
        except OSError as error:
            why = f"{folder} cannot be created ({error.strerror})"
    why += "; set TENON_CACHE to a folder of your own"
    warnings.warn(f"Tenon has no compile cache, and compiles every kernel anew: {why}", RuntimeWarning, stacklevel=2)
    return Cache(None, why)


_opened = once(asked_for)


def default() -> Cache:
    """The cache that the setting asks for now; each folder is opened once in a process."""
    return _opened(settings.get("cache"))


def info() -> dict[str, object]:
    return default().info()


def clear() -> int:
    return default().clear()


def explain() -> str:
    return default().explain()

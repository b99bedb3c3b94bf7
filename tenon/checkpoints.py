"""Arrays and facts in safetensors files: written whole or not at all, read without running anything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StateError, TenonError

_FACTS = "tenon"
"""The key of the facts, as JSON, in a file's metadata."""


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise TenonError("checkpoints are safetensors files: pip install safetensors") from None
    return safetensors.numpy


def write_atomically(path: str | Path, data: bytes) -> None:
    """Put ``data`` in the place of ``path`` at once: whoever reads it sees the old file or the new one, also after a
    crash. Raises OSError."""
    import tempfile  # with it come shutil and all compressors

    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def save(state: Mapping[str, Any], path: str | Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write arrays (a ``state_dict()``, say) and ``facts`` (JSON) to a safetensors file. Raises TenonError where the
    library safetensors is missing, OSError where the file cannot be written; an old file then stays as it is."""
    arrays = {k: np.array(v, order="C") for k, v in state.items()}
    metadata = {_FACTS: json.dumps(facts)} if facts is not None else None
    write_atomically(path, _library().save(arrays, metadata))


def load(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file. Raises StateError for a file that is none, or is damaged."""
    return load_with_facts(path)[0]


def load_with_facts(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """The arrays and, where the file has some, the facts. Raises StateError for a file that is none, or is damaged."""
    library = _library()
    data = Path(path).read_bytes()
    try:
        arrays = library.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text = header.get("__metadata__", {}).get(_FACTS)
        facts = None if text is None else json.loads(text)
    except Exception as error:  # the library raises its own kind, and JSON's
        raise StateError(f"{path} is no whole safetensors file: {error}") from None
    # What the library gives lies in the file's own bytes.
    return {k: np.array(v) for k, v in arrays.items()}, facts

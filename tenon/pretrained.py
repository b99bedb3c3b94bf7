"""Models from folders as Hugging Face publishes them: config.json beside model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import StateError, TenonError
from frontend import models
from frontend.nn import Module
from tenon.checkpoints import load


def load_pretrained(folder: str | Path, model: Module | None = None, **changes: Any) -> Any:
    """The model that ``config.json`` in ``folder`` describes, in evaluation mode, with the weights of its
    ``model.safetensors`` (in one file, or in the several that ``model.safetensors.index.json`` lists).

    ``changes`` replace settings, such as ``add_pooling_layer=False`` for a BERT whose file has no pooler. Weights go
    into ``model`` instead, and config.json is not read, where one is given.

    Raises TenonError where a file is missing or the kind of model is unknown; StateError that lists all keys that are
    missing, unexpected or of another shape: then nothing has been loaded.
    """
    folder = Path(folder)
    if model is None:
        model = _described(folder, changes).eval()
    elif changes:
        raise TenonError(f"load_pretrained: {', '.join(changes)} cannot change a model that exists")
    state = _weights(folder)
    adapt = getattr(model, "adapt", None)
    model.load_state_dict(state if adapt is None else adapt(state))
    return model


def _described(folder: Path, changes: dict[str, Any]) -> Any:
    settings = _json(folder / "config.json")
    kind = settings.get("model_type")
    known: dict[str, Any] = {model.model_type: model for model in (models.GPT, models.BERT)}
    if kind not in known:
        raise TenonError(f"{folder / 'config.json'}: model_type is {kind!r}; expected one of {', '.join(known)}")
    model_class = known[kind]
    return model_class(model_class.config_type.of(settings, **changes))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise TenonError(f"there is no {path.name} in {path.parent}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StateError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise StateError(f"{path} holds {type(found).__name__}; an object was expected")
    return found


def _weights(folder: Path) -> dict[str, np.ndarray]:
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(_json(index).get("weight_map", {}).values()))
    state: dict[str, np.ndarray] = {}
    for path in (folder / Path(name).name for name in names):
        if not path.is_file():
            raise TenonError(f"there is no {path.name} in {folder}")
        state |= load(path)
    return state

"""Pictures of what a model looks at, drawn by matplotlib: attention's weights, and attributions over images."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from engine.errors import ShapeError, TenonError


def plot_attention(
    weights: Any,
    path: str | PathLike[str] | None = None,
    *,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
) -> Any:
    """A matplotlib figure of attention's ``weights``, (L, S), or (heads, L, S) with a panel for each head; a row is a
    query, a column a key, dark is much. Written to ``path`` where one is given. ``queries`` and ``keys`` are the words
    that stand beside the axes. ``nn.MultiheadAttention`` returns such weights with ``need_weights=True``, for a batch.

    Raises ShapeError for weights of other shapes, TenonError where words do not match them, or without matplotlib.
    """
    array = np.asarray(weights)
    if array.ndim not in (2, 3) or not array.size:
        raise ShapeError(
            f"the weights have the shape {array.shape}; (queries, keys) or (heads, queries, keys) was expected"
        )
    panels = array.reshape(-1, *array.shape[-2:])
    for name, words, count in (("queries", queries, panels.shape[1]), ("keys", keys, panels.shape[2])):
        if words is not None and len(words) != count:
            raise TenonError(f"there are {len(words)} {name} for weights of shape {array.shape}: {count} were expected")
    labels = titles or ([f"head {i}" for i in range(len(panels))] if array.ndim == 3 else [""])
    figure, axes = _panels(len(panels), 0.28 * panels.shape[2] + 1.6, 0.28 * panels.shape[1] + 1.4)
    for panel, title, values in zip(axes, labels, panels, strict=True):
        drawn = panel.imshow(values, cmap="Blues", vmin=0.0, vmax=max(float(panels.max()), 1e-12), aspect="auto")
        panel.set_title(title)
        panel.set_xlabel("key")
        panel.set_ylabel("query")
        if keys is not None:
            panel.set_xticks(range(len(keys)), keys, rotation=90)
        if queries is not None:
            panel.set_yticks(range(len(queries)), queries)
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    return _written(figure, path)


def plot_attribution(
    attributions: Any,
    images: Any = None,
    path: str | PathLike[str] | None = None,
    *,
    titles: Sequence[str] | None = None,
) -> Any:
    """A matplotlib figure of ``attributions`` (N, C, H, W) or (N, H, W), summed over the channels: one column for each
    example, red for what speaks for the target and blue for what speaks against it, with its image above if there are
    ``images`` of the same shape. Written to ``path`` where one is given.

    Raises ShapeError for other shapes, TenonError without matplotlib.
    """
    array = np.asarray(attributions)
    if array.ndim not in (3, 4) or not array.size:
        raise ShapeError(f"the attributions have the shape {array.shape}; (N, C, H, W) or (N, H, W) was expected")
    rows = [array.sum(axis=1) if array.ndim == 4 else array]
    if images is not None:
        shown = np.asarray(images)
        if shown.shape != array.shape:
            raise ShapeError(f"the images have the shape {shown.shape}; {array.shape}, the attributions', was expected")
        rows.insert(0, shown.mean(axis=1) if shown.ndim == 4 else shown)
    count = len(array)
    figure, axes = _panels(count * len(rows), 1.7, 1.9, columns=count)
    for i, panel in enumerate(axes):
        values = rows[i // count][i % count]
        if i // count == len(rows) - 1:
            most = max(float(np.abs(values).max()), 1e-12)
            panel.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most)
        else:
            panel.imshow(values, cmap="gray")
        panel.set_axis_off()
        if titles is not None and i < count:
            panel.set_title(titles[i])
    return _written(figure, path)


def _panels(count: int, width: float, height: float, columns: int | None = None) -> tuple[Any, list[Any]]:
    """A figure with so many panels of a size in inches, in rows of ``columns``, by default of four at most."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TenonError("pictures need matplotlib: pip install matplotlib") from None
    columns = min(count, 4) if columns is None else columns
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def _written(figure: Any, path: str | PathLike[str] | None) -> Any:
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure

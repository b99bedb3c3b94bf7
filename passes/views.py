"""Views: where a value's elements lie in a buffer, and how views of it are read without moving anything."""

from __future__ import annotations

from engine import dims
from engine.dims import Shape, Size
from engine.graph import Node, Value
from engine.records import dataclass

FREE = frozenset({"constant", "size", "iota"})
"""Sources that kernels make on the spot instead of reading."""


def is_free(node: Node) -> bool:
    """Whether every reader makes the value itself: a number, a size or an index."""
    return node.op.name in FREE and (node.op.name != "constant" or not node.output.shape)


@dataclass(frozen=True)
class View:
    """Element ``index`` of a value lies at ``offset + sum(index * strides)`` of ``buffer``, in elements.

    ``order`` lists the axes from the outermost in memory to the innermost.
    """

    buffer: str
    strides: tuple[Size, ...]
    order: tuple[int, ...]
    offset: Size = 0


def dense(buffer: str, shape: Shape, order: tuple[int, ...] | None = None) -> View:
    """A whole buffer under ``shape``, axes lying in ``order`` (row-major where None)."""
    order = tuple(range(len(shape))) if order is None else order
    strides: list[Size] = [0] * len(shape)
    step: Size = 1
    for axis in reversed(order):
        strides[axis] = step
        step = step * shape[axis]
    return View(buffer, tuple(strides), order)


def view_of(node: Node, source: View) -> View | None:
    """How the output of a view op reads its input's buffer; None where a reshape needs the elements moved."""
    x, out = node.inputs[0], node.outputs[0]
    match node.op.name:
        case "identity" | "detach" | "later" | "check_index":
            return source
        case "permute":
            axes = node.attrs["axes"]
            order = tuple(axes.index(a) for a in source.order)
            return View(source.buffer, tuple(source.strides[a] for a in axes), order, source.offset)
        case "broadcast_to":
            extra = len(out.shape) - len(x.shape)
            strides = (0,) * extra + tuple(
                0 if size == 1 and out.shape[extra + i] != 1 else source.strides[i] for i, size in enumerate(x.shape)
            )
            order = tuple(range(extra)) + tuple(a + extra for a in source.order)
            return View(source.buffer, strides, order, source.offset)
        case "slice":
            start, step = node.attrs["start"], node.attrs["step"]
            offset = source.offset
            for a, s in zip(start, source.strides, strict=True):
                offset = offset + a * s
            strides = tuple(s * k for s, k in zip(source.strides, step, strict=True))
            return View(source.buffer, strides, source.order, offset)
        case "window":
            axis, step = node.attrs["axis"], node.attrs["step"]
            within = source.strides[axis] * node.attrs["dilation"]
            strides = tuple(s * step if i == axis else s for i, s in enumerate(source.strides))
            place = source.order.index(axis) + 1
            order = (*source.order[:place], len(x.shape), *source.order[place:])
            return View(source.buffer, (*strides, within), order, source.offset)
        case "reshape":
            return _reshaped(x.shape, out.shape, source)
    raise AssertionError(f"{node.op.name} is not a view")


def source_of(node: Node, view: View) -> View | None:
    """How the input of a view op must lie for its output to lie as ``view``: the other way round than
    :func:`view_of`. None where no view does that."""
    x, out = node.inputs[0], node.outputs[0]
    match node.op.name:
        case "identity" | "detach":
            return view
        case "permute":
            axes = node.attrs["axes"]
            strides = tuple(view.strides[axes.index(i)] for i in range(len(axes)))
            return View(view.buffer, strides, tuple(axes[a] for a in view.order), view.offset)
        case "reshape":
            return _reshaped(out.shape, x.shape, view)
    return None


def same_places(a: View, b: View, shape: Shape) -> bool:
    """Whether a value of this shape lies at the same places under both."""
    strides = zip(shape, a.strides, b.strides, strict=True)
    return (a.buffer, a.offset) == (b.buffer, b.offset) and all(s == t for size, s, t in strides if size != 1)


def _reshaped(old: Shape, new: Shape, source: View) -> View | None:
    """Match runs of old and new axes with equal products; a run of old axes must lie in memory as one axis."""
    strides: list[Size] = []
    groups = _matched(old, new)
    if groups is None:
        return None
    for old_axes, new_axes in groups:
        real = [a for a in old_axes if old[a] != 1]
        for a, b in zip(real, real[1:], strict=False):
            if source.strides[a] != source.strides[b] * old[b]:
                return None
        step: Size = source.strides[real[-1]] if real else 0
        here: list[Size] = []
        for a in reversed(new_axes):
            here.append(step if new[a] != 1 else 0)
            step = step * new[a]
        strides.extend(reversed(here))
    return View(source.buffer, tuple(strides), _order(groups, source), source.offset)


Runs = list[tuple[list[int], list[int]]]


def _order(groups: Runs, source: View) -> tuple[int, ...]:
    """New axes in the order in which the old axes that they stand for lie in memory."""
    placed: dict[int, list[int]] = {}
    for old_axes, new_axes in groups:
        where = min((source.order.index(a) for a in old_axes), default=len(source.order))
        placed.setdefault(where, []).extend(new_axes)
    return tuple(a for where in sorted(placed) for a in placed[where])


def _matched(old: Shape, new: Shape) -> Runs | None:
    """Runs of old axes and of new axes that hold the same elements, in order; None where they cannot be told."""
    groups: Runs = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + len(a), j + len(b)
        left, right = dims.product(old[k] for k in a), dims.product(new[k] for k in b)
        while left != right:
            # Take from the side whose product divides the other's; a symbolic size divides what contains it.
            grow_left = i < len(old) and (j >= len(new) or _smaller(left, right))
            if grow_left:
                a.append(i)
                left = left * old[i]
                i += 1
            elif j < len(new):
                b.append(j)
                right = right * new[j]
                j += 1
            else:
                return None
        groups.append((a, b))
    return groups


def _smaller(left: Size, right: Size) -> bool:
    if isinstance(left, int) and isinstance(right, int):
        return left < right
    return right % left == 0 if left != 0 else True


def look_through(value: Value) -> tuple[Value, tuple[int | None, ...]]:
    """The value that ``value`` is a transparent view of (permute, broadcast, axes of size 1 added or removed), and for
    each axis of ``value`` the axis of it that is read, or None where the value does not vary."""
    axes: tuple[int | None, ...] = tuple(range(len(value.shape)))
    while True:
        node = value.node
        step = _axes_through(node)
        if step is None:
            return value, axes
        axes = tuple(None if a is None else step[a] for a in axes)
        value = node.inputs[0]


def _axes_through(node: Node) -> tuple[int | None, ...] | None:
    """For each axis of the output of a transparent view, the axis of its input; None where it is not transparent."""
    if node.op.kind != "view":
        return None
    x, out = node.inputs[0], node.outputs[0]
    match node.op.name:
        case "identity" | "detach":
            return tuple(range(len(out.shape)))
        case "permute":
            return tuple(node.attrs["axes"])
        case "broadcast_to":
            extra = len(out.shape) - len(x.shape)
            return tuple(
                None if i < extra or (x.shape[i - extra] == 1 and out.shape[i] != 1) else i - extra
                for i in range(len(out.shape))
            )
        case "reshape":
            real_in = [i for i, s in enumerate(x.shape) if s != 1]
            real_out = [i for i, s in enumerate(out.shape) if s != 1]
            if [x.shape[i] for i in real_in] != [out.shape[i] for i in real_out]:
                return None
            matched = dict(zip(real_out, real_in, strict=True))
            return tuple(matched.get(i) for i in range(len(out.shape)))
    return None

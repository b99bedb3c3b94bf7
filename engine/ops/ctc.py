"""Connectionist temporal classification: the likelihood of a sequence of labels, whatever their alignment.

Graves, Fernandez, Gomez and Schmidhuber (2006), "Connectionist temporal classification: labelling unsegmented sequence
data with recurrent neural networks". Between, before and after the labels stands a blank: with S labels there are 2S+1
states. A path starts in one of the first two, ends in one of the last two, and in each step stays, goes on by one, or
by two from a label to another one. The recurrences are over logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine import dims, dtypes
from engine.errors import ShapeError, UnsupportedError
from engine.graph import Node, TensorType, Value, apply
from engine.op import Op, register
from engine.rules import full, need_equal, need_float, need_integer, need_rank, widened
from engine.user_kernel import UserKernel, meet


def _check(
    op: str,
    log_probs: TensorType,
    targets: TensorType,
    input_lengths: TensorType,
    target_lengths: TensorType,
    *,
    blank: int,
) -> None:
    need_float(op, log_probs)
    need_rank(op, "log_probs (T, N, C)", log_probs, 3)
    need_rank(op, "targets (N, S)", targets, 2)
    for what, lengths in (("input_lengths (N)", input_lengths), ("target_lengths (N)", target_lengths)):
        need_rank(op, what, lengths, 1)
        need_integer(f"{op}'s {what}", lengths)
    need_integer(f"{op}'s targets", targets)
    batch, classes = log_probs.shape[1:]
    for what, t in (("targets", targets), ("input_lengths", input_lengths), ("target_lengths", target_lengths)):
        need_equal(t.shape[0], batch, f"{op}: {what} for {t.shape[0]} examples, log_probs of {batch}")
    if isinstance(classes, int) and not 0 <= blank < classes:
        raise ShapeError(f"{op}: blank is {blank}, and there are {classes} classes")


def _states(log_probs: TensorType, targets: TensorType) -> TensorType:
    """A number for every example, step and state."""
    steps, batch, _ = log_probs.shape
    return TensorType((batch, steps, 2 * targets.shape[1] + 1), log_probs.dtype)


def _rule(*types: TensorType, blank: int) -> tuple[TensorType, TensorType]:
    _check("ctc_loss", *types, blank=blank)
    log_probs, targets = types[:2]
    return TensorType(log_probs.shape[1:2], log_probs.dtype), _states(log_probs, targets)


def _grad_rule(g: TensorType, *types: TensorType, blank: int) -> tuple[TensorType, ...]:
    _check("ctc_loss_grad", *types, blank=blank)
    log_probs, targets = types[:2]
    need_rank("ctc_loss_grad", "the gradient (N)", g, 1)
    steps, batch, classes = log_probs.shape
    ways = _states(log_probs, targets)
    return TensorType((batch, steps, classes), log_probs.dtype), ways, ways


# --- references: every state of a step at once -----------------------------------------------------------------


def _lattice(log_probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logarithm of the probability of all ways into each state at each step, and of these with its own label's."""
    before = np.full((len(log_probs), len(labels)), -np.inf, log_probs.dtype)
    with_own = before.copy()
    skips = np.array([i > 1 and labels[i] != labels[i - 2] for i in range(len(labels))], bool)
    for t, row in enumerate(log_probs):
        if t == 0:
            before[t, :2] = 0
        else:
            one, two = (np.concatenate([np.full(k, -np.inf), with_own[t - 1, :-k]])[: len(labels)] for k in (1, 2))
            ways = (with_own[t - 1], one, np.where(skips, two, -np.inf))
            before[t] = np.logaddexp(np.logaddexp(*ways[:2]), ways[2])
        with_own[t] = before[t] + row[labels]
    return before, with_own


def _labels(target: np.ndarray, length: int, blank: int) -> np.ndarray:
    labels = np.full(2 * length + 1, blank)
    labels[1::2] = target[:length]
    return labels


def _likelihood(with_own: np.ndarray) -> float:
    if len(with_own) == 0:
        return 0.0 if with_own.shape[1] == 1 else -np.inf
    return float(np.logaddexp.reduce(with_own[-1, -2:]))


def _reference(
    log_probs: np.ndarray, targets: np.ndarray, input_lengths: np.ndarray, target_lengths: np.ndarray, blank: int
) -> tuple[np.ndarray, np.ndarray]:
    wide = widened(log_probs)
    loss = np.zeros(wide.shape[1], wide.dtype)
    states = np.full((wide.shape[1], wide.shape[0], 2 * targets.shape[1] + 1), -np.inf, wide.dtype)
    for n, (steps, length) in enumerate(zip(input_lengths, target_lengths, strict=True)):
        labels = _labels(targets[n], length, blank)
        found = states[n, :steps, : len(labels)]
        found[:] = _lattice(wide[:steps, n], labels)[1]
        loss[n] = -_likelihood(found)
    return loss, states


def _grad_reference(
    g: np.ndarray,
    log_probs: np.ndarray,
    targets: np.ndarray,
    input_lengths: np.ndarray,
    target_lengths: np.ndarray,
    blank: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    wide = widened(log_probs)
    grad = np.zeros((wide.shape[1], wide.shape[0], wide.shape[2]), wide.dtype)
    loss, states = _reference(log_probs, targets, input_lengths, target_lengths, blank)
    onwards = np.full_like(states, -np.inf)
    for n, (steps, length) in enumerate(zip(input_lengths, target_lengths, strict=True)):
        labels = _labels(targets[n], length, blank)
        into = _lattice(wide[:steps, n], labels)[0]
        found = onwards[n, :steps, : len(labels)]
        found[:] = _lattice(wide[:steps, n][::-1], labels[::-1])[1][::-1, ::-1]
        if np.isinf(loss[n]):
            grad[n, :steps] = 0 if g[n] == 0 else np.nan
            continue
        share = np.exp(into + found + loss[n])
        for state, label in enumerate(labels):
            grad[n, :steps, label] -= widened(g)[n] * share[:, state]
    return grad, states, onwards


# --- kernels: an example after the other, or a team of threads for each ------------------------------------------


def _log_add(a, b, c):
    best = max(a, max(b, c))
    if best == -math.inf:
        return best
    return best + math.log(math.exp(a - best) + math.exp(b - best) + math.exp(c - best))


def _label_of(s, target, blank):
    return target[s // 2] if s % 2 == 1 else blank


def _into(states, t, s, target):
    """Of all ways into state ``s`` at step ``t``, from what ``states`` says of the step before."""
    if t == 0:
        return 0.0 if s < 2 else -math.inf
    one = two = -math.inf
    if s > 0:
        one = states[t - 1, s - 1]
    if s > 1 and s % 2 == 1 and target[s // 2] != target[s // 2 - 1]:
        two = states[t - 1, s - 2]
    return _log_add(states[t - 1, s], one, two)


def _onwards(states, t, s, last, count, target):
    """Of all ways from state ``s`` at step ``t`` to the end, from what ``states`` says of the step behind."""
    if t == last:
        return 0.0 if s >= count - 2 else -math.inf
    one = two = -math.inf
    if s + 1 < count:
        one = states[t + 1, s + 1]
    if s + 2 < count and s % 2 == 1 and target[s // 2] != target[s // 2 + 1]:
        two = states[t + 1, s + 2]
    return _log_add(states[t + 1, s], one, two)


def _whole(states, last, count):
    """Of all ways through an example."""
    if last < 0:
        return 0.0 if count == 1 else -math.inf
    before = states[last, count - 2] if count > 1 else -math.inf
    return _log_add(states[last, count - 1], before, -math.inf)


def _forward(log_probs, targets, input_lengths, target_lengths, loss, states, lo, hi, lane, lanes, blank):
    for n in range(lo, hi):
        last, count = input_lengths[n] - 1, 2 * target_lengths[n] + 1
        for t in range(states.shape[1]):
            for s in range(lane, states.shape[2], lanes):
                if t > last or s >= count:
                    states[n, t, s] = -math.inf
                else:
                    own = log_probs[t, n, _label_of(s, targets[n], blank)]
                    states[n, t, s] = _into(states[n], t, s, targets[n]) + own
            if t <= last:
                meet()
        if lane == 0:
            loss[n] = -_whole(states[n], last, count)


def _backward(
    g, log_probs, targets, input_lengths, target_lengths, grad, states, onwards, lo, hi, lane, lanes, blank
):  # fmt: skip
    for n in range(lo, hi):
        last, count = input_lengths[n] - 1, 2 * target_lengths[n] + 1
        # From both ends at once: the steps that wait for one another are then half as many.
        for t in range(states.shape[1]):
            back = last - t
            for s in range(lane, states.shape[2], lanes):
                if t > last or s >= count:
                    states[n, t, s] = -math.inf
                    onwards[n, t, s] = -math.inf
                else:
                    label = _label_of(s, targets[n], blank)
                    states[n, t, s] = _into(states[n], t, s, targets[n]) + log_probs[t, n, label]
                    way = _onwards(onwards[n], back, s, last, count, targets[n])
                    onwards[n, back, s] = way + log_probs[back, n, label]
            if t <= last:
                meet()
        # Several states may have one label, so that a step is one thread's: what it adds up, it does in order.
        whole = _whole(states[n], last, count)
        for t in range(lane, grad.shape[1], lanes):
            filled = math.nan if t <= last and whole == -math.inf and g[n] != 0 else 0.0
            for c in range(grad.shape[2]):
                grad[n, t, c] = filled
            if t <= last and whole != -math.inf:
                for s in range(count):
                    way = _into(states[n], t, s, targets[n]) + onwards[n, t, s]
                    grad[n, t, _label_of(s, targets[n], blank)] -= g[n] * math.exp(way - whole)


# --- gradients ---------------------------------------------------------------------------------------------------


def _gradient(node: Node, g: Value | None, _: Value | None) -> Sequence[Value | None]:
    if g is None:
        return [None] * 4
    found, *_ = apply("ctc_loss_grad", g, *node.inputs, blank=node.attrs["blank"])
    return [apply("permute", found, axes=(1, 0, 2)), None, None, None]


def _second_gradient(node: Node, v: Value | None, *_: Value | None) -> Sequence[Value | None]:
    """The recurrence as a graph, step by step, and its gradient's gradient."""
    if v is None:
        return [None] * 5
    g, log_probs, *rest = (apply("identity", x) for x in node.inputs)
    loss = unrolled(log_probs, *rest, blank=node.attrs["blank"])
    slope = apply("grad", apply("sum", g * loss, axes=(0,)), log_probs)
    total = apply("sum", apply("permute", slope, axes=(1, 0, 2)) * v, axes=(0, 1, 2))
    return [*apply("grad", total, g, log_probs), None, None, None]


def unrolled(log_probs: Value, targets: Value, input_lengths: Value, target_lengths: Value, *, blank: int) -> Value:
    """The loss of each example in simpler ops, with a few for each step. The states' probabilities are divided by their
    sum in each step, and the sums' logarithms added up."""
    steps, batch, _ = log_probs.shape
    if not isinstance(steps, int):
        raise UnsupportedError(f"the second gradient of ctc_loss needs a known number of steps, not {steps}")
    count = 2 * targets.shape[1] + 1
    along = (1, count)
    state = apply("iota", shape=along, axis=1)
    is_label = apply("eq", apply("mod", state, 2), 1)
    labels, earlier = (_label(targets, state, is_label, blank, back) for back in (0, 1))
    skips = apply("and_", apply("gt", state, 1), apply("ne", labels, earlier))
    zeros = full((batch, count), 0, log_probs.dtype)
    last = apply("reshape", apply("cast", target_lengths, dtype=dtypes.i64), shape=(batch, 1)) * 2
    end = apply("or_", apply("eq", state, last), apply("eq", state, last - 1))
    lengths = apply("reshape", apply("cast", input_lengths, dtype=dtypes.i64), shape=(batch, 1))
    own = apply("gather", log_probs, apply("reshape", labels, shape=(1, batch, count)), axis=2)
    ways = apply("where", apply("eq", state, 0), zeros + 1, 0.0)
    total = full((batch, 1), 0, log_probs.dtype)
    for t in range(steps):
        row = apply("reshape", apply("slice", own, start=(t, 0, 0), stop=(t + 1, batch, count), step=(1, 1, 1)),
                    shape=(batch, count))  # fmt: skip
        if t == 0:
            into = apply("where", apply("lt", state, 2), zeros + 1, 0.0)
        else:
            into = ways + _moved(ways, 1) + apply("where", skips, _moved(ways, 2), 0.0)
        best = apply("detach", apply("max", row, axes=(1,), keepdims=True))
        shift = apply("where", apply("isfinite", best), best, 0.0)
        made = into * apply("exp", row - shift)
        size = apply("sum", made, axes=(1,), keepdims=True)
        runs = apply("lt", t, lengths)
        ways = apply("where", runs, made / size, ways)
        total = total + apply("where", runs, apply("log", size) + shift, 0.0)
    ends = apply("sum", apply("where", end, ways, 0.0), axes=(1,))
    return -(apply("log", ends) + apply("reshape", total, shape=(batch,)))


def _label(targets: Value, state: Value, is_label: Value, blank: int, back: int) -> Value:
    """The label of each state (N, 2S+1), or of the label before it."""
    batch, size = targets.shape
    count = 2 * size + 1
    if isinstance(size, int) and size == 0:
        return full((batch, count), blank, dtypes.i64)
    place = apply("minimum", apply("maximum", apply("floordiv", state, 2) - back, 0), _less_one(size))
    found = apply("gather", apply("cast", targets, dtype=dtypes.i64), place, axis=1)
    return apply("where", is_label, apply("broadcast_to", found, shape=(batch, count)), blank)


def _less_one(size: dims.Size) -> Value | int:
    return size - 1 if isinstance(size, int) else apply("size", size=size - 1, dtype=dtypes.i64)


def _moved(ways: Value, by: int) -> Value:
    """Each state's number in the state ``by`` further on."""
    batch, count = ways.shape
    wide = apply("pad", ways, low=(0, by), high=(0, 0), step=(1, 1))
    return apply("slice", wide, start=(0, 0), stop=(batch, count), step=(1, 1))


register(
    Op(
        "ctc_loss",
        "custom",
        ("log_probs", "targets", "input_lengths", "target_lengths"),
        _rule,
        _reference,
        _gradient,
        attrs={"blank": 0},
        kernel=UserKernel(_forward, ranged=True, team=True),
        doc="-log of the probability of each target (N), from ``log_probs`` (T, N, C), labels ``targets`` (N, S) and "
        "the lengths (N) of both; and the logarithm of each state's (N, T, 2S+1). Infinite where a target cannot be.",
    )
)
register(
    Op(
        "ctc_loss_grad",
        "custom",
        ("g", "log_probs", "targets", "input_lengths", "target_lengths"),
        _grad_rule,
        _grad_reference,
        _second_gradient,
        attrs={"blank": 0},
        kernel=UserKernel(_backward, ranged=True, team=True),
        doc="The gradient (N, T, C) of ``ctc_loss`` with respect to ``log_probs``, times ``g`` (N), NaN where a target "
        "cannot be unless ``g`` is 0; and the logarithms (N, T, 2S+1) of all ways into each state, and of all from it "
        "to the end, each with the state's own.",
    )
)

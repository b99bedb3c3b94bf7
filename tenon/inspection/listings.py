"""Schedules, programs and memory plans as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import count

from engine import dims
from engine.buffers import Buffer
from engine.graph import TensorType
from engine.program import Call, Program
from engine.schedule import Access, Bundle, Conv2d, Core, Item, KernelSpec, Loop, Schedule, Stmt
from engine.tuning import Tuning
from tenon.text_format import bytes_text, plural, seconds_text, table


def schedule_text(schedule: Schedule) -> str:
    """Kernels in order, each as a loop nest: ``for i0 in 64*B``, what it reads and writes, its body."""
    lines = [f"{plural(len(list(schedule.specs)), 'kernel')} over {plural(len(schedule.buffers), 'buffer')}", ""]
    rows = [(b.name, b.kind, str(b.dtype), str(b.size), _window(b)) for b in schedule.buffers]
    lines += [table([("buffer", "kind", "dtype", "elements", ""), *rows]), ""]
    for number, item in enumerate(schedule.kernels):
        first, *rest = item_lines(item)
        lines += [f"{number:3} {first}", *(f"    {line}" for line in rest), ""]
    return "\n".join(lines)


def _window(buffer: Buffer) -> str:
    """What a window of a loop sees, in the turns t of the loop."""
    if buffer.kind != "window":
        return ""
    turn = "t % 2" if buffer.alternates else "t"
    return f"{buffer.within}, from {buffer.start} + ({buffer.step}) * {turn}"


def item_lines(item: Item) -> Iterator[str]:
    """A kernel, a bundle or a loop, a line at a time."""
    if isinstance(item, Bundle):
        yield f"bundle {item.name}: {plural(len(item.parts), 'kernel')} in one call"
        for part in item.parts:
            yield from (f"  {line}" for line in _kernel(part))
    elif isinstance(item, Loop):
        yield f"loop {item.name}: {item.times} times"
        if item.guard is not None:
            yield f"  if {_access(item.guard)}"
        for inner in item.kernels:
            yield from (f"  {line}" for line in item_lines(inner))
    else:
        yield from _kernel(item)


def _kernel(spec: KernelSpec) -> Iterator[str]:
    axes = ", ".join(f"i{i} in {size}{' (reduced)' if i in spec.reduced else ''}" for i, size in enumerate(spec.axes))
    yield f"kernel {spec.name}: for {axes or 'one point'}"
    if spec.location is not None:
        yield f"  from {spec.location}"
    if spec.nodes:
        yield f"  nodes {' '.join(spec.nodes)}"
    if spec.guard is not None:
        yield f"  if {_access(spec.guard)}"
    if spec.split is not None:
        yield f"  the first reduced axis in chunks of {spec.split}"
    if spec.core is not None:
        yield from (f"  {line}" for line in _core(spec.core))
    yield from (f"  {line}" for line in _body(spec.body, spec.reads, spec.writes))


def _core(core: Core) -> Iterator[str]:
    yield f"core {type(core).__name__}:"
    for field in fields(core):
        value = getattr(core, field.name)
        if isinstance(value, Access):
            yield f"  {field.name} = {_access(value) if value.buffer else 'what inner makes'}"
        elif field.name == "inner":
            yield "  inner:"
            yield from (f"    {_statement(s)}" for s in value)
        elif isinstance(value, Conv2d):
            first, *rest = _core(value)
            yield f"  {field.name} = {first.removeprefix('core ')}"
            yield from (f"  {line}" for line in rest)
        elif value is not None:
            yield f"  {field.name} = {_sizes(value)}"


def _body(body: Sequence[Stmt], reads: Sequence[Access], writes: Sequence[Access]) -> Iterator[str]:
    for s in body:
        if s.op == "load":
            yield f"{s.name}: {s.dtype} = {_access(reads[int(s.args[0])])}"
        elif s.op == "store":
            yield f"{_access(writes[int(s.args[0])])} = {s.args[1]}"
        else:
            yield _statement(s)


def _statement(s: Stmt) -> str:
    args = [*map(str, s.args), *([f"sizes={_sizes(s.sizes)}"] if s.sizes else [])]
    return f"{s.name}: {s.dtype} = {s.op}({', '.join(args)})"


def _access(a: Access) -> str:
    terms = [f"i{i}" if stride == 1 else f"i{i}*{_factor(stride)}" for i, stride in enumerate(a.strides) if stride != 0]
    if a.chunk_stride != 0:
        terms.append(f"chunk*{_factor(a.chunk_stride)}")
    if a.offset != 0 or not terms:
        terms.append(str(a.offset))
    return f"{a.buffer}[{' + '.join(terms)}]"


def _factor(size: dims.Size) -> str:
    text = str(size)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _sizes(value: object) -> str:
    return dims.shape_text(value) if isinstance(value, tuple) else str(value)


def program_text(program: Program) -> str:
    """The tables of calls that run after a change of state, and every time."""
    lines = [f"program {program.name}", ""]
    for title, ports in (("inputs", program.inputs), ("outputs", program.outputs), ("state", program.state)):
        lines.append(f"{title}:")
        rows = [(f"  {p.name}", str(TensorType(p.shape, p.dtype)), p.buffer) for p in ports]
        lines += [table(rows) if rows else "  none", ""]
    if program.updates:
        lines += [f"updates: {', '.join(program.updates)}", ""]
    for a in program.assumptions:
        lines.append(f"assumes {a}: {a.reason}")
    for number, check in enumerate(program.checks, 1):
        lines.append(f"checks {number}: {check.message}, from {check.location}")
    names = kernel_names(program)
    parts = (
        ("prepare (when state that it reads was changed from outside)", program.prepare),
        ("main (every call)", program.main),
    )
    for title, calls in parts:
        lines += ["", f"{title}:", *(_call(i, c, names) for i, c in enumerate(calls))]
    for loop in program.loops:
        guard = f", if {loop.guard.buffer}" if loop.guard else ""
        lines += ["", f"loop over steps {loop.first}-{loop.end - 1}: {loop.times} times{guard}"]
    return "\n".join(lines) + "\n"


def kernel_names(program: Program) -> dict[str, str]:
    """What each kernel, by key, is called in a dump: what its only call is; where it serves several, its own name, with
    a number where that is another's too."""
    labels: dict[str, list[str]] = {}
    for call in program.calls:
        labels.setdefault(call.kernel, []).append(call.label)
    names: dict[str, str] = {}
    for kernel in program.kernels:
        calls = labels.get(kernel.key, [])
        wanted = calls[0].replace(" ", "_") if len(calls) == 1 else kernel.name
        candidates = (f"{wanted}_{i}" if i > 1 else wanted for i in count(1))
        taken = set(names.values())
        names[kernel.key] = next(c for c in candidates if c not in taken)
    return names


def _call(number: int, call: Call, names: Mapping[str, str]) -> str:
    text = f"{number:4} {call.label}: {names.get(call.kernel, call.kernel)} x {call.tasks}"
    text += f", {', '.join(call.reads) or 'nothing'} -> {', '.join(call.writes) or 'nothing'}"
    text += f", if {call.guard.buffer}" if call.guard else ""
    return text + (f", scratch {bytes_text(call.scratch)}" if call.scratch else "")


def arena_text(program: Program, nbytes: Mapping[str, int], offsets: Mapping[str, int], arena: int) -> str:
    """The arena over time: a line a temporary, by offset, with a mark for every step at which it lives."""
    steps = len(program.main)
    rows = [("temporary", "offset", "bytes", "steps", "")]
    for name in sorted(offsets, key=lambda n: (offsets[n], program.lifetimes.get(n, (0, steps)))):
        first, last = program.lifetimes.get(name, (0, steps - 1))
        bar = "".join("#" if first <= i <= last else "." for i in range(steps))
        rows.append((name, str(offsets[name]), str(nbytes[name]), f"{first}-{last}", bar))
    return f"arena of {bytes_text(arena)}, {steps} steps\n\n{table(rows)}\n"


def tuning_text(tuning: Tuning) -> str:
    """What autotuning has tried: each question of each kernel, its candidates with their times, and the choice."""
    at = ", ".join(f"{name}={size}" for name, size in tuning.sizes) or "fixed sizes"
    known = len(tuning.tuned) - tuning.measured
    lines = [
        f"at {at}, on {tuning.place}: {plural(tuning.measured, 'kernel')} measured, {known} from the cache, "
        f"in {seconds_text(tuning.seconds)}"
    ]
    for tuned in tuning.tuned:
        lines.append(", ".join(tuned.kernels))
        for found in tuned.findings:
            rows = [(f"  {found.question}", "time", "")]
            for i, (candidate, seconds) in enumerate(zip(found.candidates, found.seconds, strict=True)):
                marks = [mark for mark, holds in (("default", i == 0), ("chosen", i == found.chosen)) if holds]
                rows.append((f"    {candidate}", seconds_text(seconds), ", ".join(marks)))
            lines += table(rows).splitlines()
    return "\n".join(lines)

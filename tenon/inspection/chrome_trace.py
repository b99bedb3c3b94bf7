"""A profile as a Chrome trace, which ui.perfetto.dev and chrome://tracing show: one track a thread.

The format is that of "Trace Event Format" (Google, 2016): ``X`` events are slices, their times microseconds; ``M``
events name the tracks. Slices that lie inside others on a track are shown below them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenon.text_format import plural

if TYPE_CHECKING:
    from tenon.inspection.profile import Profile

_PROCESS = 1


def write(profile: Profile, path: Path) -> Path:
    """Write the call in the middle of ``profile`` to ``path``, as JSON. Returns ``path``."""
    content = {
        "traceEvents": events(profile),
        "displayTimeUnit": "ns",
        "otherData": {"program": profile.name, **{k: str(v) for k, v in profile.sizes.items()}},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def events(profile: Profile) -> list[dict[str, Any]]:
    """The events of the trace: the names of its tracks, then the call and its kernels in the order of their start."""
    found = [_named("process_name", f"{profile.name}, {plural(profile.calls, 'call')} profiled", 0)]
    found += [_named("thread_name", f"thread {number}", number) for number in range(profile.machine.threads)]
    line = profile.timeline
    found.append(_slice("call", 0.0, line.left, 0, {}))
    order = line.start.argsort(kind="stable").tolist()
    start, end, thread, number = (x.tolist() for x in (line.start, line.end, line.thread, line.step))
    for i in order:
        step = profile.steps[number[i]]
        more: dict[str, Any] = {"step": number[i], "kernel": step.kernel, "flops": step.flops, "bytes": step.bytes}
        lines = dict.fromkeys(str(n.location) for n in step.nodes if n.location is not None)
        if lines:
            more["from"] = ", ".join(lines)
        found.append(_slice(step.name, start[i], end[i], thread[i], more))
    return found


def _named(what: str, name: str, thread: int) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": _PROCESS, "tid": thread, "args": {"name": name}}


def _slice(name: str, start: float, end: float, thread: int, more: dict[str, Any]) -> dict[str, Any]:
    place = {"pid": _PROCESS, "tid": thread, "ts": start * 1e6, "dur": (end - start) * 1e6}
    return {"ph": "X", "name": name, "cat": "kernel" if more else "call", **place, "args": more}

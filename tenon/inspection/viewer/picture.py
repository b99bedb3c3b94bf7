"""The kernels of a program as a drawing, in SVG and in Graphviz's DOT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from itertools import pairwise
from typing import Any

from engine.records import dataclass
from tenon.inspection.viewer.layered import layered

_COLOURS = {
    "Contraction": "#5750d6", "Conv2d": "#3b6fe0", "ConvChain": "#3b6fe0", "ConvWeightGrad": "#3b6fe0",
    "DepthwiseWeightGrad": "#3b6fe0", "Attention": "#b2479c", "Recurrence": "#8a4fd0", "Scan": "#8a4fd0",
    "MaxPool2d": "#0f8f9e", "MaxPool2dGrad": "#0f8f9e", "MaxPool2dGather": "#0f8f9e", "reduce": "#cf7117",
    "Scatter": "#93682f", "Sort": "#93682f", "port": "#66758a",
}  # fmt: skip
_PLAIN = "#2b9357"
"""The colour of what only walks over elements."""

_STYLE = """
text { font: 11px system-ui, sans-serif; fill: #5d6878 } .t { font-weight: 600; font-size: 12px; fill: #18202c }
.b { fill: #fff; stroke: #c3ccd8 } .e { fill: none; stroke: #93a0b1; stroke-width: 1.2 }
.far { opacity: 0.25 } .bg { fill: #f4f6f9 }
@media (prefers-color-scheme: dark) {
text { fill: #93a0b1 } .t { fill: #e5eaf1 } .b { fill: #161c25; stroke: #2f3947 } .e { stroke: #5a6878 }
.bg { fill: #0d1117 } }
"""


@dataclass(frozen=True)
class Box:
    """What is drawn as one: a title, lines below it, and a colour."""

    title: str
    lines: tuple[str, ...]
    colour: str


@dataclass(frozen=True)
class Picture:
    """Boxes, and edges between them by their numbers, from lower to higher; ``values`` says what goes along each."""

    name: str
    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]
    values: tuple[str, ...]


def picture(record: Mapping[str, Any]) -> Picture:
    """The kernels of a record (see record.py) with the inputs and the outputs; where there are none, as on
    the reference, the ops of its last graph."""
    graph = record["graphs"][record["stages"][-1][1]]
    ports = [record["nodes"][i] for i in graph["inputs"]]
    maker: dict[str, int] = {}
    boxes: list[Box] = []
    edges: dict[tuple[int, int], list[str]] = {}

    def add(box: Box, reads: Iterator[str], writes: Iterator[str]) -> None:
        for name in dict.fromkeys(reads):
            if name in maker:
                edges.setdefault((maker[name], len(boxes)), []).append(name.removeprefix("input."))
        maker.update(dict.fromkeys(writes, len(boxes)))
        boxes.append(box)

    prefix = "input." if "kernels" in record else ""
    for name, _, title, _, types, *_ in ports:
        key = prefix + title if prefix else name
        add(Box(title, (types[0][1],), _COLOURS["port"]), iter(()), iter([key]))
    for kernel in record.get("kernels", ()):
        location = record["locations"][kernel["location"]] if kernel["location"] is not None else None
        lines = (_short(kernel["space"]), *([location[3]] if location and location[3] else []))
        box = Box(_short(kernel["name"].replace("_", " ")), lines, _COLOURS.get(kernel["kind"], _PLAIN))
        add(box, iter(kernel["reads"]), (w for w in kernel["writes"] if not w.startswith("state.")))
    if "kernels" not in record:
        for i in graph["nodes"]:
            _, op, _, inputs, types, *_ = record["nodes"][i]
            add(Box(op, (_short(types[0][1]),), _PLAIN), iter(inputs), (t[0] for t in types))
        for value in graph["outputs"]:
            add(Box(f"returns {value}", (), _COLOURS["port"]), iter([value]), iter(()))
    else:
        for name in [b["name"] for b in record["buffers"] if b["kind"] == "output"]:
            add(Box(f"returns {name.removeprefix('output.')}", (), _COLOURS["port"]), iter([name]), iter(()))
    return Picture(record["name"], tuple(boxes), tuple(edges), tuple(", ".join(v) for v in edges.values()))


def _short(text: str, length: int = 36) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def to_dot(drawn: Picture) -> str:
    """For ``dot -Tpdf graph.dot``, and whatever else reads Graphviz's language."""
    lines = [
        f"digraph {_quoted(drawn.name)} {{",
        "  rankdir=LR;",
        '  node [shape=box, style=rounded, fontname="sans"];',
    ]
    for i, box in enumerate(drawn.boxes):
        label = "\\n".join(_quoted(line)[1:-1] for line in (box.title, *box.lines))
        lines.append(f'  k{i} [label="{label}", color="{box.colour}"];')
    for (a, b), value in zip(drawn.edges, drawn.values, strict=True):
        lines.append(f"  k{a} -> k{b} [tooltip={_quoted(value)}];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def to_svg(drawn: Picture) -> str:
    """A picture that stands alone: light or dark as the reader prefers."""
    sizes = [(28 + 7.2 * max(map(len, (b.title, *b.lines))), 25.0 + 15 * len(b.lines)) for b in drawn.boxes]
    places = layered(sizes, drawn.edges)
    width, height = places.width + 60, places.height + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-30 -30 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img"><title>{escape(drawn.name)}</title><style>{_STYLE}</style>',
        f'<rect class="bg" x="-30" y="-30" width="{width:.0f}" height="{height:.0f}"/>',
    ]
    for (a, b), way, far, value in zip(drawn.edges, places.ways, places.far, drawn.values, strict=True):
        (ax, ay), (aw, ah), (bx, by), (_, bh) = places.corners[a], sizes[a], places.corners[b], sizes[b]
        path = _path([(ax + aw, ay + ah / 2), *way, (bx, by + bh / 2)])
        kind = "e far" if far else "e"
        parts.append(f'<path class="{kind}" d="{path}"><title>{escape(value)}</title></path>')
    for box, (x, y), (w, h) in zip(drawn.boxes, places.corners, sizes, strict=True):
        parts.append(
            f'<g transform="translate({x:.1f} {y:.1f})"><rect class="b" width="{w:.1f}" height="{h:.0f}" rx="6"/>'
            f'<rect width="4" height="{h - 10:.0f}" y="5" rx="2" fill="{box.colour}"/>'
            f'<text class="t" x="13" y="17">{escape(box.title)}</text>'
        )
        for i, line in enumerate(box.lines):
            parts.append(f'<text x="13" y="{33 + 15 * i}">{escape(line)}</text>')
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _path(points: list[tuple[float, float]]) -> str:
    """A curve that leaves and enters each point level."""
    (x, y), *_ = points
    steps = [f"M{x:.1f} {y:.1f}"]
    for (ax, ay), (bx, by) in pairwise(points):
        reach = (bx - ax) / 2
        steps.append(f"C{ax + reach:.1f} {ay:.1f} {bx - reach:.1f} {by:.1f} {bx:.1f} {by:.1f}")
    return " ".join(steps)

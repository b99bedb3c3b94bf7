"""One HTML file from the parts beside this one: styles, scripts and data are put into it, so it needs no network."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

STYLES = ("style.css",)
SCRIPTS = ("dom.js", "record.js", "tree.js", "layered.js", "scene.js", "canvas.js", "code.js", "inspector.js",
           "outline.js", "kernels.js", "arena.js", "source.js", "app.js")  # fmt: skip


def page(record: Mapping[str, Any], code: Mapping[str, Mapping[str, str]]) -> str:
    """The page that shows ``record`` (see record.py) and, by kernel, the ``code`` that was generated: the
    text of each of its files by their suffix."""
    folder = files("tenon.inspection.viewer")
    styles = "\n".join((folder / name).read_text(encoding="utf-8") for name in STYLES)
    scripts = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    packed = {name: {suffix: _packed(text) for suffix, text in texts.items()} for name, texts in code.items()}
    parts = {
        "title": escape(str(record["name"])),
        "styles": styles,
        "record": _json(record),
        "code": _json(packed),
        "scripts": f'"use strict";\n{scripts}',
    }
    template = (folder / "index.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _json(value: object) -> str:
    """JSON that may stand in a script element: no text in it can end the element, or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _packed(text: str) -> str:
    """``text`` compressed, in letters: assembly shrinks to a tenth, and is unpacked when it is looked at."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")

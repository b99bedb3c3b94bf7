"""Makes the pictures of the documentation: ``python tests/make_images.py [page ...]``, by default all.

The pages' own Python blocks are run, and what they draw is kept; dumps are opened in a headless browser.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from test_docs import blocks  # noqa: E402

IMAGES = ROOT / "docs" / "images"


def run_page(name: str, folder: Path) -> None:
    """Run the Python blocks of a page in ``folder``."""
    script = folder / f"{name}.py"
    script.write_text(blocks(ROOT / "docs" / f"{name}.md"), encoding="utf-8")
    with contextlib.chdir(folder):
        runpy.run_path(str(script), run_name="__main__")


def explaining(folder: Path) -> None:
    run_page("explaining-a-model", folder)
    for source, kept in (("saliency", "saliency"), ("parts", "integrated")):
        _reduce(folder / f"{source}.png", IMAGES / f"{kept}.png")


def _reduce(source: Path, path: Path) -> None:
    """Keep a picture in few bytes: a palette of 256 colours is enough for all of these."""
    from PIL import Image

    Image.open(source).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")


PAGES = {"explaining-a-model": explaining}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    os.environ.pop("TENON_DUMP", None)
    for name in sys.argv[1:] or PAGES:
        with tempfile.TemporaryDirectory() as folder:
            PAGES[name](Path(folder))


if __name__ == "__main__":
    main()

"""Makes the pictures of the documentation: ``python tests/make_images.py [page ...]``, by default all.

The pages' own Python blocks are run, and what they draw is kept; dumps are opened in a headless browser.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Browser  # noqa: E402
from test_docs import blocks  # noqa: E402

IMAGES = ROOT / "docs" / "images"


def run_page(name: str, folder: Path) -> dict[str, Any]:
    """Run the Python blocks of a page in ``folder``; returns what they defined."""
    script = folder / f"{name}.py"
    script.write_text(blocks(ROOT / "docs" / f"{name}.md"), encoding="utf-8")
    with contextlib.chdir(folder):
        return runpy.run_path(str(script), run_name="__main__")


def explaining(folder: Path) -> None:
    run_page("explaining-a-model", folder)
    for source, kept in (("saliency", "saliency"), ("parts", "integrated")):
        _reduce(folder / f"{source}.png", IMAGES / f"{kept}.png")


def debugging(folder: Path) -> None:
    found = run_page("debugging", folder)
    given = found["pictures"], found["labels"]
    nan = found["broken"].dump(folder / "nan", *given) / "index.html"
    slow = found["step"].dump(folder / "slow", *given) / "index.html"
    slowest = "app.source.select([...app.source.lines.values()].sort((a, b) => b.share.seconds - a.share.seconds)[0])"
    with Browser(1400, 800) as browser:
        browser.theme("light")
        shoot(browser, nan, "debugging-nan", f"#stage=trace&select={found['found'].name}", "app.set('lit', false)")
        shoot(browser, slow, "debugging-slow", "#view=source", slowest)
        browser.theme("dark")
        shoot(browser, slow, "debugging-heat", "", "app.set('shaded', true)")


def viewer(folder: Path) -> None:
    """The page of three training steps of the benchmark."""
    from benchmarks.engines import tenon_program
    from benchmarks.models import CASES

    pages = {}
    for name in ("cnn", "resnet18", "gpt"):
        case = CASES[f"{name}:train"]
        pages[name] = tenon_program(case).dump(folder / name, *case.arrays()) / "index.html"
    with Browser(1600, 950) as browser:
        browser.theme("light")
        shoot(browser, pages["cnn"], "viewer-graph", "", "app.selectKernel(kernels[3])", "app.view.fit()")
        shoot(browser, pages["cnn"], "viewer-kernels", "#view=kernels&kernel=3")
        shoot(browser, pages["resnet18"], "viewer-memory", "#view=memory")
        browser.theme("dark")
        shoot(browser, pages["gpt"], "viewer-changes", "#stage=simplify-2")


def shoot(browser: Browser, page: Path, name: str, hash: str = "", *actions: str) -> None:
    """Keep a picture of a page, after ``actions`` in its own script. Raises AssertionError for an error in the page."""
    browser.open(page, hash)
    painted = browser.run("document.documentElement.dataset.painted")
    for action in actions:
        browser.run(f"{action}, null")
        browser.settle()
    time.sleep(0.4)  # what glides has arrived
    path = page.parent / f"{name}.png"
    browser.screenshot(path)
    assert not browser.errors, browser.errors
    print(f"{name}: first paint after {painted} ms")
    _reduce(path, IMAGES / path.name)


def _reduce(source: Path, path: Path) -> None:
    """Keep a picture in few bytes: a palette of 256 colours is enough for all of these."""
    from PIL import Image

    Image.open(source).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")


PAGES = {"explaining-a-model": explaining, "debugging": debugging, "viewer": viewer}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    os.environ.pop("TENON_DUMP", None)
    for name in sys.argv[1:] or PAGES:
        with tempfile.TemporaryDirectory() as folder:
            PAGES[name](Path(folder))


if __name__ == "__main__":
    main()

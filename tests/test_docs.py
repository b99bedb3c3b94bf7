"""Every Python block of the documentation runs, and the README's commands are those that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^<!-- ci: (\w+) -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> str:
    """The page's Python blocks as one program whose lines have the numbers that they have in the page."""
    text = page.read_text(encoding="utf-8")
    program: list[str] = []
    for found in BLOCK.finditer(text):
        first = text.count("\n", 0, found.start(1))
        program += [""] * (first - len(program)) + found.group(1).splitlines()
    return "\n".join(program)


# Pages whose programs compile for seconds.
LONG = {
    "generation.md", "explaining-a-model.md", "profiling.md", "debugging.md", "training.md", "mixed-precision.md",
    "reading-a-dump.md", "loops.md", "coming-from-pytorch.md", "autotuning.md",
}  # fmt: skip


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=pytest.mark.slow if p.name in LONG else (), id=p.name)
        for p in PAGES
        if BLOCK.search(p.read_text("utf-8"))
    ],
)
def test_the_code_blocks_run(page, python, tmp_path):
    script = tmp_path / f"{page.stem}.py"
    script.write_text(blocks(page), encoding="utf-8")
    python(script)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_ci_finds_the_commands_of_the_readme():
    commands = dict(COMMAND.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert commands.keys() == set(re.findall(r"readme_command (\w+)\)", script)) == {"train", "test"}
    assert "pytest" in commands["test"] and "examples/digits_cnn.py" in commands["train"]

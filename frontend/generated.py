"""The command line of modules that write a file from the op records: write it, or say whether it is up to date."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def write_or_check(path: Path, text: str, module: str) -> int:
    """The exit status of ``python -m module``, after it has put ``text`` at ``path``; with ``--check`` it writes
    nothing, and 1 says that the file is another."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"Write {path.name} from the op records.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is out of date")
    if parser.parse_args().check:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return 0
        print(f"{path.name} is out of date: run python -m {module}")
        return 1
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
    return 0

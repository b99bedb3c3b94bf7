"""The command ``tenon``: run a script and report, dump or profile what it compiles; look after the compile cache."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import TenonError
from engine.settings import SETTINGS
from tenon import cache, executable
from tenon.executable import Executable, unused_folder
from tenon.machine import devices
from tenon.text_format import bytes_text, plural


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for an error of the command, else the script's own."""
    options = _parser().parse_args(arguments)
    if "script" in options and not options.script.is_file():
        print(f"tenon: there is no file {options.script}", file=sys.stderr)
        return 1
    try:
        return options.action(options)
    except TenonError as error:
        if options.action in (_run, _dump, _bisect, _profile):
            raise  # an error of the user's script, with its traceback
        print(f"tenon: {error.message}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tenon",
        description="Run and look into programs compiled by Tenon.",
        epilog=f"These variables work with any script: {', '.join(s.variable for s in SETTINGS.values())}.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a script, then report each program that it compiled")
    _add_script(run)
    run.set_defaults(action=_run)

    dump = commands.add_parser("dump", help="run a script and dump each program that it compiles")
    dump.add_argument(
        "-o", "--output", "--out", type=Path, default=Path("tenon-dump"), metavar="DIR", help="default: tenon-dump"
    )
    dump.add_argument("--open", action="store_true", help="open each dump's page in the browser")
    _add_script(dump)
    dump.set_defaults(action=_dump)

    search = commands.add_parser(
        "bisect", help="run a script and compare each program that it compiles with the reference, at its first call"
    )
    search.add_argument(
        "-o", "--output", type=Path, default=Path("tenon-bisect"), metavar="DIR",
        help="where scripts that show a difference again are written (default: tenon-bisect)",
    )  # fmt: skip
    _add_script(search)
    search.set_defaults(action=_bisect)

    profiler = commands.add_parser("profile", help="run a script, then show where the time of each program went")
    profiler.add_argument(
        "--trace", type=Path, metavar="DIR", help="also write each program's trace, for ui.perfetto.dev"
    )
    _add_script(profiler)
    profiler.set_defaults(action=_profile)

    differ = commands.add_parser("diff", help="compare two dumps stage by stage, or two dumped graphs")
    differ.add_argument("before", type=Path, metavar="A", help="a dump, or one of its files")
    differ.add_argument("after", type=Path, metavar="B", help="another")
    differ.set_defaults(action=_diff)

    caches = commands.add_parser("cache", help="look after the compile cache")
    verbs = caches.add_subparsers(title="actions", required=True, metavar="ACTION")
    info = verbs.add_parser("info", help="where it is and what it holds")
    info.set_defaults(action=_cache_info)
    clear = verbs.add_parser("clear", help="delete every entry")
    clear.set_defaults(action=_cache_clear)
    explain = verbs.add_parser("explain", help="run a script, then say what was not in the cache, and why")
    _add_script(explain)
    explain.set_defaults(action=_cache_explain)

    found = commands.add_parser("devices", help="list what programs can be compiled for here")
    found.set_defaults(action=_devices)
    return parser


def _add_script(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("script", type=Path, help="a Python file")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="its own arguments")


# --- actions -----------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    created: list[Executable] = []
    status = _run_script(options, created)
    print(f"\n{plural(len(created), 'program')} compiled by {options.script.name}:", file=sys.stderr)
    for one in created:
        print(f"  {one.report}", file=sys.stderr)
    return status


def _dump(options: argparse.Namespace) -> int:
    import webbrowser

    created: list[Executable] = []
    status = _run_script(options, created)
    for one in created:
        folder = one.dump(unused_folder(options.output, one.name))
        print(f"dumped {folder}", file=sys.stderr)
        if options.open and not webbrowser.open((folder / "index.html").resolve().as_uri()):
            print(f"no browser was found to open {folder / 'index.html'}", file=sys.stderr)
    return status


def _bisect(options: argparse.Namespace) -> int:
    from tenon.inspection.bisect import at_first_calls

    found: list[object] = []

    def tell(name: str, difference: object) -> None:
        found.append(difference)
        print(f"{name}: {difference or 'no difference'}", file=sys.stderr)

    with at_first_calls(options.output, tell):
        status = _run_script(options, [])
    if not found:
        print("the script called no program", file=sys.stderr)
    return status or int(any(found))


def _profile(options: argparse.Namespace) -> int:
    from tenon.inspection.profiling import recorded

    with recorded() as recordings:
        status = _run_script(options, [])
    for recording in recordings:
        found = recording.profile()
        print(f"\n{recording.text(found)}", file=sys.stderr)
        if options.trace and found:
            options.trace.mkdir(parents=True, exist_ok=True)
            path = found.save_trace(unused_folder(options.trace, f"{found.name}.json"))
            print(f"\nwrote {path}", file=sys.stderr)
    return status


def _diff(options: argparse.Namespace) -> int:
    from tenon.inspection.diff import diff, files, show

    return int(show((diff(a, b) for a, b in files(options.before, options.after)), sys.stdout))


def _cache_info(options: argparse.Namespace) -> int:
    for name, value in cache.info().items():
        if value is None or value == "":
            continue
        print(f"{name}: {bytes_text(value) if name.endswith('bytes') and isinstance(value, int) else value}")
    return 0


def _cache_clear(options: argparse.Namespace) -> int:
    print(f"{cache.clear()} entries deleted")
    return 0


def _cache_explain(options: argparse.Namespace) -> int:
    status = _run_script(options, [])
    print(cache.explain(), file=sys.stderr)
    return status


def _devices(options: argparse.Namespace) -> int:
    for device in devices():
        print(device)
    return 0


def _run_script(options: argparse.Namespace, created: list[Executable]) -> int:
    """Run the script as ``python script.py args`` would; fills ``created``. Returns its exit status."""
    script: Path = options.script
    arguments, path = sys.argv, sys.path[:]
    sys.argv = [str(script), *options.args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    executable.on_created.append(created.append)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as leaving:
        return _status(leaving)
    finally:
        executable.on_created.remove(created.append)
        sys.argv, sys.path[:] = arguments, path
    return 0


def _status(leaving: SystemExit) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code
    print(leaving.code, file=sys.stderr)
    return 1

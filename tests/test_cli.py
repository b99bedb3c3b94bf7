"""The command line, and the environment variables that work with any script."""

from __future__ import annotations

import json

import pytest

from tenon import cli

SCRIPT = """
import sys
import numpy as np
import tenon as tn

def double(x):
    return 2 * x

exe = tn.compile(double, tn.spec("B"))
print(sys.argv[1:], exe(np.ones(2, np.float32)).tolist(), __name__)
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "double.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def test_run_passes_arguments_on_and_reports(script, python):
    found = python("-m", "tenon", "run", script, "3", "--flag", status=3)
    assert found.stdout.strip() == "['3', '--flag'] [2.0, 2.0] __main__"
    assert "1 program compiled by double.py:\n  double: 2 nodes in 1 fused kernel" in found.stderr


def test_dump_writes_each_program_and_opens_the_page(script, python, tmp_path):
    found = python("-m", "tenon", "dump", "-o", tmp_path / "out", script)
    assert f"dumped {tmp_path / 'out' / 'double'}" in found.stderr
    assert (tmp_path / "out" / "double" / "00-trace.py").is_file()
    again = python("-m", "tenon", "dump", "--out", tmp_path / "out", "--open", script, BROWSER="echo opened %s")
    assert f"dumped {tmp_path / 'out' / 'double-2'}" in again.stderr
    assert f"opened {(tmp_path / 'out' / 'double-2' / 'index.html').as_uri()}" in again.stdout


def test_bisect_looks_at_each_program(script, python):
    found = python("-m", "tenon", "bisect", script)
    assert found.stdout.strip() == "[] [2.0, 2.0] __main__" and found.stderr.strip() == "double: no difference"


def test_tenon_dump_works_with_any_script(script, python, tmp_path):
    python(script, TENON_DUMP=str(tmp_path / "out"))
    kernels = list((tmp_path / "out" / "double" / "kernels").iterdir())
    assert {p.suffix for p in kernels} == {".py", ".ll", ".s"}


def test_cache_info_explain_and_clear(script, python, tmp_path, monkeypatch, capsys):
    folder = str(tmp_path / "cache")
    monkeypatch.setenv("TENON_CACHE", folder)

    def told(*arguments):
        assert cli.main(["cache", *arguments]) == 0
        return capsys.readouterr().out

    explained = python("-m", "tenon", "cache", "explain", script).stderr
    assert "program double: absent" in explained
    shown = told("info")
    assert f"folder: {folder}" in shown and "programs: 1" in shown
    explained = python("-m", "tenon", "cache", "explain", script).stderr
    assert "program double: hit" in explained
    assert "entries deleted" in told("clear") and "programs: 0" in told("info")


def test_devices(capsys):
    assert cli.main(["devices"]) == 0
    assert capsys.readouterr().out.startswith("cpu: ")


@pytest.mark.parametrize("arguments", ([], ["run"], ["cache"], ["fly"]))
def test_a_wrong_command_line_shows_the_usage(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "usage: tenon" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", (["--help"], ["run", "--help"], ["dump", "-h"], ["cache", "explain", "-h"]))
def test_help(arguments, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(arguments)
    assert "usage: tenon" in capsys.readouterr().out


def test_a_missing_script_is_named(tmp_path, capsys):
    assert cli.main(["run", str(tmp_path / "nothing.py")]) == 1
    told = capsys.readouterr().err
    assert "there is no file" in told and "compiled" not in told


def test_an_unsafe_cache_is_an_error_without_a_traceback(python, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    failed = python("-m", "tenon", "cache", "info", status=1, TENON_CACHE=str(folder)).stderr
    assert failed.startswith("tenon: the compile cache does not use") and "Traceback" not in failed


CALLS = """
import numpy as np
import tenon as tn

exe = tn.compile(lambda x: 2 * x, tn.spec("B"), name="double")
for size in (2, 5, 5, 5):
    exe(np.ones(size, np.float32))
tn.compile(lambda x: x + 1, tn.spec("B"), name="idle")
"""


@pytest.fixture
def calls(tmp_path):
    path = tmp_path / "calls.py"
    path.write_text(CALLS, encoding="utf-8")
    return path


def test_profile_shows_where_time_went(calls, python, tmp_path):
    found = python("-m", "tenon", "profile", "--trace", tmp_path / "traces", calls).stderr
    assert "double at B=5" in found and "of 3 calls" in found and "call overhead" in found
    assert "pass fuse" in found or "loaded" in found
    assert "idle: called once at most" in found
    trace = json.loads((tmp_path / "traces" / "double.json").read_text())
    assert trace["otherData"] == {"program": "double", "B": "5"}


@pytest.mark.slow
def test_a_variable_profiles_any_script(calls, python):
    found = python(calls, TENON_PROFILE="1").stderr
    assert "double at B=5" in found and "idle: called once at most" in found

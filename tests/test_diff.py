"""tn.diff and what dumps say of each pass: nodes added, removed and rewritten, and by which rule."""

from __future__ import annotations

import io

import pytest

import tenon as tn
from tenon import cli
from tenon.inspection.diff import of_stages, show


def f(x):
    a = x * 1.0
    b = a * a
    return (b + 0.0).sum() + tn.mean(b)


@pytest.fixture(scope="module")
def exe():
    return tn.compile(f, tn.spec("B", 3))


def test_a_pass_tells_what_it_rewrote_and_by_which_rule(exe):
    found = of_stages(list(exe.stages.items()))["simplify"]
    assert {"x * 1", "x * x", "x + 0"} <= set(found.rules)
    squared = next(c for c in found.changes if c.rule == "x * x")
    assert squared.kind == "rewritten" and squared.before[0].endswith("= t1 * t1")
    assert squared.after[0].endswith("= square(x)")
    gone = next(c for c in found.changes if c.rule == "x * 1")
    assert gone.after == ("t1 is x now",)
    text = str(found)
    assert "rewritten by 'x * x'" in text and f"- {squared.before[0]}" in text and "by rule: " in text
    assert not any(c.kind == "rewritten" and not c.rule for c in found.changes)  # reading a new name is no change


def test_fusing_shows_as_kernels_and_decomposing_by_the_op(exe):
    stages = of_stages(list(exe.stages.items()))
    assert stages["fuse"].changes == () and "1 kernel made" in stages["fuse"].summary
    assert all("kernel " in k.after[0] for k in stages["fuse"].kernels)
    assert "mean" in stages["decompose"].rules
    assert not stages["autodiff"] and "no difference" in stages["autodiff"].summary


def test_graphs_of_other_programs_are_aligned_by_what_they_compute(exe, tmp_path):
    def g(x):
        a = tn.exp(x * 1.0)  # one more op: later values have other names
        b = a * a
        return (b + 0.0).sum() + tn.mean(b)

    other = tn.compile(g, tn.spec("B", 3), target="reference")
    found = tn.diff(exe.graph, other.graph)
    assert [c.kind for c in found.changes] == ["added", "rewritten"]  # and what reads exp(x) instead of x
    assert "exp(t" in found.changes[0].after[0]
    assert not tn.diff(exe.graph, exe.graph)


def test_dumps_hold_the_differences_and_are_compared(exe, tmp_path, capsys):
    first = exe.dump(tmp_path / "first")
    text = (first / "01-simplify.diff").read_text()
    assert "rewritten by 'x * x'" in text and "\x1b" not in text
    assert (first / "01-simplify.py").read_text().splitlines()[0].endswith(text.splitlines()[0].split(", ", 1)[1])
    second = tn.compile(lambda x: (x * x).sum(), tn.spec("B", 3), name="f").dump(tmp_path / "second")
    assert cli.main(["diff", str(first), str(first)]) == 0
    assert "no difference" in capsys.readouterr().out
    assert cli.main(["diff", str(first / "00-trace.py"), str(second / "00-trace.py")]) == 1
    assert "removed" in capsys.readouterr().out
    assert cli.main(["diff", str(first), str(first / "00-trace.py")]) == 1
    assert "give two files or two dumps" in capsys.readouterr().err


def test_colour_is_for_terminals(exe, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    changed = [of_stages(list(exe.stages.items()))["simplify"]]
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for stream, colored in ((Terminal(), True), (io.StringIO(), False)):
        assert show(changed, stream)
        assert ("\x1b[32m+ " in stream.getvalue()) == colored
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    show(changed, plain)
    assert "\x1b" not in plain.getvalue()

"""The guard against regressions: counts of four training steps, beside those that are checked in."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import guard

ROOT = Path(guard.__file__).parent.parent


@pytest.mark.slow
def test_training_steps_cost_no_more_than_they_did() -> None:
    """In a process of its own, which compiles for another processor than this one."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.guard"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_what_has_grown_is_named() -> None:
    before = json.loads(guard.PATH.read_text(encoding="utf-8"))
    now = copy.deepcopy(before)
    assert list(guard.grown(before, now)) == []
    now["cnn"]["barriers"] += 5
    now["gpt"]["arena"] //= 2
    now["lstm"]["arena"] += now["lstm"]["arena"] // 100  # within what is allowed
    now["encoder"]["hot loops"]["attention_kernel"] *= 1.5
    first, second = guard.grown(before, now)
    assert first == f"cnn: barriers: {before['cnn']['barriers']} has become {now['cnn']['barriers']}"
    assert second.startswith("encoder: instructions a multiply-add in attention_kernel: ")
    now["llvm"] = "another"
    assert list(guard.grown(before, now)) == [first]


def test_loops_are_found_in_assembly() -> None:
    assembly = """
    .LBB0_1:                                # %outer
        addq $1, %rax
    .LBB0_2:
        vfmadd231ps %ymm0, %ymm1, %ymm2
        cmpq %rax, %rbx
        jne .LBB0_2
        cmpq %rcx, %rbx
        jne .LBB0_1
        retq
    """
    (loop,) = guard.innermost(assembly)
    assert loop == ["vfmadd231ps %ymm0, %ymm1, %ymm2", "cmpq %rax, %rbx", "jne .LBB0_2"]

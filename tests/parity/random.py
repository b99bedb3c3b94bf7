"""Random: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from parity import Case, ModuleCase

CASES: list[Case | ModuleCase] = []

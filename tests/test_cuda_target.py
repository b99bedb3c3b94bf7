"""The target cuda where it cannot run: it says what is missing; nothing of it is imported before it is asked for."""

from __future__ import annotations

MISSING = """
import sys
sys.modules["cuda"] = None
import tenon as tn
from engine.errors import TenonError
assert [d.target for d in tn.devices()] == ["cpu"]
try:
    tn.compile(lambda x: x + 1, tn.spec("N"), target="cuda")
except TenonError as error:
    print(type(error).__name__, error)
"""
UNTOUCHED = """
import sys
import numpy as np
import tenon as tn
tn.compile(lambda x: x + 1, tn.spec("N"))(np.ones(3, np.float32))
print([name for name in sys.modules if name.startswith(("cuda.", "numba.cuda", "runtime.cuda", "greenlet"))])
"""
SIMULATED = """
import sys
sys.modules["greenlet"] = None
import tenon as tn
from engine.errors import TenonError
try:
    tn.compile(lambda x: x + 1, tn.spec("N"), target="cuda")
except TenonError as error:
    print(error)
"""


def test_without_the_extra_the_error_says_what_to_install(python):
    found = python("-c", MISSING).stdout
    assert found.startswith("UnsupportedError") and 'pip install "tenon[cuda]"' in found


def test_the_simulator_says_what_it_needs(python):
    found = python("-c", SIMULATED, NUMBA_ENABLE_CUDASIM="1").stdout
    assert "NUMBA_ENABLE_CUDASIM=1 is set" in found and 'pip install "tenon[cuda-test]"' in found


def test_programs_for_the_cpu_import_nothing_of_cuda(python):
    assert python("-c", UNTOUCHED).stdout.strip() == "[]"

"""``tn.check_nan`` names the first op that makes a NaN or an infinity."""

from __future__ import annotations

import numpy as np

import tenon as tn
from tenon import F


def test_the_first_op_and_its_line():
    def f(x):
        y = x * 2
        z = tn.log(y)  # the fault
        return (z - z).sum()

    exe = tn.compile(f, tn.spec("B"), target="reference")
    assert tn.check_nan(exe, np.ones(3, "f4")) is None
    found = tn.check_nan(exe, np.array([1, 0, 0], "f4"))
    assert (found.op, found.value, found.position, found.count) == ("log", -np.inf, (1,), 2)
    assert found.location.line == f.__code__.co_firstlineno + 2
    assert "log gave -inf at" in str(found) and "test_check_nan.py" in str(found)


def test_gradients_are_looked_at_too():
    exe = tn.compile(tn.grad(lambda x: tn.sqrt(x).sum()), tn.spec(2), target="reference")
    found = tn.check_nan(exe, np.array([1, 0], "f4"))
    assert found.value == np.inf and found.position == (1,)


def test_an_input_is_named_itself_and_a_mask_is_no_fault():
    def f(x):
        return F.softmax(tn.where(x > 0, x, float("-inf")), -1)

    exe = tn.compile(f, tn.spec(3), target="reference")
    assert tn.check_nan(exe, np.array([1, -1, 2], "f4")) is None
    found = tn.check_nan(exe, np.array([1, np.nan, 2], "f4"))
    assert found.op == "input" and found.name == "x" and np.isnan(found.value)

"""No kernel touches a byte outside the caller's arrays: each lies against a page that may not be read or written."""

from __future__ import annotations

import sys

import pytest

PROGRAM = '''
import ctypes, mmap
import numpy as np
import tenon as tn
from tenon import F

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
kept = []


def fenced(value, at_end):
    """A copy of ``value`` between two forbidden pages, that touches the second one, or the first."""
    value = np.array(value, order="C")
    pages = -(-value.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    kept.append(memory)
    base = np.frombuffer(memory, np.uint8).ctypes.data
    for forbidden in (base, base + (pages + 1) * PAGE):
        assert libc.mprotect(forbidden, PAGE, 0) == 0, ctypes.get_errno()
    start = (pages + 1) * PAGE - value.nbytes if at_end else PAGE
    array = np.frombuffer(memory, value.dtype, value.size, start).reshape(value.shape)
    array[...] = value
    return array


def specs(arrays):
    return [tn.spec(*a.shape, dtype=a.dtype) for a in arrays]


def check(name, function, *arrays):
    exe = tn.compile(function, *specs(arrays), name=name)
    expected = tn.compile(function, *specs(arrays), target="reference")(*arrays)
    for at_end in (True, False):
        out = fenced(np.zeros_like(expected), at_end)
        exe(*(fenced(a, at_end) for a in arrays), out=out)
        np.testing.assert_allclose(out, expected, rtol=2e-4, atol=2e-4, err_msg=name)


rng = np.random.default_rng(0)
'''

CASES = {
    "products": """
for m, k, n in ((1, 1, 1), (5, 7, 3), (13, 9, 32), (17, 33, 47), (3, 130, 64)):
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((m, k), (k, n)))
    check(f"product_{m}_{k}_{n}", lambda a, b: a @ b, a, b)
    check(f"transposed_{m}_{k}_{n}", lambda a, b: a.transpose(0, 1) @ b.transpose(0, 1),
          np.ascontiguousarray(a.T), np.ascontiguousarray(b.T))
""",
    "convolutions": """
cases = (1, 1, 5, 5, 3, 3, 1, 1), (2, 3, 9, 7, 17, 3, 2, 0), (1, 16, 6, 6, 32, 1, 1, 0)
for n, c, h, w, o, k, stride, padding in cases:
    x = rng.standard_normal((n, c, h, w)).astype(np.float32)
    weight = rng.standard_normal((o, c, k, k)).astype(np.float32)
    convolve = lambda x, weight: F.conv2d(x, weight, stride=stride, padding=padding)
    check(f"conv_{c}_{o}", convolve, x, weight)
    check(f"pool_{c}_{o}", lambda x, weight: F.max_pool2d(F.relu(convolve(x, weight)), 2), x, weight)
    loss = lambda x, weight: convolve(x, weight).square().sum()
    check(f"grad_x_{c}_{o}", tn.grad(loss, 0), x, weight)
    check(f"grad_w_{c}_{o}", tn.grad(loss, 1), x, weight)
""",
    "loops": """
for shape in ((1,), (5,), (3, 17), (2, 3, 33), (7, 5, 1)):
    x = rng.standard_normal(shape).astype(np.float32)
    check("chain", lambda x: (x * 2 + 1).exp(), x)
    check("rows", lambda x: F.softmax(x, -1), x)
    check("columns", lambda x: x.sum(0), x)
    check("flipped", lambda x: x.transpose(0, -1) + 1, x)
    check("bytes", lambda x: (x > 0).to("i8"), x)
x = rng.standard_normal((2, 3, 7, 5)).astype(np.float32)
check("pool", lambda x: F.max_pool2d(x, 3, 2, 1), x)
check("pool_grad", tn.grad(lambda x: F.max_pool2d(x, 3, 2, 1).square().sum()), x)
scores, labels = rng.standard_normal((5, 3)).astype(np.float32), np.array([0, 2, 1, 1, 0])
check("labels", lambda x, y: F.cross_entropy(x, y), scores, labels)
""",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pages are protected by mprotect")
@pytest.mark.parametrize("case", CASES)
def test_kernels_stay_inside_the_arrays(python, tmp_path, case):
    script = tmp_path / f"{case}.py"
    script.write_text(PROGRAM + CASES[case], encoding="utf-8")
    python("-X", "faulthandler", script)


@pytest.mark.skipif(sys.platform == "win32", reason="pages are protected by mprotect")
def test_a_byte_too_far_is_noticed(python, tmp_path):
    script = tmp_path / "beyond.py"
    script.write_text(f"{PROGRAM}\nctypes.string_at(fenced(np.ones(3), True).ctypes.data, 25)", encoding="utf-8")
    python(script, status=-11)

"""Division with remainder and integer powers as NumPy has them, in the words of any backend's kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Word = Callable[..., Any]


def words(
    helper: Callable[[Word], Word], absolute: Word, floor: Word, select: Word, with_sign_of: Word
) -> tuple[Word, Word, Word]:
    """``float_mod``, ``float_floordiv`` and ``integer_pow``. ``helper`` compiles a function for kernels to call; the
    others are words of the backend."""

    @helper
    def truncated_remainder(a, b):
        """C's fmod, exactly: long division in base 2, every subtraction exact by Sterbenz's lemma."""
        rest, size = absolute(a), absolute(b)
        if not (rest - rest == 0 and size > 0):  # infinite or NaN a, zero or NaN b
            return a * b - a * b + (rest - rest) / (size - size)
        step = size
        half = rest / 2
        while step <= half:
            step += step
        while step >= size and rest >= size:
            if rest >= step:
                rest -= step
            step /= 2
        return with_sign_of(rest, a)

    @helper
    def float_mod(a, b):
        """NumPy's mod: the remainder has the sign of ``b``."""
        rest = truncated_remainder(a, b)
        moved = select((rest != 0) & ((b < 0) != (rest < 0)), rest + b, rest)
        return select(rest == 0, with_sign_of(rest, b), moved)

    @helper
    def float_floordiv(a, b):
        """NumPy's floor_divide: exact where a / b, rounded, would land on the wrong side of an integer."""
        if b == 0:
            return a / b
        rest = truncated_remainder(a, b)
        ratio = (a - rest) / b
        if (rest != 0) and ((b < 0) != (rest < 0)):
            ratio -= 1
        if ratio == 0:
            return with_sign_of(ratio, a / b)
        whole = floor(ratio)
        return select(ratio - whole > type(ratio)(0.5), whole + 1, whole)

    @helper
    def integer_pow(base, exponent):
        """base**exponent, wrapping; a negative exponent, which NumPy refuses, gives 1 / base**n, truncated."""
        result = base - base + 1
        if exponent < 0:
            if base == 1:
                return result
            if base == -1:
                return result if exponent % 2 == 0 else -result
            return result - 1
        while exponent > 0:
            if exponent & 1:
                result *= base
            base *= base
            exponent >>= 1
        return result

    return float_mod, float_floordiv, integer_pow

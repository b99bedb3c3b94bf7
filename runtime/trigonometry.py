"""sin, cos and tan without branches, correct for every finite argument.

The argument is reduced in the manner of Payne and Hanek (SIGNUM Newsletter 18, 1983), with a table by exponent in
place of their bit string: x = m * 2**e, and the table holds 2**e * 2/pi modulo 4 in several parts, so that m times
it gives quadrant and fraction for any size of x. Polynomials: Cephes sinf/cosf (Moshier) for f32, FreeBSD's
k_sin.c/k_cos.c (Sun Microsystems, 1993) for f64.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from runtime.irvalue import F32, F64, I32, I64, Num, fast_two_sum, two_product, two_sum

_PI_BITS = 1400


@lru_cache(maxsize=1)
def _two_over_pi() -> Fraction:
    """2/pi to 1400 bits, by Machin's formula: enough for the largest float64 times its least possible remainder."""
    one = 1 << (_PI_BITS + 32)

    def arctan_of_inverse(n: int) -> int:
        total = term = one // n
        k, sign = 1, -1
        while term:
            term //= n * n
            k += 2
            total += sign * (term // k)
            sign = -sign
        return total

    pi = 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))
    return Fraction(2 * one, pi)


def _leading(value: Fraction, bits: int) -> float:
    """``value`` cut to its first ``bits`` significant bits."""
    if value == 0:
        return 0.0
    scale = bits - (value.numerator.bit_length() - value.denominator.bit_length()) - 1
    scaled = value * Fraction(2) ** scale
    return float(Fraction(int(scaled)) / Fraction(2) ** scale)


@lru_cache(maxsize=2)
def _table(exponents: tuple[int, int], parts: tuple[int, ...]) -> list[list[float]]:
    """For each exponent, 2**e * 2/pi modulo 4 as a sum of floats of the given numbers of bits."""
    columns: list[list[float]] = [[] for _ in parts]
    for e in range(*exponents):
        rest = _two_over_pi() * Fraction(2) ** e
        rest -= int(rest) // 4 * 4
        for column, bits in zip(columns, parts, strict=True):
            column.append(_leading(rest, bits))
            rest -= Fraction(column[-1])
    return columns


def _row(exponent: Num, first: int, last: int) -> Num:
    """The table's row for a biased exponent, as an i64, inside the table for every argument."""
    row = (exponent < first).where(first, exponent)
    row = (row > last).where(last, row)
    return (row - first).to(I64)


def _split_quadrant(x: Num) -> tuple[Num, Num]:
    """The nearest whole number to ``x`` in [-8, 8], as an integer modulo 4 and as a float."""
    whole = x.rint()
    return (whole + 1.5 * 2.0**52).bits() & 3, whole


def _modulo_4(x: Num) -> Num:
    return x - (x * 0.25).rint() * 4.0


_PIO2, _PIO2_LOW = 1.5707963267948966, 6.123233995736766e-17
_FIRST_F32, _LAST_F32 = 63, 254
_FIRST_F64, _LAST_F64 = 983, 2046


def _reduce_f32(x: Num) -> tuple[Num, Num]:
    """Quadrant (i64) and remainder in [-pi/4, pi/4] of |x|, an f64."""
    size = x.abs()
    bits = size.bits()
    high, low = _table((_FIRST_F32 - 150, _LAST_F32 - 149), (28, 53))
    row = _row(bits >> 23, _FIRST_F32, _LAST_F32)
    mantissa = ((bits & 0x7FFFFF) | (150 << 23)).as_float().to(F64)
    product = _modulo_4(mantissa * x.table("tenon.two_over_pi_f32.0", high, row))
    rest = mantissa * x.table("tenon.two_over_pi_f32.1", low, row)  # up to a quarter, so it counts for the quadrant
    quadrant, whole = _split_quadrant(product + rest)
    fraction = (product - whole) + rest
    return quadrant, (size < 2.0**-40).where(size.to(F64), fraction * _PIO2)


def _reduce_f64(x: Num) -> tuple[Num, Num, Num]:
    """Quadrant (i64), remainder and its error of |x|: 212 bits of 2/pi against a mantissa of 53."""
    size = x.abs()
    bits = size.bits()
    columns = _table((_FIRST_F64 - 1075, _LAST_F64 - 1074), (53, 53, 53, 53))
    row = _row(bits >> 52, _FIRST_F64, _LAST_F64)
    mantissa = ((bits & ((1 << 52) - 1)) | (1075 << 52)).as_float()
    parts = [x.table(f"tenon.two_over_pi_f64.{k}", column, row) for k, column in enumerate(columns)]
    (p1, e1), (p2, e2), (p3, e3) = (two_product(mantissa, part) for part in parts[:3])
    middle, middle_error = two_sum(e1, p2)
    high, high_error = two_sum(_modulo_4(p1), middle)
    quadrant, whole = _split_quadrant(high)
    high = high - whole
    tail, tail_error = two_sum(e2, p3)
    upper, upper_error = two_sum(high_error, middle_error)
    low, low_error = two_sum(upper, tail)
    rest = low_error + upper_error + tail_error + (e3 + mantissa * parts[3])
    high, error = two_sum(high, low)
    high, error = fast_two_sum(high, error + rest)
    remainder, below = two_product(high, _PIO2)
    below = high.fma(_PIO2_LOW, error.fma(_PIO2, below))
    small = size < 2.0**-30
    return quadrant, small.where(size, remainder), small.where(0.0, below)


_SIN_F32 = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS_F32 = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_SIN_F64 = (1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06,
            -1.98412698298579493134e-04, 8.33333333332248946124e-03)  # fmt: skip
_SIN_F64_FIRST = -1.66666666666666324348e-01
_COS_F64 = (-1.13596475577881948265e-11, 2.08757232129817482790e-09, -2.75573143513906633035e-07,
            2.48015872894767294178e-05, -1.38888888888741095749e-03, 4.16666666666666019037e-02)  # fmt: skip


def _sin_and_cos(r: Num, below: Num) -> tuple[Num, Num]:
    """sin and cos of ``r + below`` in [-pi/4, pi/4]."""
    z = r * r
    if r.is_f32:
        sine = (z.polynomial(_SIN_F32) * z).fma(r, r)
        return sine, (z * z).fma(z.polynomial(_COS_F32), z.fma(-0.5, 1.0))
    v = z * r
    sine = r - ((z * (below * 0.5 - v * z.polynomial(_SIN_F64)) - below) - v * _SIN_F64_FIRST)
    half = z * 0.5
    w = 1.0 - half
    return sine, w + (((1.0 - w) - half) + (z * (z * z.polynomial(_COS_F64)) - r * below))


def _reduced(x: Num) -> tuple[Num, Num, Num]:
    if x.is_f32:
        whole, remainder = _reduce_f32(x)
        return whole.to(I32), *_sin_and_cos(remainder.to(F32), x.like(0.0))
    quadrant, r, below = _reduce_f64(x)
    return quadrant, *_sin_and_cos(r, below)


def _negated_by(value: Num, bit_1: Num) -> Num:
    """``value`` with its sign changed where bit 1 of an integer is set."""
    width = 32 if value.is_f32 else 64
    return (value.bits() ^ ((bit_1 & 2) << (width - 2))).as_float()


def _unless_infinite(x: Num, result: Num) -> Num:
    return (x.abs() < float("inf")).where(result, x - x)


def sin(x: Num) -> Num:
    quadrant, sine, cosine = _reduced(x)
    value = _negated_by((quadrant & 1).differs(0).where(cosine, sine), quadrant)
    return _unless_infinite(x, (value.bits() ^ (x.bits() ^ x.abs().bits())).as_float())


def cos(x: Num) -> Num:
    quadrant, sine, cosine = _reduced(x)
    value = (quadrant & 1).differs(0).where(sine, cosine)
    return _unless_infinite(x, _negated_by(value, quadrant + 1))


def tan(x: Num) -> Num:
    """sin / cos. Three roundings are too many for f32, whose remainder is an f64 as it is, and goes on as one."""
    if x.is_f32:
        quadrant, remainder = _reduce_f32(x)
        sine, cosine = _sin_and_cos(remainder, remainder.like(0.0))
    else:
        quadrant, sine, cosine = _reduced(x)
    odd = (quadrant & 1).differs(0)
    value = (odd.where(-cosine, sine) / odd.where(sine, cosine)).to(x.type)
    return _unless_infinite(x, (value.bits() ^ (x.bits() ^ x.abs().bits())).as_float())


# --- arctangent ------------------------------------------------------------------------------------------------

_PI_F32 = (3.1415927410125732, -8.742277657347586e-08)
_PI_F64 = (3.141592653589793, 1.2246467991473532e-16)
_ATAN_F32 = (-6.45159726e-02, 1.07436316e-01, -1.42639464e-01, 1.99995402e-01, -3.33333318e-01)
_ATAN_F64_P = (-8.750608600031904122785e-1, -1.615753718733365076637e1, -7.500855792314704667340e1,
               -1.228866684490136173410e2, -6.485021904942025371773e1)  # fmt: skip
_ATAN_F64_Q = (1.0, 2.485846490142306297962e1, 1.650270098316988542046e2, 4.328810604912902668951e2,
               4.853903996359136964868e2, 1.945506571482613964425e2)  # fmt: skip


def atan(x: Num) -> Num:
    """Cephes atan (Moshier): one of three reductions, then a rational function of the square; for f32 a polynomial (a
    Chebyshev fit of (atan(r) / r - 1) / r**2 up to tan(pi/8), one term longer than in Cephes's atanf)."""
    size = x.abs()
    far = size > 2.414213562373095
    middle = size > (0.4142135623730950 if x.is_f32 else 0.66)
    top = far.where(-1.0, middle.where(size - 1.0, size))
    bottom = far.where(size, middle.where(size + 1.0, size.like(1.0)))
    r = top / bottom
    z = r * r
    series = z.polynomial(_ATAN_F32) if x.is_f32 else z.polynomial(_ATAN_F64_P) / z.polynomial(_ATAN_F64_Q)
    pi, pi_low = _PI_F32 if x.is_f32 else _PI_F64
    value = r + (z * r).fma(series, far.where(size.like(pi_low / 2), middle.where(size.like(pi_low / 4), 0.0)))
    return (value + far.where(pi / 2, middle.where(size.like(pi / 4), 0.0))).copysign(x)


def atan2(y: Num, x: Num) -> Num:
    """The angle of (x, y), as C's atan2: signs of zero and infinities count."""
    height, width = y.abs(), x.abs()
    equal_infinite = height.equals(float("inf")) & width.equals(float("inf"))
    both_zero = height.equals(0.0) & width.equals(0.0)
    ratio = both_zero.where(0.0, equal_infinite.where(1.0, height / width))
    angle = atan(ratio)
    pi, pi_low = _PI_F32 if x.is_f32 else _PI_F64
    return (x.bits() < 0).where(pi - (angle - pi_low), angle).copysign(y)

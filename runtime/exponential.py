"""exp, log and what is made of them, as straight lines of instructions that vectorise.

Every function takes and gives a :class:`Num` of f32 or f64; NaN, infinities, denormals and overflow come out as in
NumPy. Sources: Cephes (Moshier) for expm1 of f32, FreeBSD's msun (Sun Microsystems, 1993) for log, log1p and erf of
f64, J. M. Muller et al., Handbook of Floating-Point Arithmetic, for the double-length sums in pow. The polynomials of
exp and erf of f32 are minimax, found by Lawson's iteration; a coefficient is rounded before higher ones are fitted.
"""

from __future__ import annotations

import math

from runtime.irvalue import F64, Num, fast_two_sum, power_of_two, two_product, two_sum

_INFINITY = float("inf")
_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_EXP_F32 = (1.3863428e-3, 8.36743508e-3, 4.16672416e-2, 1.66665345e-1, 0.5)
_EXPM1_F32 = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_EXP_F64 = tuple(1 / math.factorial(k) for k in range(13, 1, -1))


def _reduce(x: Num) -> tuple[Num, Num]:
    """n (integer) and r with x = n ln 2 + r; |r| <= ln 2 / 2 (Cody and Waite)."""
    if x.is_f32:
        magic, high, low = 1.5 * 2.0**23, 0.693359375, -2.12194440e-4
    else:
        magic, high, low = 1.5 * 2.0**52, _LN2_HIGH, _LN2_LOW
    shifted = x.fma(_LOG2E, magic)
    n = shifted - magic
    r = n.fma(-low, n.fma(-high, x))
    return shifted.bits() - x.like(magic).bits(), r


def exp(x: Num) -> Num:
    # Beyond these bounds the result overflows or vanishes by itself in the two last products.
    x = x.at_most(89.0).at_least(-104.0) if x.is_f32 else x.at_most(710.0).at_least(-746.0)
    n, r = _reduce(x)
    return r.polynomial([*(_EXP_F32 if x.is_f32 else _EXP_F64), 1.0, 1.0]).scaled(n)


def _half_expm1(x: Num) -> Num:
    """(exp(x) - 1) / 2 for x that does not overflow by far: rounded where it is added up, not before."""
    n, r = _reduce(x)
    q = r.polynomial(_EXPM1_F32 if x.is_f32 else _EXP_F64)
    scale = power_of_two(n - 1)  # half of 2**n, which itself may overflow
    return scale.fma(r * r * q, scale.fma(r, scale - 0.5))


def expm1(x: Num) -> Num:
    return _half_expm1(x.at_most(89.0).at_least(-18.0) if x.is_f32 else x.at_most(710.0).at_least(-38.0)) * 2.0


def sigmoid(x: Num) -> Num:
    """a - a * e / (e + 1) with e = exp(-|x|), which never overflows, and a = e below 0, else 1: e + 1 is rounded, and
    what that costs counts for less than in a / (e + 1)."""
    e = exp(-x.abs())
    a = (x < 0.0).where(e, 1.0)
    return (e / (e + 1.0)).fma(-a, a)


def tanh(x: Num) -> Num:
    """h / (h + 1) with h = (exp(2|x|) - 1) / 2; where h < 1, less what rounding h + 1 added."""
    h = _half_expm1((x.abs() * 2.0).at_most(20.0 if x.is_f32 else 40.0))
    s = h + 1.0
    value = h / s
    lost = (h < 1.0).where(h - (s - 1.0), 0.0)
    return lost.fma(value.fma(value, -value), value).copysign(x)  # 1 / s is 1 - value


# --- logarithms ------------------------------------------------------------------------------------------------

_LOG_F32 = (0.24279078841, 0.28498786688, 0.40000972152, 0.66666662693)
_LOG_F64 = (1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01,
            2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01)  # fmt: skip


def _split(x: Num) -> tuple[Num, Num]:
    """k (float) and m with x = 2**k * m and m in [sqrt(1/2), sqrt(2)); x is positive and finite."""
    if x.is_f32:
        shift, root, magic, least, up = 23, 0x3F3504F3, 1.5 * 2.0**23, 2.0**-126, 25
    else:
        shift, root, magic, least, up = 52, 0x3FE6A09E667F3BCD, 1.5 * 2.0**52, 2.0**-1022, 54
    tiny = x < least
    above = tiny.where(x * 2.0**up, x).bits() - root
    m = ((above & ((1 << shift) - 1)) + root).as_float()
    k = ((above >> shift) + x.like(magic).bits()).as_float() - tiny.where(x.like(magic + up), magic)
    return k, m


def _log_of(x: Num, correction: Num | None) -> Num:
    """log(x) for positive finite x; ``correction`` is a relative term to add (log1p)."""
    k, m = _split(x)
    f = m - 1.0
    s = f / (f + 2.0)
    z = s * s
    series = z * z.polynomial(_LOG_F32 if x.is_f32 else _LOG_F64)
    half_square = f * f * 0.5
    high, low = (6.9313812256e-01, 9.0580006145e-06) if x.is_f32 else (_LN2_HIGH, _LN2_LOW)
    small = k * low if correction is None else k.fma(low, correction)
    return k.fma(high, f - (half_square - s.fma(half_square + series, small)))


def _log_edges(x: Num, value: Num) -> Num:
    """log at 0, below 0, at infinity and NaN."""
    value = (x < _INFINITY).where(value, x)
    value = x.equals(0.0).where(-_INFINITY, value)
    return (x < 0.0).where(float("nan"), value)


def log(x: Num) -> Num:
    return _log_edges(x, _log_of(x, None))


def log1p(x: Num) -> Num:
    u = x + 1.0
    lost = (u >= 2.0).where(1.0 - (u - x), x - (u - 1.0)) / u
    return _log_edges(u, (x.abs() < 2.0 ** (-25 if x.is_f32 else -54)).where(x, _log_of(u, lost)))


# --- error function --------------------------------------------------------------------------------------------

_ERF_F32_NEAR = (-3.4232734e-8, 3.51467691e-7, -3.25429164e-6, 2.71280151e-5, -2.00189112e-4, 1.29693735e-3,
                 -7.26287114e-3, 3.48603837e-2, -1.46701589e-1, -2.9046154e-1)  # fmt: skip
_ERF_F32_FAR = (3.5340232e-5, -2.81321663e-5, -1.59983116e-4, 4.84457007e-4, -9.07650101e-4, 1.31893915e-3,
                -1.41463989e-3, 1.09450088e-3, -5.91992168e-4, 2.01825489e-4, 9.99967337e-1)  # fmt: skip
_ERX = 8.45062911510467529297e-01
_PP = (-2.37630166566501626084e-05, -5.77027029648944159157e-03, -2.84817495755985104766e-02,
       -3.25042107247001499370e-01, 1.28379167095512558561e-01)  # fmt: skip
_QQ = (-3.96022827877536812320e-06, 1.32494738004321644526e-04, 5.08130628187576562776e-03, 6.50222499887672944485e-02,
       3.97917223959155352819e-01, 1.0)  # fmt: skip
_PA = (-2.16637559486879084300e-03, 3.54783043256182359371e-02, -1.10894694282396677476e-01, 3.18346619901161753674e-01,
       -3.72207876035701323847e-01, 4.14856118683748331666e-01, -2.36211856075265944077e-03)  # fmt: skip
_QA = (1.19844998467991074170e-02, 1.36370839120290507362e-02, 1.26171219808761642112e-01,
       7.18286544141962662868e-02, 5.40397917702171048937e-01, 1.06420880400844228286e-01, 1.0)  # fmt: skip
_RA = (-9.81432934416914548592e+00, -8.12874355063065934246e+01, -1.84605092906711035994e+02,
       -1.62396669462573470355e+02,
       -6.23753324503260060396e+01, -1.05586262253232909814e+01, -6.93858572707181764372e-01,
       -9.86494403484714822705e-03)  # fmt: skip
_SA = (-6.04244152148580987438e-02, 6.57024977031928170135e+00, 1.08635005541779435134e+02, 4.29008140027567833386e+02,
       6.45387271733267880336e+02, 4.34565877475229228821e+02, 1.37657754143519042600e+02, 1.96512716674392571292e+01,
       1.0)  # fmt: skip
_RB = (0.0, -4.83519191608651397019e+02, -1.02509513161107724954e+03, -6.37566443368389627722e+02,
       -1.60636384855821916062e+02, -1.77579549177547519889e+01, -7.99283237680523006574e-01,
       -9.86494292470009928597e-03)  # fmt: skip
_SB = (0.0, -2.24409524465858183362e+01, 4.74528541206955367215e+02, 2.55305040643316442583e+03,
       3.19985821950859553908e+03, 1.53672958608443695994e+03, 3.25792512996573918826e+02, 3.03380607434824582924e+01,
       1.0)  # fmt: skip


def erf(x: Num) -> Num:
    """f32: two minimax polynomials; f64: s_erf.c of msun, its regions chosen by select."""
    return _erf_f32(x) if x.is_f32 else _erf_f64(x)


def _erf_f32(x: Num) -> Num:
    """erf(t) = t + t P(t**2 - 1.75) up to 1.85, P(t - 2.9375) above, 1 from 3.9375 on. Each polynomial is about its
    interval's middle, or its terms would cancel. They are evaluated as one: choosing a coefficient takes less than a
    multiply-add, and choosing a result would take both."""
    t = x.abs().at_most(3.9375)
    near = t <= 1.85
    w = near.where(t.fma(t, -1.75), t - 2.9375)
    *far, last = _ERF_F32_FAR
    value = w.polynomial([near.where(t.like(a), b) for a, b in zip(_ERF_F32_NEAR, far, strict=True)])
    return value.fma(near.where(t, w), near.where(t, last)).copysign(x)


def _erf_f64(x: Num) -> Num:
    size = x.abs()
    square = x * x
    near = x.fma(square.polynomial(_PP) / square.polynomial(_QQ), x)
    s = size - 1.0
    middle = s.polynomial(_PA) / s.polynomial(_QA) + _ERX
    closer = size < 1 / 0.35
    w = 1.0 / square
    top = w.polynomial([closer.where(w.like(a), b) for a, b in zip(_RA, _RB, strict=True)])
    bottom = w.polynomial([closer.where(w.like(a), b) for a, b in zip(_SA, _SB, strict=True)])
    far = 1.0 - exp(top / bottom - square - 0.5625) / size
    outside = (size < 6.0).where(far, size.differs(size).where(x, x.like(1.0)))
    signed = (size < 1.25).where(middle, outside).copysign(x)
    return (size < 0.84375).where(near, signed)


# --- powers ----------------------------------------------------------------------------------------------------


def _log_double_length(x: Num) -> tuple[Num, Num]:
    """log(x) of a positive finite float64 as a sum of two; relative error about 2**-63.

    log m = 2 atanh(s), s = (m - 1) / (m + 1), its first terms in double length.
    """
    k, m = _split(x)
    top = m - 1.0
    bottom, bottom_low = two_sum(m, m.like(1.0))
    s = top / bottom
    s_low = (s.fma(-bottom, top) - s * bottom_low) / bottom
    z, z_low = two_product(s, s)
    z_low = z_low + s * s_low * 2.0
    series = z * z.polynomial([2 / (2 * n + 1) for n in range(13, 1, -1)])  # what follows s and s**3
    third, third_low = 2 / 3, 3.700743415417188e-17
    inner, inner_low = fast_two_sum(z.like(third), series)
    inner_low = inner_low + third_low
    cube, cube_low = two_product(s, z)
    cube_low = cube_low + s.fma(z_low, s_low * z)
    term, term_low = two_product(cube, inner)
    term_low = term_low + cube.fma(inner_low, cube_low * inner)
    # 0.6931471805599453 + 2.3e-17 is ln 2 to 106 bits.
    whole, whole_low = two_product(k, 0.6931471805599453)
    whole_low = k.fma(2.3190468138462996e-17, whole_low)
    first, first_low = two_sum(whole, s * 2.0)
    second, second_low = two_sum(first, term)
    return fast_two_sum(second, second_low + (first_low + (whole_low + (s_low * 2.0 + term_low))))


def power(x: Num, y: Num) -> Num:
    """x**y as C's pow. f32 is computed in f64."""
    kind = x.type
    x, y = x.to(F64), y.to(F64)
    size = x.abs()
    high, low = _log_double_length(size)
    product, product_low = two_product(y, high)
    product_low = y.fma(low, product_low)
    value = exp(product)
    value = (product.abs() < 720.0).where(value.fma(product_low, value), value)
    value = size.equals(1.0).where(1.0, value)
    none, endless = size.equals(0.0), size.equals(_INFINITY)
    value = none.where((y < 0.0).where(value.like(_INFINITY), 0.0), value)
    value = endless.where((y < 0.0).where(value.like(0.0), _INFINITY), value)
    value = (x.differs(x) | y.differs(y)).where(float("nan"), value)
    whole, half = y.rint().equals(y), y * 0.5
    odd = whole & half.rint().differs(half)
    value = (odd & (x.bits() < 0)).where(-value, value)
    undefined = (x < 0.0) & (x > -_INFINITY) & y.rint().differs(y)
    value = undefined.where(float("nan"), value)
    return (y.equals(0.0) | x.equals(1.0)).where(1.0, value).to(kind)

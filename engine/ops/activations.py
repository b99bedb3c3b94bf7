"""Activation functions and further functions of numbers, each an expression over the scalar vocabulary.

Those with parameters take them as further operands; numbers become constants of the kernel.
"""

from __future__ import annotations

from engine.ops.elementwise import elementwise

_SOFTPLUS = "(maximum(x, 0) + log1p(exp(-abs(x))))"
_BELOW = "where(x >= 0, 0, x)"
"""x where an exponential stands for it. Elsewhere that would overflow, and its derivative be 0 times infinity."""
_LARGER, _SMALLER = "maximum(abs(x), abs(y))", "minimum(abs(x), abs(y))"
_GELU_INNER = "0.7978845608028654*(x + 0.044715*x*x*x)"

# name, inputs, expression, derivatives, doc
_TABLE: tuple[tuple[str, str, str, str | None, str], ...] = (
    ("leaky_relu", "x slope", "where(x > 0, x, x*slope)", "where(x > 0, g, g*slope); where(x > 0, 0, g*x)",
     "x, or slope * x below 0"),
    ("elu", "x alpha", "where(x > 0, x, alpha*expm1(x))",
     f"where(x > 0, g, g*alpha*exp({_BELOW})); g*expm1({_BELOW})",
     "x, or alpha * (exp(x) - 1) below 0: Clevert et al. (2016)"),
    ("celu", "x alpha", "where(x > 0, x, alpha*expm1(x/alpha))",
     f"where(x > 0, g, g*exp({_BELOW}/alpha)); g*(expm1({_BELOW}/alpha) - {_BELOW}/alpha*exp({_BELOW}/alpha))",
     "x, or alpha * (exp(x / alpha) - 1) below 0: Barron (2017)"),
    ("selu", "x", "where(x > 0, 1.0507009873554805*x, 1.7580993408473766*expm1(x))",
     f"where(x > 0, g*1.0507009873554805, g*1.7580993408473766*exp({_BELOW}))",
     "A scaled elu that keeps mean and variance: Klambauer et al. (2017)"),
    ("relu6", "x", "minimum(maximum(x, 0), 6)", "where(and_(x > 0, x < 6), g, 0)", "Between 0 and 6"),
    ("hardtanh", "x low high", "minimum(maximum(x, low), high)",
     "where(and_(x > low, x < high), g, 0); where(x <= low, g, 0); where(x >= high, g, 0)",
     "Between low and high"),
    ("hardsigmoid", "x", "minimum(maximum(x + 3, 0), 6) / 6", "where(and_(x > -3, x < 3), g/6, 0)",
     "A sigmoid made of straight lines"),
    ("hardswish", "x", "x * minimum(maximum(x + 3, 0), 6) / 6",
     "where(x <= -3, 0, where(x >= 3, g, g*(x/3 + 0.5)))", "x * hardsigmoid(x): Howard et al. (2019)"),
    ("hardshrink", "x lambd", "where(and_(x >= -lambd, x <= lambd), 0, x)",
     "where(or_(x < -lambd, x > lambd), g, 0); -", "0 between -lambd and lambd"),
    ("softshrink", "x lambd", "where(x > lambd, x - lambd, where(x < -lambd, x + lambd, x*0))",
     "where(or_(x < -lambd, x > lambd), g, 0); where(x > lambd, -g, where(x < -lambd, g, 0))",
     "Nearer to 0 by lambd"),
    ("tanhshrink", "x", "x - tanh(x)", "g*square(tanh(x))", "x - tanh(x)"),
    ("threshold", "x threshold value", "where(x <= threshold, value, x)",
     "where(x <= threshold, 0, g); -; where(x <= threshold, g, 0)",
     "x where it is above the threshold, else the value"),
    ("logsigmoid", "x", "minimum(x, 0) - log1p(exp(-abs(x)))", "g*sigmoid(-x)", "The logarithm of the sigmoid"),
    ("softplus", "x beta threshold",
     "where(x*beta > threshold, x, (maximum(x*beta, 0) + log1p(exp(-abs(x*beta))))/beta)",
     "where(x*beta > threshold, g, g*sigmoid(x*beta));"
     "where(x*beta > threshold, 0, g*(x*sigmoid(x*beta) - out)/beta); -", "log(1 + exp(beta * x)) / beta"),
    ("softsign", "x", "x / (1 + abs(x))", "g / square(1 + abs(x))", "x / (1 + |x|)"),
    ("silu", "x", "x*sigmoid(x)", "g*sigmoid(x)*(1 + x*(1 - sigmoid(x)))", "x * sigmoid(x), also known as swish"),
    ("mish", "x", f"x*tanh({_SOFTPLUS})",
     f"g*(tanh({_SOFTPLUS}) + x*sigmoid(x)*(1 - square(tanh({_SOFTPLUS}))))", "x * tanh(softplus(x)): Misra (2019)"),
    ("gelu", "x", "0.5*x*(1 + erf(x*0.7071067811865476))",
     "g*(0.5*(1 + erf(x*0.7071067811865476)) + 0.3989422804014327*x*exp(-0.5*x*x))",
     "x times the normal distribution's cumulative function: Hendrycks and Gimpel (2016)"),
    ("gelu_tanh", "x", f"0.5*x*(1 + tanh({_GELU_INNER}))",
     f"g*(0.5*(1 + tanh({_GELU_INNER})) + 0.5*x*(1 - square(tanh({_GELU_INNER})))"
     "*0.7978845608028654*(1 + 0.134145*x*x))", "gelu, by way of tanh"),
    ("log2", "x", "log(x)*1.4426950408889634", "g*1.4426950408889634/x", "The logarithm to base 2"),
    ("log10", "x", "log(x)*0.4342944819032518", "g*0.4342944819032518/x", "The logarithm to base 10"),
    ("exp2", "x", "2.0 ** x", "g*out*0.6931471805599453", "2 to the power x"),
    ("asin", "x", "atan2(x, sqrt((1 - x)*(1 + x)))", "g/sqrt((1 - x)*(1 + x))", "The inverse sine, in radians"),
    ("acos", "x", "atan2(sqrt((1 - x)*(1 + x)), x)", "-g/sqrt((1 - x)*(1 + x))", "The inverse cosine, in radians"),
    ("sinh", "x", "where(abs(x) < 1, (expm1(x) - expm1(-x))*0.5,"
     " exp(x - 0.6931471805599453) - exp(-x - 0.6931471805599453))",
     "g*(exp(x - 0.6931471805599453) + exp(-x - 0.6931471805599453))", "The hyperbolic sine"),
    ("cosh", "x", "exp(x - 0.6931471805599453) + exp(-x - 0.6931471805599453)",
     "g*(exp(x - 0.6931471805599453) - exp(-x - 0.6931471805599453))", "The hyperbolic cosine"),
    ("asinh", "x", "sign(x)*where(abs(x) > 1e8, log(abs(x)) + 0.6931471805599453,"
     " log1p(abs(x) + x*x/(1 + sqrt(x*x + 1))))", "g/sqrt(x*x + 1)", "The inverse hyperbolic sine"),
    ("acosh", "x", "where(x > 1e8, log(x) + 0.6931471805599453, log1p(x - 1 + sqrt(x - 1)*sqrt(x + 1)))",
     "g/sqrt((x - 1)*(x + 1))", "The inverse hyperbolic cosine"),
    ("atanh", "x", "0.5*log1p(2*x/(1 - x))", "g/((1 - x)*(1 + x))", "The inverse hyperbolic tangent"),
    ("frac", "x", "x - trunc(x)", "g", "The fraction of x, with its sign"),
    ("fmod", "x y", "where(x < 0, -(abs(x) % abs(y)), abs(x) % abs(y))", "g; -g*trunc(x/y)",
     "x - trunc(x / y) * y: the sign of x"),
    ("hypot", "x y", f"where({_LARGER} == {_SMALLER}, 1.4142135623730951*{_LARGER},"
     f" {_LARGER}*sqrt(1 + square({_SMALLER}/{_LARGER})))", "g*(x/out); g*(y/out)", "The length of (x, y)"),
    ("logaddexp", "x y", "where(x == y, x + 0.6931471805599453, maximum(x, y) + log1p(exp(-abs(x - y))))",
     "g*sigmoid(x - y); g*sigmoid(y - x)", "log(exp(x) + exp(y))"),
    ("xlogy", "x y", "where(and_(x == 0, y == y), 0, x*log(y))", "where(and_(x == 0, y <= 0), 0, g*log(y)); g*x/y",
     "x * log(y), 0 where x is 0"),
    ("lerp", "x y weight", "x + weight*(y - x)", "g*(1 - weight); g*weight; g*(y - x)",
     "From x to y, by the share weight of the way"),
    ("fmax", "x y", "where(x != x, y, where(y != y, x, maximum(x, y)))",
     "where(or_(x >= y, y != y), g, 0); where(or_(x >= y, y != y), 0, g)", "The greater one; a number wins over NaN"),
    ("fmin", "x y", "where(x != x, y, where(y != y, x, minimum(x, y)))",
     "where(or_(x <= y, y != y), g, 0); where(or_(x <= y, y != y), 0, g)", "The lesser one; a number wins over NaN"),
    ("logaddexp2", "x y", "where(x == y, x + 1, maximum(x, y) + 1.4426950408889634*log1p(2.0 ** -abs(x - y)))",
     "g*sigmoid(0.6931471805599453*(x - y)); g*sigmoid(0.6931471805599453*(y - x))", "log2(2**x + 2**y)"),
    ("copysign", "x y", "where(or_(y < 0, 1/y < 0), -abs(x), abs(x))", "g*sign(x)*sign(out); -",
     "The magnitude of x with the sign of y"),
    ("deg2rad", "x", "x*0.017453292519943295", "g*0.017453292519943295", "Degrees as radians"),
    ("rad2deg", "x", "x*57.29577951308232", "g*57.29577951308232", "Radians as degrees"),
    ("xor_", "x y", "not_(x) != not_(y)", None, "One is true, and the other is not"),
    ("signbit", "x", "or_(x < 0, 1/x < 0)", None, "Its sign is minus, as that of -0.0 is"),
    ("isinf", "x", "not_(or_(isfinite(x), isnan(x)))", None, "It is infinite"),
)  # fmt: skip

ACTIVATIONS = {row[0]: elementwise(*row) for row in _TABLE}

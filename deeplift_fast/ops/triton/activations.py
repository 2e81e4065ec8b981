"""Arithmetic that kernels share: relu, sigmoid and tanh with their secants, the midpoint rule and the log-mean rule.

The formulas are those of `naive/secant.py`, the exponential that of `csrc/elementwise.h`.
"""

import math

import triton
import triton.language as tl

from deeplift_fast.ops.naive.secant import PYHEALTH_EPS

_EPS = tl.constexpr(PYHEALTH_EPS)


@triton.jit
def activation(a, b, FUNCTION: tl.constexpr, SLOPE: tl.constexpr):
    """The function at the input and at the baseline, and its multiplier: `secant`, `pyhealth` or `derivative`."""
    if FUNCTION == "relu":
        y, y0, multiplier = relu(a, b)
    else:
        y, y0, multiplier = sigmoid_or_tanh(a, b, FUNCTION)
    if SLOPE == "pyhealth":
        multiplier = pyhealth_multiplier(a, b, y, y0, FUNCTION)
    if SLOPE == "derivative":
        multiplier = derivative(a, FUNCTION)
    return y, y0, multiplier


@triton.jit
def derivative(a, FUNCTION: tl.constexpr):
    """The derivative at a."""
    if FUNCTION == "relu":
        return tl.where(a <= 0, 0.0, tl.where(a > 0, 1.0, a))  # NaN stays
    stretch: tl.constexpr = 2.0 if FUNCTION == "tanh" else 1.0
    p, _ = exponential(-stretch * tl.abs(a))
    inverse = 1.0 / (1.0 + p)
    return stretch * stretch * p * (inverse * inverse)


@triton.jit
def midpoint(a, b, HALF: tl.constexpr):
    """`HALF` of the way from the input to the baseline."""
    return a if HALF == 0 else a + HALF * (b - a)


@triton.jit
def log_mean(a, b, HALF: tl.constexpr):
    """The logarithmic mean of two probabilities, from their logarithms; the first one if `HALF` is 0. −inf means 0."""
    if HALF == 0:
        return exponential(a)[0]
    high = tl.where(a > b, a, b)
    delta = tl.where(a == b, 0.0, tl.abs(a - b))
    _, decay_less_1 = exponential(-delta)
    return exponential(high)[0] * tl.where(delta == 0, 1.0, -decay_less_1 / delta)


@triton.jit
def softmax_back(g, share):
    """`share∘g − share·Σ share·g/Σ share` of one row, corrected so that it sums to zero."""
    total = tl.sum(share, 0)
    centred = g - tl.sum(share * g, 0) / total
    return share * (centred - tl.sum(share * centred, 0) / total)


@triton.jit
def relu(a, b):
    """relu at the input and at the baseline, and its secant."""
    # tl.maximum and tl.minimum would drop NaN.
    y, y0 = tl.where(a <= 0, 0.0, a), tl.where(b <= 0, 0.0, b)
    above, below = tl.where(a > b, a, b), -tl.where(a > b, b, a)
    # a/(a − b) as 1/(1 + |b|/a): no overflow, and correct for an infinite a or b.
    crossing = 1.0 / (1.0 + below / above)
    infinity = float("inf")
    crossing = tl.where((above == infinity) & (below == infinity), 0.5, crossing)
    slope = tl.where(above <= 0, 0.0, tl.where(below < 0, 1.0, crossing))
    return y, y0, tl.where((a != a) | (b != b), float("nan"), slope)


@triton.jit
def sigmoid_or_tanh(a, b, FUNCTION: tl.constexpr):
    """sigmoid or tanh at the input and at the baseline, and its secant."""
    # tanh t = 2 sigmoid(2t) − 1: the slope of tanh is 4 times that of sigmoid at twice the arguments.
    stretch: tl.constexpr = 2.0 if FUNCTION == "tanh" else 1.0
    p, p_less_1 = exponential(-stretch * tl.abs(a))
    q, q_less_1 = exponential(-stretch * tl.abs(b))
    inverse, inverse0 = 1.0 / (1.0 + p), 1.0 / (1.0 + q)
    if FUNCTION == "tanh":
        y, y0 = _tanh(a, p, p_less_1, inverse), _tanh(b, q, q_less_1, inverse0)
    else:
        y, y0 = tl.where(a < 0, p, 1.0) * inverse, tl.where(b < 0, q, 1.0) * inverse0
    u = stretch * tl.where(a == b, 0.0, tl.abs(a - b))
    _, decay_less_1 = exponential(-u)
    g = tl.where(u == 0, 1.0, -decay_less_1 / u)
    same_sign = (a >= 0) == (b >= 0)
    scale = tl.where(same_sign, tl.maximum(p, q), 1.0)
    return y, y0, stretch * stretch * scale * g * (inverse * inverse0)


@triton.jit
def _tanh(a, p, p_less_1, inverse):
    """tanh a from p = e^−2|a|; far from 0 as 1 − 2p/(1 + p), rounded once.

    PyHealth's arithmetic depends on whether 1 − y² is 0, so y must become 1 at exactly the right a.
    """
    size = tl.where(p < 0.25, 1.0 - 2.0 * p * inverse, -p_less_1 * inverse)
    return tl.where(a < 0, -size, size)


@triton.jit
def exponential(t):
    """e^t and e^t − 1 for t ≤ 0 (NaN in, NaN out), both to a few ulp for any size of t.

    t = n·ln2 + r with |r| ≤ ln2/2. The hardware's exp loses one bit each time t doubles, and minus 1 it cancels near 0.
    """
    double: tl.constexpr = t.dtype == tl.float64
    integer: tl.constexpr = tl.int64 if double else tl.int32
    significand: tl.constexpr = 52 if double else 23
    bias: tl.constexpr = 1023 if double else 127
    lowest: tl.constexpr = -708.0 if double else -87.0  # below, e^t is subnormal: taken as 0
    rounder: tl.constexpr = 1.5 * 2.0**52 if double else 1.5 * 2.0**23  # adding it rounds to an integer
    ln2_high: tl.constexpr = 6.93147180369123816490e-01 if double else 0.693359375
    ln2_low: tl.constexpr = 1.90821492927058770002e-10 if double else -2.12194440e-4
    degree: tl.constexpr = 13 if double else 7
    vanishes = t < lowest
    bounded = tl.where(vanishes, lowest, t)
    shifted = bounded * 1.4426950408889634 + rounder
    n = shifted - rounder
    r = (bounded - n * ln2_high) - n * ln2_low
    series = r * _inverse_factorial(degree)
    for k in tl.static_range(degree - 1, 0, -1):
        series = r * (series + _inverse_factorial(k))
    # The low bits of `shifted` hold n as an integer; as exponent bits they give 2^n.
    power = ((shifted.to(integer, bitcast=True) + bias) << significand).to(t.dtype, bitcast=True)
    exponential = tl.where(vanishes, 0.0, power + power * series)
    return exponential, tl.where(vanishes, -1.0, power * series + (power - 1.0))


@triton.constexpr_function
def _inverse_factorial(k: int) -> float:
    return 1.0 / math.factorial(k)


@triton.jit
def pyhealth_multiplier(a, b, y, y0, FUNCTION: tl.constexpr):
    """PyHealth 2.1's `scale · derivative`, as in `naive/secant.py`."""
    if FUNCTION == "relu":
        derivative = (a > 0).to(y.dtype)
    elif FUNCTION == "sigmoid":
        derivative = y * (1.0 - y)
    else:
        derivative = 1.0 - y * y
    secant = _safe_div(y - y0, a - b, derivative)
    scale = _safe_div(secant, derivative, 1.0)
    scale = tl.where(tl.abs(scale) < float("inf"), scale, 1.0)
    backward = derivative
    if FUNCTION == "tanh":
        backward = (1.0 - y) * (1.0 + y)
    return tl.where((a != a) | (b != b), float("nan"), scale * backward)


@triton.jit
def _safe_div(numerator, denominator, fallback):
    usable = tl.abs(denominator) > _EPS
    return tl.where(usable, numerator / tl.where(usable, denominator, 1.0), fallback)

"""Secant slopes of relu, sigmoid and tanh in plain torch.

Cancellation-free forms (Δ = a − b):

    tanh a − tanh b = sinh Δ · sech a · sech b
    σ(a) − σ(b)     = sinh(Δ/2) · sech(a/2) · sech(b/2) / 2

written so that every exponent is ≤ 0, which neither overflows nor cancels:

    (tanh a − tanh b)/Δ = 4·E·g(2|Δ|) / ((1 + e^−2|a|)(1 + e^−2|b|))
    (σ(a) − σ(b))/Δ     =   E·g(|Δ|)  / ((1 + e^−|a|)(1 + e^−|b|))

with g(u) = (1 − e^−u)/u and g(0) = 1. E is 1 if a and b differ in sign, else the larger of the two exponentials in the
denominator.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from deeplift_fast.ops.checks import OPS, check, computed

PYHEALTH_EPS = 1e-7


def secant(x: Tensor, x0: Tensor, function: str, variant: str = "rescale") -> tuple[Tensor, Tensor, Tensor]:
    """An activation at the input and at the baseline, and its secant multiplier, in one pass over memory.

    Args:
        x: the pre-activation at the input.
        x0: the pre-activation at the baseline.
        function: the activation.
        variant: `"rescale"` for `(f(x) − f(x0)) / (x − x0)`, the Rescale rule (Shrikumar et al. 2017, eq. 13), without
            cancellation, and the derivative `f'(x)` at `x = x0`; or `"pyhealth"` for PyHealth 2.1's
            `scale · derivative`, with its eps of 1e-7.

    Returns:
        `(f(x), f(x0), multiplier)`. They carry no gradient; :mod:`deeplift_fast.rules` backpropagates multipliers. NaN
        in either input gives a NaN multiplier; ±inf gives the limit.
    """
    check(OPS["secant"], (x, x0, function, variant))
    a, b = x.to(computed(x.dtype)), x0.to(computed(x.dtype))
    y, y0 = _ACTIVATION[function](a), _ACTIVATION[function](b)
    if variant == "pyhealth":
        multiplier = _pyhealth_multiplier(a, b, y, y0, function)
    else:
        multiplier = _SLOPE[function](a, b)
    return _as(x, y), _as(x, y0), _as(x, multiplier)


def secant_at_input(x: Tensor, x0: Tensor, function: str, variant: str = "rescale") -> tuple[Tensor, Tensor]:
    """:func:`secant` without `f(x0)`: the kernels write a third less.

    Args:
        x: as for :func:`secant`.
        x0: likewise.
        function: likewise.
        variant: likewise.

    Returns:
        `(f(x), multiplier)`.
    """
    y, _, multiplier = secant(x, x0, function, variant)
    return y, multiplier


def _as(x: Tensor, result: Tensor) -> Tensor:
    """`result` in the dtype and with the strides of an elementwise function of `x`."""
    return torch.empty_like(x).copy_(result)


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """|a − b|, with inf − inf of one sign as 0."""
    return torch.where(a == b, 0.0, (a - b).abs())


def _relu_slope(a: Tensor, b: Tensor) -> Tensor:
    # a/(a − b) as 1/(1 + |b|/a): no overflow, and correct for an infinite a or b.
    above, below = torch.maximum(a, b), torch.minimum(a, b).neg()
    crossing = 1.0 / (1.0 + below / above)
    crossing = torch.where((above == torch.inf) & (below == torch.inf), 0.5, crossing)
    slope = torch.where(above <= 0, 0.0, torch.where(below < 0, 1.0, crossing))
    return torch.where(a.isnan() | b.isnan(), torch.nan, slope).to(a.dtype)


def _decay(u: Tensor) -> Tensor:
    """g(u) = (1 − e^−u)/u for u ≥ 0."""
    return torch.where(u == 0, 1.0, -torch.expm1(-u) / u)


def _sigmoid_slope(a: Tensor, b: Tensor) -> Tensor:
    p, q = torch.exp(-a.abs()), torch.exp(-b.abs())
    same_sign = (a >= 0) == (b >= 0)
    scale = torch.where(same_sign, torch.maximum(p, q), 1.0)
    return scale * _decay(_difference(a, b)) / ((1 + p) * (1 + q))


def _tanh_slope(a: Tensor, b: Tensor) -> Tensor:
    return 4.0 * _sigmoid_slope(2.0 * a, 2.0 * b)


def _pyhealth_multiplier(a: Tensor, b: Tensor, y: Tensor, y0: Tensor, function: str) -> Tensor:
    """PyHealth 2.1's `scale · derivative` (`_DeepLiftActivationHooks._register_hook`).

    It divides by its own derivative and multiplies by autograd's. For tanh the two differ: autograd's `1 − y²` is a
    fused multiply-add and does not cancel.
    """
    derivative = _DERIVATIVE[function](a, y)
    backward = (1 - y) * (1 + y) if function == "tanh" else derivative
    secant = _safe_div(y - y0, a - b, derivative)
    scale = _safe_div(secant, derivative, torch.ones_like(secant))
    scale = torch.where(scale.isfinite(), scale, 1.0)
    return torch.where(a.isnan() | b.isnan(), torch.nan, scale * backward).to(a.dtype)


def _safe_div(numerator: Tensor, denominator: Tensor, fallback: Tensor) -> Tensor:
    usable = denominator.abs() > PYHEALTH_EPS
    return torch.where(usable, numerator / torch.where(usable, denominator, 1.0), fallback)


_ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
_SLOPE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": _relu_slope,
    "sigmoid": _sigmoid_slope,
    "tanh": _tanh_slope,
}
_DERIVATIVE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda x, y: (x > 0).to(y.dtype),
    "sigmoid": lambda x, y: y * (1 - y),
    "tanh": lambda x, y: 1 - y * y,
}

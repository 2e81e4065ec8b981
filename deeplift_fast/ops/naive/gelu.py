"""GELU and its secant slope in plain torch.

With Φ the normal distribution's cumulative function and φ its density, gelu(x) = x·Φ(x), and

    (gelu(a) − gelu(b))/(a − b) = (Φ(a) + Φ(b))/2 + (a + b)/2 · (Φ(a) − Φ(b))/(a − b)

where the last quotient is the mean of φ between b and a. For close arguments Gauss-Legendre quadrature computes it,
without cancellation. At a = b the slope is the derivative, Φ(a) + a·φ(a).
"""

import math

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.values import require_within

# The number of nodes, and the distance of the arguments below which they are exact to rounding.
_QUADRATURE = {torch.float32: (3, 0.5), torch.float64: (5, 0.25)}


def gelu(x: Tensor, x0: Tensor, where: Tensor, secant: bool) -> tuple[Tensor, Tensor]:
    """GELU (Hendrycks & Gimpel 2016, with erf) at the input, and its multiplier.

    Args:
        x: the argument at the input, finite.
        x0: the argument at the baseline.
        where: the index of each row's baseline.
        secant: whether the multiplier is the secant slope (Shrikumar et al. 2017, eq. 13), without cancellation, or the
            derivative at the input.

    Returns:
        `(gelu(x), multiplier)`.

    Raises:
        RuntimeError, IndexError: if `where` is out of range.
    """
    require_within("gelu: where", where, len(x0))
    dtype, x, x0 = x.dtype, x.to(computed(x.dtype)), x0.to(computed(x.dtype))
    below = _cumulative(x)
    y = (x * below).to(dtype)
    if not secant:
        return y, (below + x * _density(x)).to(dtype)
    b = x0[where]
    below0, delta, middle = _cumulative(b), x - b, (x + b) / 2
    count, near = _QUADRATURE[x.dtype]
    nodes, weights = np.polynomial.legendre.leggauss(count)
    mean = sum(w / 2 * _density(middle + n / 2 * delta) for n, w in zip(nodes.tolist(), weights.tolist(), strict=True))
    far = (below - below0) / torch.where(delta == 0, 1.0, delta)
    multiplier = (below + below0) / 2 + middle * torch.where(delta.abs() < near, mean, far)
    return y, multiplier.to(dtype)


def _cumulative(x: Tensor) -> Tensor:
    return torch.erfc(-x / math.sqrt(2)) / 2


def _density(x: Tensor) -> Tensor:
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)

"""A gated value added to another, `σ(a)·b + c`, in plain torch."""

import torch
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.naive.secant import secant


def gated_sum(a: Tensor, b: Tensor, c: Tensor, variant: str, half: float) -> tuple[Tensor, Tensor]:
    """A gated value added to another, `σ(a)·b + c`, in both streams, and its multipliers.

    Args:
        a: the gate's pre-activation, at the input and at the baseline.
        b: the gated value.
        c: the added value.
        variant: the variant of the gate's secant, as for :func:`deeplift_fast.ops.secant`.
        half: 0.5 for the midpoint rule of the product, 0 for its gradient.

    Returns:
        `(y, multipliers)`: the sum in both streams, and the multipliers of `a` and of `b` for a multiplier of 1 of `y`.
    """
    dtype, wide = a.dtype, computed(a.dtype)
    a, b, c = (each.to(wide) for each in (a, b, c))
    gate, gate0, slope = secant(a[0], a[1], "sigmoid", variant)
    y = torch.stack([gate, gate0]) * b + c
    multipliers = torch.stack([slope * torch.lerp(b[0], b[1], half), torch.lerp(gate, gate0, half)])
    return y.to(dtype), multipliers.to(dtype)

"""Summation to delta in plain torch: what is missing from contributions, and the factor that hides it."""

import torch
from torch import Tensor

from deeplift_fast.ops.checks import computed

RESCALE_EPS = 1e-8  # PyHealth's: a smaller raw sum is not scaled
LARGEST_FACTOR = 10.0  # a sample scaled by more is warned of


def convergence(
    totals: Tensor, output: Tensor, output0: Tensor, rescale: bool, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a batch's contributions miss of summation to delta (eq. 1 of Shrikumar et al. 2017).

    Args:
        totals: the sums of each feature's contributions; 1 feature or more.
        output: `f(x)`.
        output0: `f(x0)`.
        rescale: whether contributions are to be scaled so that they sum to `f(x) − f(x0)`.
        tolerance: the part of `f(x) − f(x0)` that a convergence delta may reach; it does not matter where they are
            scaled.

    Returns:
        `(delta, factor, fine, figures)`: the convergence delta; what contributions are to be multiplied by, 1 where the
        raw sum is too near 0 (without `rescale`: none); which samples need no warning: those with a factor between 0
        and 10 and a raw sum that could be scaled, or whose delta is within the tolerance or rounding; and of each part
        of the batch the sum of the deltas, how much of it may be rounding, and how many samples are not fine.
    """
    total, *others = totals
    for each in others:
        total = total + each
    difference = output.double() - output0.double()
    delta = (total - difference).to(output.dtype)
    if rescale:
        factor, fine = factors(total, difference)
    else:
        factor, fine = total.new_empty(0), is_within(delta, output, output0, tolerance)
    wide = computed(output.dtype)
    sums = figures(delta, output.to(wide) - output0.to(wide))
    return delta, factor.to(wide), fine, torch.stack([*sums, (~fine).sum()]).unsqueeze(0)


def factors(total: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
    """What contributions that sum to `total` are multiplied by, float64 `[batch]`, and where nobody is warned of it."""
    usable = total.abs() > RESCALE_EPS
    factor = torch.where(usable, difference / torch.where(usable, total, 1.0), 1.0)
    return factor, usable & (factor >= 0) & (factor <= LARGEST_FACTOR)


def is_within(delta: Tensor, output: Tensor, output0: Tensor, tolerance: float) -> Tensor:
    """Whether a delta is rounding, or no more than a part of the difference in output, bool `[batch]`; NaN is not."""
    eps, wide = torch.finfo(delta.dtype).eps, computed(delta.dtype)
    delta, output, output0 = (each.to(wide) for each in (delta, output, output0))
    rounding = 1e3 * eps * torch.maximum(output.abs(), output0.abs()).clamp(min=1)
    return delta.abs() <= torch.maximum(tolerance * (output - output0).abs(), rounding)


def figures(delta: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the deltas, and how much of it may be rounding: float64; arguments `[batch]`."""
    rounding = 1e3 * torch.finfo(delta.dtype).eps * (1 + change.abs()).sum(dtype=torch.float64)
    return delta.sum(dtype=torch.float64), rounding

"""Summation to delta in plain torch: the convergence delta, and the factor that hides it."""

import torch
from torch import Tensor

from deeplift_fast.ops.checks import computed

RESCALE_EPS = 1e-8  # PyHealth's: a smaller raw sum is not scaled
LARGEST_FACTOR = 10.0  # a larger factor causes a warning


def convergence(
    totals: Tensor, output: Tensor, output0: Tensor, rescale: bool, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The convergence delta of a batch (Shrikumar et al. 2017, eq. 1), and the factors that would remove it.

    Args:
        totals: the sums of each feature's contributions; 1 feature or more.
        output: `f(x)`.
        output0: `f(x0)`.
        rescale: whether contributions will be scaled so that they sum to `f(x) − f(x0)`.
        tolerance: the part of `f(x) − f(x0)` that a convergence delta may reach; not used with `rescale`.

    Returns:
        `(delta, factor, fine, figures)`. `delta` is the convergence delta. `factor` scales the contributions; it is 1
        if the raw sum is too near 0, and empty without `rescale`. `fine` marks samples that need no warning: with
        `rescale` a factor from 0 to 10 of a raw sum that could be scaled, otherwise a delta within the tolerance or
        rounding. `figures` holds, for each part of the batch, the sum of the deltas, its rounding, and the number of
        samples that are not fine.
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
    """The factors of contributions that sum to `total`, float64 `[batch]`, and whether each needs no warning."""
    usable = total.abs() > RESCALE_EPS
    factor = torch.where(usable, difference / torch.where(usable, total, 1.0), 1.0)
    return factor, usable & (factor >= 0) & (factor <= LARGEST_FACTOR)


def is_within(delta: Tensor, output: Tensor, output0: Tensor, tolerance: float) -> Tensor:
    """Whether a delta is rounding or within a part of the difference in output, bool `[batch]`; false for NaN."""
    eps, wide = torch.finfo(delta.dtype).eps, computed(delta.dtype)
    delta, output, output0 = (each.to(wide) for each in (delta, output, output0))
    rounding = 1e3 * eps * torch.maximum(output.abs(), output0.abs()).clamp(min=1)
    return delta.abs() <= torch.maximum(tolerance * (output - output0).abs(), rounding)


def figures(delta: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the deltas and its rounding, float64 scalars; arguments `[batch]`."""
    rounding = 1e3 * torch.finfo(delta.dtype).eps * (1 + change.abs()).sum(dtype=torch.float64)
    return delta.sum(dtype=torch.float64), rounding

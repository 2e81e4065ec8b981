"""Summation to delta: the convergence delta, and the rescaling that hides it."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.errors import ConvergenceWarning, warn
from deeplift_fast.ops import naive
from deeplift_fast.ops.checks import OPS
from deeplift_fast.ops.naive.convergence import LARGEST_FACTOR, RESCALE_EPS, is_within
from deeplift_fast.ops.registry import overload

__all__ = [
    "LARGEST_FACTOR",
    "RESCALE_EPS",
    "convergence_delta",
    "is_exact",
    "is_incomplete",
    "rescale",
    "scaled_by",
    "summed",
    "totals",
    "warn_if_incomplete",
    "warn_if_not_finite",
    "warn_of_factors",
    "warn_of_missed",
]


_AXES = tuple(range(1, 64))  # all dimensions that a tensor can have, but the first
_convergence = overload("convergence")


def convergence_delta(contributions: Mapping[Any, Tensor], output: Tensor, baseline_output: Tensor) -> Tensor:
    """`Σ contributions − (f(x) − f(x0))` per sample, `[batch]`; arguments as :func:`rescale`."""
    return summed(contributions, output, baseline_output)[0]


def summed(
    contributions: Mapping[Any, Tensor], output: Tensor, baseline_output: Tensor
) -> tuple[Tensor, tuple[float, float]]:
    """The convergence delta, `[batch]`, its sum over the batch, and the part of this sum that may be rounding.

    The sum is finite only if every output is. Arguments as :func:`rescale`.
    """
    if len(output) == 1 and output.is_cpu and output.dtype in OPS["convergence"].on_cpu:
        return _of_one(contributions, output, baseline_output)
    delta, _, _, figures = _converged(contributions, output, baseline_output, False)
    total, rounding, _ = figures.sum(0).tolist() if len(figures) > 1 else figures.tolist()[0]
    return delta, (total, rounding)


def _converged(
    contributions: Mapping[Any, Tensor], output: Tensor, baseline_output: Tensor, rescale: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The results of the op `convergence`."""
    half = output.is_cpu and output.dtype not in OPS["convergence"].on_cpu
    with torch._C._AutoDispatchBelowAutograd():  # skips the autograd key, which costs time, as the op's checks would
        run = naive.FUNCTIONS["convergence"] if half else _convergence
        return run(totals(contributions), output, baseline_output, rescale, 0.0)  # type: ignore[no-any-return]


def _of_one(
    contributions: Mapping[Any, Tensor], output: Tensor, baseline_output: Tensor
) -> tuple[Tensor, tuple[float, float]]:
    """As :func:`summed` for one sample, with fewer operations: on so small a batch they cost the most."""
    total = sum(float(each.sum(dtype=torch.float64)) for each in contributions.values())
    change = float(output) - float(baseline_output)
    delta = output.new_tensor([total - change])
    return delta, (float(delta), 1e3 * torch.finfo(delta.dtype).eps * (1 + abs(change)))


def totals(contributions: Mapping[Any, Tensor]) -> Tensor:
    """The sums of each sample's contributions by feature, float64 `[features, batch]`; `[batch, …]` each."""
    first, *others = contributions.values()
    if not others and first.dim() > 1:
        return first.sum(_AXES[: first.dim() - 1], dtype=torch.float64).unsqueeze(0)
    found = torch.empty(len(contributions), first.shape[0], dtype=torch.float64, device=first.device)
    for row, each in zip(found.unbind(), contributions.values(), strict=True):
        if each.dim() > 1:
            torch.sum(each, _AXES[: each.dim() - 1], dtype=torch.float64, out=row)
        else:
            row.copy_(each)
    return found


def is_exact(delta: Tensor, total: float) -> bool:
    """Whether no convergence delta, `[batch]`, of this sum exceeds the rounding of an output of 1: a quick check."""
    largest = abs(total) if len(delta) == 1 else float(delta.abs().max())
    return largest <= 1e3 * torch.finfo(delta.dtype).eps


def is_incomplete(delta: Tensor, output: Tensor, baseline_output: Tensor, tolerance: float) -> Tensor:
    """Find the samples whose convergence delta is too large to be rounding or within the tolerance.

    Args:
        delta: the convergence delta, `[batch]`.
        output: `f(x)`, `[batch]`.
        baseline_output: `f(x0)`, `[batch]`.
        tolerance: the accepted part of `f(x) − f(x0)`.

    Returns:
        bool, `[batch]`; true for a delta that is NaN.
    """
    return ~is_within(delta, output, baseline_output, tolerance)


def warn_if_incomplete(delta: Tensor, output: Tensor, baseline_output: Tensor, tolerance: float) -> None:
    """Issue a ConvergenceWarning about incomplete samples; arguments as :func:`is_incomplete`."""
    finite = output.isfinite() & baseline_output.isfinite()  # warn_if_not_finite reports the other samples
    count = int((is_incomplete(delta, output, baseline_output, tolerance) & finite).sum())
    warn_of_missed(count, delta.where(finite, 0.0), tolerance)


def warn_of_missed(count: int, delta: Tensor, tolerance: float) -> None:
    """Issue the warning of :func:`warn_if_incomplete` unless `count`, the number of incomplete samples, is 0."""
    if count:
        warn(
            f"{count} of {len(delta)} samples: contributions miss f(x) - f(x0) by more than {tolerance:.3g} of it (by "
            f"{float(delta.abs().max()):.3g} at most); report() names the operations that no rule makes complete. If "
            "it names none, the model rounds its numbers, as under autocast.",
            ConvergenceWarning,
        )


def warn_if_not_finite(output: Tensor, baseline_output: Tensor) -> None:
    """Issue a ConvergenceWarning about outputs that are NaN or inf; arguments as :func:`is_incomplete`."""
    bad, bad0 = (int((~each.isfinite()).sum()) for each in (output, baseline_output))
    if bad or bad0:
        warn(
            f"the model's output is not finite (NaN or inf) for {bad} of {len(output)} samples at the input and for "
            f"{bad0} at the baseline: their contributions mean nothing. Causes are an empty record, a mean over "
            "nothing or an overflow inside the model; check the model's own output for these samples.",
            ConvergenceWarning,
        )


def rescale(
    contributions: dict[Hashable, Tensor], output: Tensor, baseline_output: Tensor
) -> tuple[dict[Hashable, Tensor], Tensor]:
    """Scale each sample's contributions so that they sum to its difference in output.

    Shrikumar et al. 2017, eq. 1 (summation to delta), enforced as PyHealth does.

    Args:
        contributions: floating point, `[batch, …]` each.
        output: `f(x)`, `[batch]`.
        baseline_output: `f(x0)`, `[batch]`.

    Returns:
        The scaled contributions, and the convergence delta `[batch]`: their raw sum minus the difference in output.

    Warns:
        ConvergenceWarning: if a factor is negative or exceeds `LARGEST_FACTOR`, or the raw sum is too near zero.
    """
    delta, factor, fine, _ = _converged(contributions, output, baseline_output, True)
    scaled = {name: scaled_by(factor, c) for name, c in contributions.items()}
    if not bool(fine.all()):
        warn_of_factors(fine, output.double() - baseline_output.double())
    return scaled, delta


def scaled_by(factor: Tensor, contributions: Tensor) -> Tensor:
    """Contributions, `[batch, …]`, times each sample's factor, `[batch]`; in their own dtype."""
    by_sample = factor.reshape(-1, *[1] * (contributions.dim() - 1))
    if factor.dtype == contributions.dtype and factor.itemsize > 2:  # a half type cannot hold a large factor
        return contributions * by_sample
    wide = torch.promote_types(contributions.dtype, torch.float32)
    return (contributions * by_sample.to(wide)).to(contributions.dtype)


def warn_of_factors(fine: Tensor, difference: Tensor) -> None:
    """Issue a ConvergenceWarning about factors that are not fine.

    Args:
        fine: whether each sample's factor may be trusted, bool `[batch]`.
        difference: `f(x) − f(x0)`, float64 `[batch]`.
    """
    # The sign of a difference at the level of rounding means nothing.
    count = int(((difference.abs() > 1e-6) & ~fine).sum())
    if count:
        warn(
            f"{count} of {len(fine)} samples: before rescaling, contributions summed to nearly zero or to the wrong "
            f"sign, so they were scaled by a negative factor or by more than {LARGEST_FACTOR:g} (or could not be "
            'scaled); do not trust their signs. rules="complete" needs no rescaling.',
            ConvergenceWarning,
        )

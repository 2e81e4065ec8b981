"""Summation to delta: what is missing from the contributions, and the rescaling that hides it."""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from deeplift_fast.errors import ConvergenceWarning, warn
from deeplift_fast.read_back import ReadBack

RESCALE_EPS = 1e-8  # PyHealth's: a smaller raw sum is not scaled
LARGEST_FACTOR = 10.0  # a sample scaled by more is counted in the ConvergenceWarning


def convergence_delta(contributions: dict[Hashable, Tensor], output: Tensor, baseline_output: Tensor) -> Tensor:
    """`Σ contributions − (f(x) − f(x0))` per sample, `[batch]`; arguments as :func:`rescale`."""
    return (_sums(contributions) - (output.double() - baseline_output.double())).to(output.dtype)


def _sums(contributions: dict[Hashable, Tensor]) -> Tensor:
    total, *others = (c.reshape(len(c), c[0].numel()).sum(1, dtype=torch.float64) for c in contributions.values())
    for each in others:
        total = total + each
    return total


def is_incomplete(delta: Tensor, output: Tensor, baseline_output: Tensor, tolerance: float) -> Tensor:
    """Which samples' convergence delta is more than rounding and passes a part of their difference in output.

    Args:
        delta: the convergence delta, `[batch]`.
        output: `f(x)`, `[batch]`.
        baseline_output: `f(x0)`, `[batch]`.
        tolerance: the part.

    Returns:
        bool, `[batch]`; a delta that is NaN counts.
    """
    difference = (output - baseline_output).abs()
    rounding = 1e3 * torch.finfo(delta.dtype).eps * torch.maximum(output.abs(), baseline_output.abs()).clamp(min=1)
    return ~(delta.abs() <= torch.maximum(tolerance * difference, rounding))


def warn_if_incomplete(delta: Tensor, output: Tensor, baseline_output: Tensor, tolerance: float) -> None:
    """Warn of samples that are incomplete; arguments as :func:`is_incomplete`.

    Warns:
        ConvergenceWarning: naming their number and the largest convergence delta.
    """
    warn_of_missed(is_incomplete(delta, output, baseline_output, tolerance), delta, tolerance)


def warn_of_missed(missed: Tensor, delta: Tensor, tolerance: float, later: ReadBack | None = None) -> None:
    """As :func:`warn_if_incomplete`, from what :func:`is_incomplete` gave; with `later`, at its next read-back."""
    if later is not None:
        later.ask([missed.sum()], lambda found: _warn_of_missed(int(found[0]), delta, tolerance))
    else:
        _warn_of_missed(int(missed.sum()), delta, tolerance)


def _warn_of_missed(count: int, delta: Tensor, tolerance: float) -> None:
    if count:
        warn(
            f"{count} of {len(delta)} samples: contributions miss f(x) - f(x0) by more than {tolerance:.3g} of it (by "
            f"{float(delta.abs().max()):.3g} at most); report() names the operations that no rule makes complete.",
            ConvergenceWarning,
        )


@dataclass(frozen=True)
class Scaling:
    """By what each sample's contributions were scaled.

    Attributes:
        factor: float64 `[batch]`.
        usable: whether the raw sum is far enough from 0 to be scaled, bool `[batch]`.
        difference: `f(x) − f(x0)`, float64 `[batch]`.
    """

    factor: Tensor
    usable: Tensor
    difference: Tensor

    def warn(self, later: ReadBack | None = None) -> None:
        """Warn of factors that are negative or large; with `later`, at its next read-back."""
        if not len(self.factor):
            return
        found = (*torch.aminmax(self.factor), self.usable.all())
        if later is not None:
            later.ask(found, self._warn_unless_fine)
        else:
            self._warn_unless_fine([float(each) for each in found])

    def _warn_unless_fine(self, found: list[float]) -> None:
        low, high, usable = found
        if not (low >= 0 and high <= LARGEST_FACTOR and usable):
            _warn_of_factors(self.factor, self.usable, self.difference)


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
    scaled, delta, scaling = rescaled(contributions, output, baseline_output)
    scaling.warn()
    return scaled, delta


def rescaled(
    contributions: dict[Hashable, Tensor], output: Tensor, baseline_output: Tensor
) -> tuple[dict[Hashable, Tensor], Tensor, Scaling]:
    """As :func:`rescale`, with the factors, of which nobody is warned."""
    total = _sums(contributions)
    difference = output.double() - baseline_output.double()
    usable = total.abs() > RESCALE_EPS
    factor = torch.where(usable, difference / torch.where(usable, total, 1.0), 1.0)
    scaled = {name: _scaled(c, factor) for name, c in contributions.items()}
    return scaled, (total - difference).to(output.dtype), Scaling(factor, usable, difference)


def _scaled(contributions: Tensor, factor: Tensor) -> Tensor:
    wide = torch.promote_types(contributions.dtype, torch.float32)  # a half type cannot hold a large factor
    by_sample = factor.to(wide).reshape(-1, *[1] * (contributions.dim() - 1))
    return (contributions * by_sample).to(contributions.dtype)


def _warn_of_factors(factor: Tensor, usable: Tensor, difference: Tensor) -> None:
    # A difference at the level of rounding has no sign to get wrong.
    matters = difference.abs() > 1e-6
    suspect = matters & (~usable | (factor < 0) | (factor.abs() > LARGEST_FACTOR))
    count = int(suspect.sum())
    if count:
        warn(
            f"{count} of {len(suspect)} samples: before rescaling, contributions summed to nearly zero or to the wrong "
            f"sign, so they were scaled by a negative factor or by more than {LARGEST_FACTOR:g} (or could not be "
            'scaled); do not trust their signs. rules="complete" needs no rescaling.',
            ConvergenceWarning,
        )

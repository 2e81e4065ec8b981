"""Cancellation of contributions: `Σ|c| / |f(x) − f(x0)|` of each sample."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


class Cancellation:
    """The ratio `Σ|c| / |f(x) − f(x0)|` of each sample of a batch.

    The first use of a figure computes it; until then no GPU is waited for.

    Args:
        contributions: `[batch, …]` each, one per input or feature; a sample's sum runs over all of them.
        output: `f(x)`, `[batch]`.
        baseline_output: `f(x0)`, `[batch]`.
    """

    def __init__(self, contributions: Iterable[Tensor], output: Tensor, baseline_output: Tensor) -> None:
        self._contributions = tuple(contributions)
        self._output = output
        self._baseline_output = baseline_output
        self._versions = self._current_versions()

    def ratios(self) -> Tensor:
        """The ratio of each sample, float64 `[batch]`, on the CPU.

        A ratio is infinite if the output does not change. It is NaN if the sample has no contributions, if its output
        is NaN, or if the contributions were overwritten after the attribution.
        """
        found = self.settled()
        change = found._output.detach().double() - found._baseline_output.detach().double()
        return (found._contributions[0].double() / change.abs()).cpu()

    @property
    def median(self) -> float:
        """The median of the ratios that are not NaN; NaN if there are none."""
        return self._quantile(0.5)

    @property
    def p90(self) -> float:
        """Their 90th percentile, interpolated linearly as NumPy does."""
        return self._quantile(0.9)

    def settled(self) -> "Cancellation":
        """A copy that holds absolute sums, `[batch]`, in place of the contributions."""
        sizes, *others = map(_size, self._contributions)
        for each in others:
            sizes = sizes + each
        if self._versions != self._current_versions():
            sizes = torch.full_like(sizes, torch.nan)
        return Cancellation((sizes,), self._output, self._baseline_output)

    def __str__(self) -> str:
        return (
            f"cancellation, Σ|c| / |f(x) - f(x0)|: median {self.median:.3g}, 90th percentile {self.p90:.3g}\n"
            "Far above 1, large contributions of both signs cancel in the sum, and a single one says little. The ratio "
            "is also large if f(x) - f(x0) is near 0."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        kept = self.settled()  # another process has no use for the versions
        return Cancellation, (kept._contributions, kept._output, kept._baseline_output)

    def _quantile(self, share: float) -> float:
        ratios = self.ratios()
        found = ratios[~ratios.isnan()].sort().values.tolist()
        if not found:
            return float("nan")
        place = share * (len(found) - 1)
        low, high = found[int(place)], found[min(int(place) + 1, len(found) - 1)]
        return low if low == high or place == int(place) else low + (high - low) * (place - int(place))

    def _current_versions(self) -> list[int]:
        return [-1 if each.is_inference() else each._version for each in self._contributions]


def joined(parts: Sequence[Cancellation]) -> Cancellation:
    """The cancellation of several batches, one after the other."""
    settled = [part.settled() for part in parts]
    return Cancellation(
        (torch.cat([part._contributions[0] for part in settled]),),
        torch.cat([part._output for part in settled]),
        torch.cat([part._baseline_output for part in settled]),
    )


def _size(contributions: Tensor) -> Tensor:
    """`Σ|c|` of each sample; in float32 for half types, which may not hold it."""
    each = contributions.detach()
    each = each.float() if each.dtype in (torch.float16, torch.bfloat16) else each
    return torch.linalg.vector_norm(each, 1, tuple(range(1, each.dim()))) if each.dim() > 1 else each.abs()

"""The winner rule of maxima over elements.

`y` and `y0` are the maxima in the two streams, and `h = max(y, y0)`. The winner at the input contributes `h − y0` and
the winner at the baseline `y − h`, which sum to `y − y0`. Each is a secant times the winner's own difference: the first
was at most `y0` at the baseline, and the second is at most `y` at the input.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def winner_multipliers(y: Tensor, y0: Tensor, delta_actual: Tensor, delta_baseline: Tensor) -> tuple[Tensor, Tensor]:
    """Multipliers of the actual winner and of the baseline's winner.

    Args:
        y: the maximum at the input.
        y0: the maximum at the baseline.
        delta_actual: the actual winner's own `x − x0`.
        delta_baseline: the baseline winner's own `x − x0`.

    Returns:
        Two tensors of the shape of `y`. A winner that did not move gets 0; if neither moved, both get ½, the gradient.
    """
    high = torch.maximum(y, y0)
    rise = torch.where(high == y0, 0.0, high - y0)
    fall = torch.where(high == y, 0.0, y - high)
    still_actual, still_baseline = delta_actual == 0, delta_baseline == 0
    actual = torch.where(still_actual, 0.0, rise / torch.where(still_actual, 1.0, delta_actual))
    baseline = torch.where(still_baseline, 0.0, fall / torch.where(still_baseline, 1.0, delta_baseline))
    unmoved = still_actual & still_baseline
    return torch.where(unmoved, 0.5, actual), torch.where(unmoved, 0.5, baseline)


class WinnerRule(torch.autograd.Function):
    """A maximum with multipliers for the winners of both streams."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, y: Tensor, y0: Tensor, at: Tensor, at0: Tensor) -> Tensor:
        """`y`.

        Args:
            ctx: PyTorch's.
            x: the elements at the input, `[groups, n]`.
            x0: the elements at the baseline, `[groups, n]`.
            y: the maxima at the input, `[groups, m]`.
            y0: the maxima at the baseline.
            at: int64 indices into the n elements: the winners at the input, `[groups, m]`.
            at0: the winners at the baseline.
        """
        delta = torch.where(x == x0, 0.0, x - x0)  # equal infinities included
        actual, baseline = winner_multipliers(y, y0, delta.gather(1, at), delta.gather(1, at0))
        ctx.shape = x.shape
        ctx.save_for_backward(actual, baseline, at, at0)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """Scatters the multipliers to the winners; windows may overlap."""
        actual, baseline, at, at0 = ctx.saved_tensors
        found = gradient.new_zeros(ctx.shape)
        found.scatter_add_(1, at, gradient * actual)
        found.scatter_add_(1, at0, gradient * baseline)
        return found, None, None, None, None, None


def amax(x: Tensor, x0: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """`torch.amax` with the winner rule; an empty `dims` means all.

    Args:
        x: the tensor at the input; any shape.
        x0: the tensor at the baseline; the shape of `x`.
        dims: the reduced dimensions.
        keepdim: whether they stay, with length 1.

    Returns:
        The maxima.
    """
    reduced = sorted(d % x.dim() for d in dims) if dims else list(range(x.dim()))
    kept = [d for d in range(x.dim()) if d not in reduced]
    order = (*kept, *reduced)
    rows, rows0 = (t.permute(order).reshape(-1, _product(x, reduced)) for t in (x, x0))
    y, at = rows.max(1, keepdim=True)
    y0, at0 = rows0.max(1, keepdim=True)
    found = WinnerRule.apply(rows, rows0, y.detach(), y0, at, at0)
    shape = [1 if d in reduced else x.shape[d] for d in range(x.dim())] if keepdim else [x.shape[d] for d in kept]
    return found.reshape(shape)


def cumulative_max(x: Tensor, x0: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """`torch.cummax` with the winner rule; each result has its own pair of winners.

    Args:
        x: the tensor at the input; any shape.
        x0: the tensor at the baseline; the shape of `x`.
        dim: the dimension of the cumulative maximum.

    Returns:
        The maxima so far, and the indices of the winners at the input.
    """
    moved = [t.reshape(t.shape or (1,)).movedim(dim, -1) for t in (x, x0)]
    rows, rows0 = (t.unsqueeze(0).flatten(0, -2) for t in moved)
    with torch.no_grad():
        (y, at), (y0, at0) = rows.cummax(1), rows0.cummax(1)
    found = WinnerRule.apply(rows, rows0, y, y0, at, at0)
    maxima, winners = (t.reshape(moved[0].shape).movedim(-1, dim).reshape(x.shape) for t in (found, at))
    return maxima, winners


def _product(x: Tensor, dims: list[int]) -> int:
    size = 1
    for d in dims:
        size *= x.shape[d]
    return size


def max_pool(pool: Callable[..., tuple[Tensor, Tensor]], spatial: int, x: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Max pooling with the winner rule; windows may overlap.

    Args:
        pool: the pooling, returning maxima and flat indices into the spatial dimensions.
        spatial: number of spatial dimensions.
        x: `[…, channels, *spatial]` at the input.
        x0: the same at the baseline.

    Returns:
        The maxima, and the indices of the winners at the input.
    """
    with torch.no_grad():
        y, at = pool(x)
        y0, at0 = pool(x0)
    flat, flat0 = (t.reshape(-1, _product(x, list(range(x.dim() - spatial, x.dim())))) for t in (x, x0))
    planes = flat.shape[0]
    pieces = (t.reshape(planes, -1) for t in (y, y0, at, at0))
    return WinnerRule.apply(flat, flat0, *pieces).reshape(y.shape), at

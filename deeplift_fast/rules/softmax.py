"""The log-mean rules of softmax, log_softmax and logsumexp.

With p and p0 the probabilities in the two streams, `m = (p − p0)/(log p − log p0)` is their logarithmic mean, and

    Δp = m∘(Δz − Δlogsumexp),      Δlogsumexp = Σ (m/Σm)·Δz

hold exactly: the second follows from Σ Δp = 0.
"""

from typing import Any

import torch
from torch import Tensor


def log_mean(log_p: Tensor, log_p0: Tensor) -> Tensor:
    """The logarithmic mean of two positive numbers, from their logarithms (−inf stands for 0).

    No overflow and no cancellation; 0 where both are −inf. Symmetric in its arguments.
    """
    high, low = torch.maximum(log_p, log_p0), torch.minimum(log_p, log_p0)
    delta = torch.where(high == low, 0.0, high - low)
    ratio = torch.where(delta == 0, 1.0, torch.expm1(-delta) / -delta)
    return torch.exp(high) * ratio


def _shares(mean: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """`m/Σm`; 0 where a row has no mean (every logit −inf: the softmax itself is NaN there, and stays so)."""
    total = mean.sum(dim, keepdim=True)
    return torch.where(total > 0, mean / total, 0.0)


class SoftmaxRule(torch.autograd.Function):
    """Softmax whose backward is its Jacobian with the probabilities replaced by their logarithmic means."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, z0: Tensor, dim: int) -> Tensor:
        """`softmax(z, dim)`; `z0` is the baseline's logits, of the same shape."""
        log_p, log_p0 = torch.log_softmax(z, dim), torch.log_softmax(z0, dim)
        mean = log_mean(log_p, log_p0)
        total = mean.sum(dim, keepdim=True)
        ctx.dim = dim
        # A row of −inf has no softmax (NaN, and stays so) and no mean.
        ctx.save_for_backward(torch.where(total > 0, mean, 0.0), torch.where(total > 0, total, 1.0))
        return log_p.exp()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """`m∘g − m·(mᵀg)/Σm`."""
        mean, total = ctx.saved_tensors
        weighted = mean * gradient
        share = weighted.sum(ctx.dim, keepdim=True) / total
        return weighted.addcmul_(mean, share, value=-1), None, None


class LogSoftmaxRule(torch.autograd.Function):
    """log_softmax: the identity less logsumexp's rule."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, z0: Tensor, dim: int) -> Tensor:
        """`log_softmax(z, dim)`."""
        log_p, log_p0 = torch.log_softmax(z, dim), torch.log_softmax(z0, dim)
        mean = log_mean(log_p, log_p0)
        ctx.dim = dim
        ctx.save_for_backward(_shares(mean, dim))
        return log_p

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """`g − (m/Σm)·Σg`."""
        (weights,) = ctx.saved_tensors
        return gradient - weights * gradient.sum(ctx.dim, keepdim=True), None, None


class LogSumExpRule(torch.autograd.Function):
    """logsumexp: the weighted mean of its arguments' differences."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, z0: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
        """`logsumexp(z, dim, keepdim)`."""
        total, total0 = torch.logsumexp(z, dim, True), torch.logsumexp(z0, dim, True)
        mean = log_mean(z - total, z0 - total0)
        ctx.dim, ctx.keepdim = dim, keepdim
        ctx.save_for_backward(_shares(mean, dim))
        return total if keepdim else torch.logsumexp(z, dim, False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """`(m/Σm)·g`."""
        (weights,) = ctx.saved_tensors
        if not ctx.keepdim:
            for dim in sorted(d % weights.dim() for d in ctx.dim):
                gradient = gradient.unsqueeze(dim)
        return weights * gradient, None, None, None

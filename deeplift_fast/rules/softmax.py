"""The log-mean rules of softmax, log_softmax and logsumexp.

With p and p0 the probabilities in the two streams, `m = (p − p0)/(log p − log p0)` is their logarithmic mean, and

    Δp = m∘(Δz − Δlogsumexp),      Δlogsumexp = Σ (m/Σm)·Δz

hold exactly: the second follows from Σ Δp = 0.
"""

from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.ops import naive
from deeplift_fast.ops.naive.log_mean_softmax import log_mean

__all__ = ["LogSoftmaxRule", "LogSumExpRule", "SoftmaxRule", "log_mean"]


def _softmax(z: Tensor, z0: Tensor, dim: int, log: bool) -> tuple[Tensor, Tensor]:
    """Softmax and logarithmic means; in float32 under CUDA's autocast, as softmax is there (the CPU's leaves it)."""
    if z.is_cuda and torch.is_autocast_enabled("cuda") and z.dtype in (torch.float16, torch.bfloat16):
        z, z0 = z.float(), z0.float()
    # Plain torch is what the dispatcher picks on the CPU: without it, small tensors take a third less time.
    return (ops if z.is_cuda else naive).log_mean_softmax(z, z0, dim, log)


def _shares(mean: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """`m/Σm`; 0 where a row has no mean (every logit −inf: the softmax itself is NaN there, and stays so)."""
    total = mean.sum(dim, keepdim=True)
    return torch.where(total > 0, mean / total, 0.0)


class SoftmaxRule(torch.autograd.Function):
    """Softmax whose backward is its Jacobian with the probabilities replaced by their logarithmic means."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, z0: Tensor, dim: int) -> Tensor:
        """`softmax(z, dim)`; `z0` is the baseline's logits, of the same shape."""
        p, mean = _softmax(z, z0, dim, log=False)
        ctx.dim = dim
        ctx.save_for_backward(mean)
        return p

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """`m∘g − m·(mᵀg)/Σm`."""
        (mean,) = ctx.saved_tensors
        module = ops if gradient.is_cuda else naive
        return module.log_mean_softmax_backward(gradient, mean, ctx.dim), None, None


class LogSoftmaxRule(torch.autograd.Function):
    """log_softmax: the identity less logsumexp's rule."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, z0: Tensor, dim: int) -> Tensor:
        """`log_softmax(z, dim)`."""
        log_p, mean = _softmax(z, z0, dim, log=True)
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

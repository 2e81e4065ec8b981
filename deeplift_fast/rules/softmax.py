"""The log-mean rules of softmax, log_softmax and logsumexp.

With p and p0 the probabilities in the two streams, `m = (p − p0)/(log p − log p0)` is their logarithmic mean, and

    Δp = m∘(Δz − Δlogsumexp),      Δlogsumexp = Σ (m/Σm)·Δz

hold exactly: the second follows from Σ Δp = 0.

The multipliers of softmax's and log_softmax's logits sum to zero, since a shift of all logits changes nothing. If
logits move by thousands, a sum that rounding in float32 moves away from zero shows in the contributions; see
:func:`_balanced`.
"""

from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.ops.naive.log_mean_softmax import log_mean

__all__ = ["LogSoftmaxRule", "LogSumExpRule", "SoftmaxRule", "log_mean"]


def _softmax(z: Tensor, z0: Tensor, dim: int, log: bool) -> tuple[Tensor, Tensor]:
    """Softmax and logarithmic means; in float32 under CUDA's autocast, as PyTorch's softmax."""
    if z.is_cuda and torch.is_autocast_enabled("cuda") and z.dtype in (torch.float16, torch.bfloat16):
        z, z0 = z.float(), z0.float()
    with torch._C._AutoDispatchBelowAutograd():  # skips the autograd key, which costs time
        return ops.log_mean_softmax(z, z0, dim, log)  # type: ignore[no-any-return]


def _shares(mean: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """`m/Σm`; 0 for a row without a mean (every logit −inf, so that the softmax is NaN)."""
    total = mean.sum(dim, keepdim=True)
    shares = torch.where(total > 0, mean / total, 0.0)
    return shares.addcmul_(shares, 1 - shares.sum(dim, keepdim=True))  # so that they sum to 1


FAR = 1e3  # a change of logits large enough for rounding in float32 to show


def _moves_far(z: Tensor, z0: Tensor) -> bool:
    """Whether a logit moves by more than `FAR`; false on a GPU, where the answer would cost a wait."""
    if z.is_cuda or z.dtype != torch.float32 or not z.numel():
        return False
    ends = [abs(float(end)) for each in (z, z0) for end in torch.aminmax(each.detach())]
    if max(ends[:2]) + max(ends[2:]) <= FAR:  # a quick answer for most logits; false for NaN and inf
        return False
    return bool((z - z0).abs_().nan_to_num_(0.0).max() > FAR)


def _balanced(found: Tensor, dim: int) -> Tensor:
    """Multipliers whose sum is exactly zero, in any order of addition.

    Each row is rounded to multiples of one unit, about 2⁻²³ of the sum of the positive ones, so that float32 holds all
    partial sums. The remainder of the whole sum goes to the largest multiplier.
    """
    mass = found.abs().sum(dim, keepdim=True) / 2
    unit = mass / torch.frexp(mass).mantissa * 2.0**-23
    unit = torch.where(unit > 0, unit, 1.0)
    count = (found / unit).round_()
    largest = found.abs().argmax(dim, keepdim=True)
    return count.scatter_add_(dim, largest, -count.sum(dim, keepdim=True)).mul_(unit)


class SoftmaxRule(torch.autograd.Function):
    """Softmax whose backward is its Jacobian with the probabilities replaced by their logarithmic means."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, z0: Tensor, dim: int) -> Tensor:
        """`softmax(z, dim)`; `z0` is the baseline's logits, of the same shape."""
        p, mean = _softmax(z, z0, dim, log=False)
        ctx.dim, ctx.far = dim, _moves_far(z, z0)
        ctx.save_for_backward(mean)
        return p

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """`m∘g − m·(mᵀg)/Σm`."""
        (mean,) = ctx.saved_tensors
        found = ops.log_mean_softmax_backward(gradient, mean, ctx.dim)
        return _balanced(found, ctx.dim) if ctx.far else found, None, None


class LogSoftmaxRule(torch.autograd.Function):
    """log_softmax: the identity minus logsumexp's rule."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, z0: Tensor, dim: int) -> Tensor:
        """`log_softmax(z, dim)`."""
        log_p, mean = _softmax(z, z0, dim, log=True)
        ctx.dim, ctx.far = dim, _moves_far(z, z0)
        ctx.save_for_backward(_shares(mean, dim))
        return log_p

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """`g − (m/Σm)·Σg`, without the remainder of its sum, which is zero."""
        (weights,) = ctx.saved_tensors
        found = gradient - weights * gradient.sum(ctx.dim, keepdim=True)
        found.addcmul_(weights, found.sum(ctx.dim, keepdim=True), value=-1)
        return _balanced(found, ctx.dim) if ctx.far else found, None, None


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

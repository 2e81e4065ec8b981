"""The log-mean rule of softmax in plain torch.

With p and p0 the probabilities in the two streams, `m = (p − p0)/(log p − log p0)` is their logarithmic mean, and
softmax's Jacobian with m in the place of p takes a multiplier g to

    m∘g − m·(mᵀg)/Σm

That sums to zero, as logits may all be shifted at once. What rounding leaves of the sum is taken off in the same
shares: with logits of 1e6 it would be a million times as large in the contributions.
"""

import torch
from torch import Tensor

from deeplift_fast.ops.arguments import check_log_mean_softmax
from deeplift_fast.ops.requirements import computed


def log_mean_softmax(z: Tensor, z0: Tensor, dim: int, log: bool) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.log_mean_softmax`."""
    check_log_mean_softmax(z, z0, dim, ("z", "z0"))
    log_p, log_p0 = (torch.log_softmax(each, dim, dtype=computed(z.dtype)) for each in (z, z0))
    mean = log_mean(log_p, log_p0)
    mean.masked_fill_(~(mean.sum(dim, keepdim=True) > 0), 0.0)
    return (log_p if log else log_p.exp()).to(z.dtype), mean.to(z.dtype)


def log_mean_softmax_backward(g: Tensor, mean: Tensor, dim: int) -> Tensor:
    """See :func:`deeplift_fast.ops.log_mean_softmax_backward`."""
    check_log_mean_softmax(g, mean, dim, ("g", "mean"))
    return softmax_back(g.to(computed(g.dtype)), mean.to(computed(g.dtype)), dim).contiguous().to(g.dtype)


def softmax_back(g: Tensor, mean: Tensor, dim: int) -> Tensor:
    """`m∘g − m·(mᵀg)/Σm`, without a remainder; 0 where every `m` along `dim` is 0."""
    total = mean.sum(dim, keepdim=True)
    share = mean / torch.where(total > 0, total, 1.0)
    found = mean * (g - (share * g).sum(dim, keepdim=True))
    return found.addcmul_(share, found.sum(dim, keepdim=True), value=-1)


def log_mean(log_p: Tensor, log_p0: Tensor) -> Tensor:
    """The logarithmic mean of two positive numbers, from their logarithms (−inf stands for 0).

    No overflow and no cancellation; 0 where both are −inf. Symmetric in its arguments.
    """
    high, low = torch.maximum(log_p, log_p0), torch.minimum(log_p, log_p0)
    delta = torch.where(high == low, 0.0, high - low)
    ratio = torch.where(delta == 0, 1.0, torch.expm1(-delta) / -delta)
    return torch.exp(high) * ratio

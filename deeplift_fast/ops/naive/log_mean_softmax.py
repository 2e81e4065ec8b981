"""The log-mean rule of softmax in plain torch.

With p and p0 the probabilities in the two streams, `m = (p − p0)/(log p − log p0)` is their logarithmic mean, and
softmax's Jacobian with m in the place of p takes a multiplier g to

    m∘g − m·(mᵀg)/Σm

That sums to zero, as logits may all be shifted at once. What rounding leaves of the sum is taken off in the same
shares: with logits of 1e6 it would be a million times as large in the contributions.
"""

import torch
from torch import Tensor

from deeplift_fast.ops.checks import computed


def log_mean_softmax(z: Tensor, z0: Tensor, dim: int, log: bool = False) -> tuple[Tensor, Tensor]:
    """Softmax at the input, and the logarithmic means of the probabilities in the two streams.

    Args:
        z: the logits at the input.
        z0: the logits at the baseline.
        dim: the dimension that probabilities sum to 1 along.
        log: whether to give the logarithms of the probabilities.

    Returns:
        `(y, mean)`: the probabilities or their logarithms, and `(p − p0)/(log p − log p0)` without cancellation or
        overflow: p where the two are equal, 0 where one is 0, and 0 in a row that has no softmax in one stream (every
        logit −inf, or one NaN).

    Raises:
        IndexError: if there is no such dimension.
    """
    log_p, log_p0 = (torch.log_softmax(each, dim, dtype=computed(z.dtype)) for each in (z, z0))
    mean = log_mean(log_p, log_p0)
    mean.masked_fill_(~(mean.sum(dim, keepdim=True) > 0), 0.0)
    return (log_p if log else log_p.exp()).to(z.dtype), mean.to(z.dtype)


def log_mean_softmax_backward(g: Tensor, mean: Tensor, dim: int) -> Tensor:
    """Multipliers of a softmax's logits, from those of its probabilities: `m∘g − m·(mᵀg)/Σm`.

    That is softmax's Jacobian with the probabilities replaced by their logarithmic means: complete, and the same when a
    number is added to every logit.

    Args:
        g: multipliers of the probabilities.
        mean: what :func:`log_mean_softmax` gave; or the probabilities at the input, for the gradient.
        dim: as there.

    Returns:
        Multipliers of the logits; 0 where `mean` is 0.

    Raises:
        IndexError: if there is no such dimension.
    """
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

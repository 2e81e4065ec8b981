"""The log-mean rule of softmax in plain torch.

With p and p0 the probabilities in the two streams, `m = (p − p0)/(log p − log p0)` is their logarithmic mean, and
softmax's Jacobian with m in the place of p takes a multiplier g to

    m∘g − m·(mᵀg)/Σm

That sums to zero, since a shift of all logits changes nothing. A remainder from rounding is subtracted in the same
shares: logits of 1e6 would multiply it by a million in the contributions.
"""

import torch
from torch import Tensor

from deeplift_fast.ops.checks import computed


def log_mean_softmax(z: Tensor, z0: Tensor, dim: int, log: bool = False) -> tuple[Tensor, Tensor]:
    """Softmax at the input, and the logarithmic means of the probabilities in the two streams.

    Args:
        z: the logits at the input.
        z0: the logits at the baseline.
        dim: the dimension along which probabilities sum to 1.
        log: whether to return the logarithms of the probabilities.

    Returns:
        `(y, mean)`: the probabilities or their logarithms, and `(p − p0)/(log p − log p0)` without cancellation or
        overflow. The mean is p if the two are equal, and 0 if one is 0 or the row has no softmax in one stream (every
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

    This is softmax's Jacobian with logarithmic means in place of the probabilities. It is complete, and a number added
    to every logit does not change it.

    Args:
        g: multipliers of the probabilities.
        mean: the means from :func:`log_mean_softmax`, or for the gradient the probabilities at the input.
        dim: as for :func:`log_mean_softmax`.

    Returns:
        Multipliers of the logits; 0 where `mean` is 0.

    Raises:
        IndexError: if there is no such dimension.
    """
    return softmax_back(g.to(computed(g.dtype)), mean.to(computed(g.dtype)), dim).contiguous().to(g.dtype)


def softmax_back(g: Tensor, mean: Tensor, dim: int) -> Tensor:
    """`m∘g − m·(mᵀg)/Σm`, without a remainder; 0 if every `m` along `dim` is 0."""
    total = mean.sum(dim, keepdim=True)
    share = mean / torch.where(total > 0, total, 1.0)
    found = mean * (g - (share * g).sum(dim, keepdim=True))
    return found.addcmul_(share, found.sum(dim, keepdim=True), value=-1)


def log_mean(log_p: Tensor, log_p0: Tensor) -> Tensor:
    """The logarithmic mean of two positive numbers, from their logarithms (−inf stands for 0).

    It has no overflow and no cancellation, is 0 if both are −inf, and is symmetric in its arguments.
    """
    high, low = torch.maximum(log_p, log_p0), torch.minimum(log_p, log_p0)
    delta = torch.where(high == low, 0.0, high - low)
    ratio = torch.where(delta == 0, 1.0, torch.expm1(-delta) / -delta)
    return torch.exp(high) * ratio

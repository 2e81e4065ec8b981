"""Multipliers of a layer norm's argument, in plain torch.

With a bar for the mean of the two streams (or the input's value where `half` is 0), c = x − mean(x), r = rsqrt of the
variance, and the secant slope of rsqrt, −(r·r0)²/(r + r0):

    m_x = centred(m·r̄ + c̄·(2/size)·slope·Σ m·c̄)
"""

import torch
from torch import Tensor

from deeplift_fast.ops.requirements import computed, require_within


def layer_norm_backward(
    m: Tensor,
    x: Tensor,
    x0: Tensor,
    where: Tensor,
    average: Tensor,
    average0: Tensor,
    scale: Tensor,
    scale0: Tensor,
    weight: Tensor,
    half: float,
) -> Tensor:
    """See :func:`deeplift_fast.ops.layer_norm_backward`."""
    require_within("layer_norm_backward: where", where, len(x0))
    dtype, wide = x.dtype, computed(x.dtype)
    x, x0, m = x.to(wide), x0.to(wide), m.to(wide) * weight.to(wide)
    centred = torch.lerp(x, x0[where], half) - torch.lerp(average, average0[where], half)
    r = scale
    r0 = scale0[where] if half else r
    slope = -(r * r0) * (r * r0) / (r + r0)
    through = slope * (2 / x.shape[1]) * (m * centred).sum(-1, keepdim=True)
    found = m * torch.lerp(r, r0, half) + centred * through
    return (found - found.mean(-1, keepdim=True)).to(dtype)

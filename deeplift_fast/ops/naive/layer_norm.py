"""Multipliers of a layer norm's argument, in plain torch.

A layer norm is the quotient y = c/σ of c = x − mean(x) and σ = √(mean(c²) + eps). Δ is the difference of the two
streams, and a bar is their mean. The midpoint rule for the products c = y·σ and σ² = σ·σ gives

    Δy = (Δc − ȳ·Δσ)/σ̄        Δσ = Σ c̄·Δc/(size·σ̄)

With m the multiplier of y, the multiplier of x is

    m_x = centred((m − c̄·(Σ m·ȳ)/(size·σ̄))/σ̄)

This is exact. σ̄ is at least half of the larger σ, so that a stream that is constant over the features (σ = √eps) does
not enlarge a multiplier. If `half` is 0, a bar is the input's value, and m_x is the gradient.
"""

import torch
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.values import require_within


def layer_norm_backward(
    m: Tensor, x: Tensor, x0: Tensor, where: Tensor, average: Tensor, average0: Tensor, scale: Tensor, scale0: Tensor,
    weight: Tensor, half: float,
) -> Tensor:  # fmt: skip
    """Multipliers of a layer norm's argument, by the quotient rule.

    The rule is exact, and a baseline that is constant over the features does not enlarge a multiplier.

    Args:
        m: multipliers of the norm's output.
        x: the argument at the input.
        x0: the argument at the baseline.
        where: the index of each row's baseline.
        average, average0: the average of each row in both streams.
        scale, scale0: `1/√(variance + eps)` of each row in both streams.
        weight: the norm's weight.
        half: 0.5 for the quotient rule, 0 for the gradient at the input.

    Returns:
        Multipliers of `x`.

    Raises:
        RuntimeError, IndexError: if `where` is out of range.
    """
    require_within("layer_norm_backward: where", where, len(x0))
    dtype, wide = x.dtype, computed(x.dtype)
    m = m.to(wide) * weight.to(wide)
    c, r = x.to(wide) - average, scale
    c0, r0 = ((x0.to(wide) - average0)[where], scale0[where]) if half else (c, r)
    c_mean, y_mean = torch.lerp(c, c0, half), torch.lerp(c * r, c0 * r0, half)
    inverse = r * (r0 / torch.lerp(r0, r, half))  # 1/σ̄; r·r0 could underflow or overflow
    found = (m - c_mean * ((m * y_mean).sum(-1, keepdim=True) * inverse / x.shape[1])) * inverse
    return (found - found.mean(-1, keepdim=True)).to(dtype)

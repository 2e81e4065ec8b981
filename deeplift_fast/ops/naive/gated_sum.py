"""A gated value added to another, `σ(a)·b + c`, in plain torch."""

import torch
from torch import Tensor

from deeplift_fast.ops.arguments import check_gated_sum
from deeplift_fast.ops.naive.secant import secant
from deeplift_fast.ops.requirements import computed


def gated_sum(a: Tensor, b: Tensor, c: Tensor, variant: str, half: float) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.gated_sum`."""
    check_gated_sum(a, b, c, variant)
    dtype, wide = a.dtype, computed(a.dtype)
    a, b, c = (each.to(wide) for each in (a, b, c))
    gate, gate0, slope = secant(a[0], a[1], "sigmoid", variant)
    y = torch.stack([gate, gate0]) * b + c
    multipliers = torch.stack([slope * torch.lerp(b[0], b[1], half), torch.lerp(gate, gate0, half)])
    return y.to(dtype), multipliers.to(dtype)

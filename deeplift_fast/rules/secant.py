"""The Rescale rule of an elementwise activation."""

from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops


class SecantRule(torch.autograd.Function):
    """`f(x)` whose backward multiplies by the secant slope of `f` between the baseline and the input.

    Shrikumar et al. 2017, eq. 13: `m = Δy/Δx`. It equals the gradient only at `x = x0`, so `gradcheck` does not apply.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, function: str, variant: str) -> Tensor:
        """Args and errors as :func:`deeplift_fast.ops.secant_at_input`; returns `f(x)`."""
        with torch._C._AutoDispatchBelowAutograd():  # skips the autograd key, which costs time
            y, multiplier = ops.secant_at_input(x, x0, function, variant)
        ctx.save_for_backward(multiplier)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The incoming multiplier times this activation's own."""
        (multiplier,) = ctx.saved_tensors
        return gradient * multiplier, None, None, None

"""The Rescale rule of an elementwise activation."""

from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops


class SecantRule(torch.autograd.Function):
    """`f(x)` whose backward multiplies by the secant slope of `f` between the baseline and the input.

    Shrikumar et al. 2017, eq. 13: `m = Δy/Δx`. It equals the gradient only at `x = x0`, so `gradcheck` does not apply.
    The multiplier is a constant: it has no derivative of its own. :func:`deeplift_fast.rules.relu`, `sigmoid` and
    `tanh` call it by name, also under `torch.func`.

    Example:
        >>> x = torch.tensor([12.0], requires_grad=True)
        >>> SecantRule.apply(x, torch.tensor([0.0]), "tanh").sum().backward()
        >>> x.grad  # (1 - 0) / (12 - 0), where the derivative is 0
        tensor([0.0833])
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, function: str, variant: str = "rescale") -> Tensor:
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

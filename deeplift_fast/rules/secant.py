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


_FEW = 2**14  # numbers on a CPU, for which a backward pass in Python costs more than two more operations


def secant(x: Tensor, x0: Tensor, function: str, variant: str = "rescale") -> Tensor:
    """As :class:`SecantRule`, without Python in the backward pass of few numbers; `x0` has the shape and dtype of `x`.

    Args:
        x: the argument at the input, which needs a gradient.
        x0: the argument at the baseline.
        function: as for the op.
        variant: as for the op.

    Returns:
        `f(x)`.
    """
    if not x.is_cpu or x.numel() > _FEW:
        return SecantRule.apply(x, x0, function, variant)  # type: ignore[no-any-return]
    with torch._C._AutoDispatchBelowAutograd():
        y, multiplier = ops.unchecked.secant_at_input(x, x0, function, variant)
    found = torch.addcmul(y, x, multiplier)  # for the sake of its backward: the gradient times the multiplier
    with torch._C._AutoDispatchBelowAutograd():
        return found.copy_(y)

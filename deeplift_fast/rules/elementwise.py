"""The secant rule of any elementwise function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Where |Δ| is below this part of 1 + |x|, rounding spoils the quotient more than the midpoint's derivative is off:
# about the cube root of the dtype's eps.
_NEAR = {torch.float32: 4e-3, torch.float64: 5e-6}


class ElementwiseRule(torch.autograd.Function):
    """`f(x)` whose backward multiplies by `(f(x) − f(x0))/(x − x0)`, or by `f'` half-way where the two are close.

    Shrikumar et al. 2017, eq. 13. The derivative at the midpoint equals the secant slope up to `Δ²f'''/24`.
    """

    @staticmethod
    def forward(ctx: Any, f: Callable[[Tensor], Tensor], x: Tensor, x0: Tensor) -> Tensor:
        """`f(x)`.

        Args:
            ctx: PyTorch's.
            f: the elementwise function.
            x: its argument at the input; real floating point.
            x0: its argument at the baseline, of the same shape and dtype.
        """
        wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
        y = f(x)
        a, b = x.to(wide), x0.to(wide)
        ctx.save_for_backward(_slope(f, a, b, y if wide == y.dtype else f(a)).to(y.dtype))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        """The incoming multiplier times this function's own."""
        (multiplier,) = ctx.saved_tensors
        return None, gradient * multiplier, None


def _slope(f: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    same = a == b  # equal infinities included
    delta = torch.where(same, 0.0, a - b)
    rise = torch.where(same, 0.0, value - f(b))
    quotient = rise / torch.where(same, 1.0, delta)
    near = delta.abs() <= _NEAR[a.dtype] * (1 + torch.maximum(a.abs(), b.abs()))
    if not near.any():
        return quotient
    derivative, middle = _derivative(f, torch.where(same, a, b + delta / 2))
    # A kink between the two shows as a rise that rounding does not explain.
    noise = 16 * torch.finfo(a.dtype).eps * middle.abs()
    smooth = near & ((derivative * delta - rise).abs() <= noise)
    return torch.where(smooth | same, derivative, quotient)


def _derivative(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """`f'(x)`, 0 where it is not finite (sqrt at 0, both streams there), and `f(x)`."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        value = f(point)
        if not value.requires_grad:  # a function of steps
            return torch.zeros_like(x), value
        (derivative,) = torch.autograd.grad(value.sum(), point)
    return torch.where(derivative.isfinite(), derivative, 0.0), value.detach()

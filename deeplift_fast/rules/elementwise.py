"""The secant rule of any elementwise function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.rules.call import whole

# Arguments are close if |Δ| is below this part of 1 + |x|, about the cube root of the dtype's eps. Rounding then makes
# the quotient less accurate than the midpoint's derivative.
_NEAR = {torch.float32: 4e-3, torch.float64: 5e-6}


class ElementwiseRule(torch.autograd.Function):
    """`f(x)` whose backward multiplies by `(f(x) − f(x0))/(x − x0)`, or by `f'` half-way for close arguments.

    Shrikumar et al. 2017, eq. 13. The derivative at the midpoint equals the secant slope up to `Δ²f'''/24`.
    """

    @staticmethod
    def forward(
        ctx: Any, f: Callable[[Tensor], Tensor], x: Tensor, x0: Tensor, alone: bool, inverse: bool = False
    ) -> Tensor:
        """`f(x)`.

        Args:
            ctx: PyTorch's.
            f: the elementwise function.
            x: its argument at the input; real floating point.
            x0: its argument at the baseline, of the same shape and dtype.
            alone: whether `f` takes elements of any shape, since no other tensor broadcasts with them.
            inverse: whether the result is an inverse, see :func:`deeplift_fast.rules.quotient.is_inverse`.
        """
        ctx.inverse = inverse
        y = whole(f(x), (x,))
        ctx.save_for_backward(_slope(f, x, x0, y, alone))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None, None]:
        """The incoming multiplier times this function's own."""
        (multiplier,) = ctx.saved_tensors
        return None, gradient * multiplier, None, None, None


class GeluRule(torch.autograd.Function):
    """GELU with erf; see :func:`deeplift_fast.ops.gelu`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, where: Tensor) -> Tensor:
        """`gelu(x)` of finite float32 or float64 numbers, `[rows, size]`; `x0` and `where` as for the op."""
        with torch._C._AutoDispatchBelowAutograd():  # skips the autograd key, which costs time
            y, multiplier = ops.unchecked.gelu(x.contiguous(), x0, where, True)
        ctx.save_for_backward(multiplier)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The incoming multiplier times this function's own."""
        (multiplier,) = ctx.saved_tensors
        return gradient * multiplier, None, None


class ClosedRule(torch.autograd.Function):
    """A function in :data:`CLOSED`, whose secant slope has a closed form without cancellation."""

    @staticmethod
    def forward(ctx: Any, name: str, x: Tensor, x0: Tensor, inverse: bool = False) -> Tensor:
        """`f(x)`; arguments as for :class:`ElementwiseRule`."""
        ctx.inverse = inverse
        function, slope = CLOSED[name]
        y = function(x)
        ctx.save_for_backward(slope(x, x0, y, function(x0)))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        """The incoming multiplier times this function's own."""
        (multiplier,) = ctx.saved_tensors
        return None, gradient * multiplier, None, None


def _of_square(x: Tensor, x0: Tensor, y: Tensor, y0: Tensor) -> Tensor:
    return x + x0


def _of_sqrt(x: Tensor, x0: Tensor, y: Tensor, y0: Tensor) -> Tensor:
    total = y + y0
    return torch.where(total == 0, 0.0, 1 / total)  # both are 0: Δ is 0 too


def _of_rsqrt(x: Tensor, x0: Tensor, y: Tensor, y0: Tensor) -> Tensor:
    product = y * y0
    return -product * (product / (y + y0))  # this order does not underflow for a large x


def _of_reciprocal(x: Tensor, x0: Tensor, y: Tensor, y0: Tensor) -> Tensor:
    return -(y * y0)


def _of_exp(x: Tensor, x0: Tensor, y: Tensor, y0: Tensor) -> Tensor:
    fall = -(x - x0).abs()
    same = (fall == 0) | fall.isnan()  # equal infinities included
    return torch.where(same, y, torch.maximum(y, y0) * torch.expm1(fall) / torch.where(same, 1.0, fall))


Slope = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
CLOSED: dict[str, tuple[Callable[[Tensor], Tensor], Slope]] = {
    "square": (torch.square, _of_square),
    "sqrt": (torch.sqrt, _of_sqrt),
    "rsqrt": (torch.rsqrt, _of_rsqrt),
    "reciprocal": (torch.reciprocal, _of_reciprocal),
    "exp": (torch.exp, _of_exp),
}


def secant_slope(f: Callable[[Tensor], Tensor], x: Tensor, x0: Tensor, y: Tensor, static: bool = False) -> Tensor:
    """The secant slope of `f`; its derivative half-way for close arguments.

    Args:
        f: the elementwise function.
        x: its argument at the input; real floating point.
        x0: its argument at the baseline, of the same shape and dtype.
        y: `f(x)`.
        static: whether to compute both for every element, so that nothing waits for the device.

    Returns:
        The slope, in the dtype of `y`.
    """
    return _slope(f, x, x0, y, not static).to(y.dtype)


def _slope(f: Callable[[Tensor], Tensor], x: Tensor, x0: Tensor, y: Tensor, alone: bool) -> Tensor:
    """The slope; in float32 for half types, which may not hold the slope of a root or an inverse."""
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    a, b = x.to(wide), x0.to(wide)
    value = y if y.dtype == wide else f(a)
    delta = a - b
    slope = (value - f(b)).div_(delta)
    tiny = _NEAR[wide]
    near = (delta.abs_() <= torch.add(tiny, a.abs(), alpha=tiny)).logical_or_(a == b)
    if not alone:
        slope = torch.where(near, _close(f, a, b, value), slope)
    elif near.any():
        slope[near] = _close(f, a[near], b[near], value[near])
    return slope


def _close(f: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    """The slope for close arguments."""
    same = a == b  # equal infinities included
    delta = torch.where(same, 0.0, a - b)
    rise = torch.where(same, 0.0, value - f(b))
    derivative, middle = _derivative(f, torch.where(same, a, b + delta / 2))
    # A kink between the two causes a difference that rounding cannot explain.
    noise = 16 * torch.finfo(a.dtype).eps * middle.abs()
    smooth = (derivative * delta - rise).abs() <= noise
    return torch.where(smooth | same, derivative, rise / torch.where(same, 1.0, delta))


def _derivative(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """`f'(x)`, or 0 if it is not finite (sqrt at 0 in both streams), and `f(x)`."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        value = f(point)
        if not value.requires_grad:  # a function of steps
            return torch.zeros_like(x), value
        (derivative,) = torch.autograd.grad(value.sum(), point)
    return torch.where(derivative.isfinite(), derivative, 0.0), value.detach()

"""The quotient rule: `a / b` by the midpoint of `a = y·b`, and products of a factor and an inverse.

With bars for the means of the two streams, `y = a/b` means `Δa = b̄·Δy + ȳ·Δb`, so that, exactly,

    Δy = (Δa − ȳ·Δb) / b̄,    m_a = m/b̄,    m_b = −m·ȳ/b̄.

A product of `a` and an inverse `r = 1/b` has the same multipliers, written with weights:

    m_a = m·(λr + μr0),    m_r = m·(λa0 + μa),    λ = r0/(r + r0),    μ = r/(r + r0).

The larger divisor sets the size of the multipliers: an `r0` of 316 (`rsqrt(1e-5)`) and an `r` of 1 give 2 instead of
158. Any `λ + μ = 1` is exact. Divisors of different signs take `λ = μ = ½`, the midpoint rule of the product.
"""

from typing import Any

import torch
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.rules import operations as tables
from deeplift_fast.rules.averaged import vjp
from deeplift_fast.rules.call import Call, whole
from deeplift_fast.rules.product import midpoint

_SCALING = frozenset(("MulBackward0", "DivBackward0"))


def is_inverse(x: Tensor) -> bool:
    """Whether a tensor was made as an inverse: by rsqrt, reciprocal, a negative power, or a constant over a tensor.

    The rule that made the inverse sets `inverse` on its context, which is a node of the autograd graph. Views, casts,
    copies, selections and products with constants may follow, since `λ` does not depend on them.
    """
    node: Any = x.grad_fn
    while node is not None and not getattr(node, "inverse", False):
        name, before = type(node).__name__, [found for found, _ in node.next_functions]
        if name in tables.HANDING_ON:
            node = before[0]
        elif name in _SCALING:
            moving = [found for found in before if found is not None and type(found).__name__ != "AccumulateGrad"]
            node = moving[0] if len(moving) == 1 else None
        elif name == "CopyBackwards":  # written in place; the last one is the source
            node = before[-1]
        else:
            return False
    return node is not None


def power_is_inverse(x: Tensor, exponent: Any) -> bool:
    """Whether `x ** exponent` is an inverse: the exponent is negative, or `x` is one and the exponent positive.

    Args:
        x: the base.
        exponent: a number, or a tensor of them.
    """
    negative, positive = exponent < 0, exponent > 0
    if isinstance(exponent, Tensor):
        negative, positive = bool(negative.all()), bool(positive.all())
    return (negative or positive) and is_inverse(x) != negative


class QuotientRule(torch.autograd.Function):
    """`a / b`, with `Δ(a/b) = (Δa − ȳ·Δb)/b̄` where `b` and `b0` have one sign."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, a0: Tensor, b: Tensor, b0: Tensor, inverse: bool) -> Tensor:
        """`a / b`.

        Args:
            ctx: PyTorch's.
            a: the dividend at the input; real.
            a0: the dividend at the baseline, of the same shape.
            b: the divisor at the input; real floating point; it broadcasts with `a`.
            b0: the divisor at the baseline, of the same shape.
            inverse: whether the result is an inverse, see :func:`is_inverse`.
        """
        y = a / b
        wide = computed(y.dtype)
        at, at0, by, by0 = (x.to(wide) for x in (a, a0, b, b0))
        r, r0, middle = 1 / by, 1 / by0, midpoint(by, by0)
        alike = _have_one_sign(by, by0)
        of_a = torch.where(alike, 1 / middle, (r + r0) / 2)
        of_b = torch.where(alike, -midpoint(at / by, at0 / by0) / middle, -midpoint(at, at0) * r * r0)
        ctx.inverse = inverse
        ctx.shapes = a.shape, b.shape
        ctx.save_for_backward(of_a, of_b)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, None, None]:
        """`m/b̄` and `−m·ȳ/b̄`."""
        a, b = _products(ctx, gradient, (0, 2))
        return a, None, b, None, None


class InverseProductRule(torch.autograd.Function):
    """`a * r` of a factor and an inverse: the quotient rule with weights."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, a0: Tensor, r: Tensor, r0: Tensor) -> Tensor:
        """`a * r`; real floating point; the operands broadcast, each has its baseline's shape."""
        y = a * r
        wide = computed(y.dtype)
        at, at0, by, by0 = (x.to(wide) for x in (a, a0, r, r0))
        first, second = _weights(by, by0)
        ctx.shapes = a.shape, r.shape
        ctx.save_for_backward(first * by + second * by0, first * at0 + second * at)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        """`m·(λr + μr0)` and `m·(λa0 + μa)`."""
        a, r = _products(ctx, gradient, (0, 2))
        return a, None, r, None


class InverseBilinearRule(torch.autograd.Function):
    """An operation that is linear in an inverse (matmul, einsum, addcmul …), with the quotient rule for each element.

    `f(a, r)` is the sum over k of `f(a, e_k)·r_k`, and each of these products has its own weights.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, index: int, *xs: Tensor) -> Tensor:
        """The operation at the input.

        Args:
            ctx: PyTorch's.
            call: the operation in both streams; real.
            index: which of `xs` is the inverse.
            *xs: the call's moved tensors.
        """
        ctx.call, ctx.index = call, index
        ctx.save_for_backward(*xs, *call.x0s)
        found: Tensor = whole(call.run(*xs), call.actual.floats)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """The other operands' multipliers use `λr + μr0`; the inverse's are weighted element by element."""
        count, index = len(ctx.saved_tensors) // 2, ctx.index
        xs, x0s = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        first, second = _weights(xs[index], x0s[index])
        middle = [midpoint(x, x0) for x, x0 in zip(xs, x0s, strict=True)]
        middle[index] = first * xs[index] + second * x0s[index]
        found, at, at0 = (
            list(vjp(ctx.call, [x.detach().requires_grad_() for x in point], (gradient,)))
            for point in (middle, xs, x0s)
        )
        if at[index] is not None:
            found[index] = first * at0[index] + second * at[index]
        return None, None, *found


def _have_one_sign(b: Tensor, b0: Tensor) -> Tensor:
    """Whether both are finite, and both above 0 or both below."""
    return (torch.sign(b) * torch.sign(b0) > 0) & b.isfinite() & b0.isfinite()


def _weights(r: Tensor, r0: Tensor) -> tuple[Tensor, Tensor]:
    """`λ` and `μ = 1 − λ`, each exact to rounding; a subtraction would lose a small `μ`."""
    half, half0 = r / 2, r0 / 2  # their sum does not overflow
    total = half + half0
    alike = _have_one_sign(r, r0) & (total != 0)
    return torch.where(alike, half0 / total, 0.5), torch.where(alike, half / total, 0.5)


def _products(ctx: Any, gradient: Tensor, places: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
    """The incoming multiplier times each operand's own, in the operands' shapes; `None` if it is not needed."""
    found = [
        (gradient * multiplier).sum_to_size(shape) if ctx.needs_input_grad[place] else None
        for place, multiplier, shape in zip(places, ctx.saved_tensors, ctx.shapes, strict=True)
    ]
    return found[0], found[1]

"""The midpoint rule of products: each operand's multiplier uses the mean of the other."""

from typing import Any

import torch
from torch import Tensor

from deeplift_fast.rules.call import whole


class ProductRule(torch.autograd.Function):
    """`a * b`, with `Δ(ab) = Δa·(b + b0)/2 + Δb·(a + a0)/2`."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, a0: Tensor, b: Tensor, b0: Tensor, inverse: bool = False) -> Tensor:
        """`a * b`; operands may broadcast and have their baseline's shape; `inverse`: whether both are inverses."""
        ctx.inverse = inverse
        ctx.shapes = a.shape, b.shape
        ctx.save_for_backward(midpoint(a, a0), midpoint(b, b0))
        return a * b

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, None, None]:
        """The incoming multiplier times the other operand's mean."""
        a, b = ctx.saved_tensors
        shape_a, shape_b = ctx.shapes
        return (gradient * b).sum_to_size(shape_a), None, (gradient * a).sum_to_size(shape_b), None, None


class MatmulRule(torch.autograd.Function):
    """`a @ b` of operands with two dimensions or more, with `Δ(ab) = Δa·(b + b0)/2 + (a + a0)/2·Δb`."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, a0: Tensor, b: Tensor, b0: Tensor) -> Tensor:
        """`torch.matmul(a, b)`; leading dimensions may broadcast, and each operand has its baseline's shape."""
        ctx.shapes = a.shape, b.shape
        ctx.save_for_backward(midpoint(a, a0), midpoint(b, b0))
        return whole(torch.matmul(a, b), (a, b))  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, None]:
        """The incoming multiplier times the other operand's mean, transposed."""
        a, b = ctx.saved_tensors
        shape_a, shape_b = ctx.shapes
        return (
            torch.matmul(gradient, b.mT).sum_to_size(shape_a),
            None,
            torch.matmul(a.mT, gradient).sum_to_size(shape_b),
            None,
        )


def midpoint(x: Tensor, x0: Tensor) -> Tensor:
    """The mean of both streams."""
    return torch.lerp(x0, x, 0.5)

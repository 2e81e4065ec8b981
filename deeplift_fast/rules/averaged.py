"""Multipliers as averages of an operation's VJP between the baseline and the input."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.rules.call import Call, is_floating, leaves, whole

Nodes = tuple[tuple[float, float], ...]
Note = Callable[[Tensor], None]


def gauss_legendre(count: int) -> Nodes:
    """Gauss-Legendre positions in [0, 1], and weights that sum to 1."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return tuple(((point + 1) / 2, weight / 2) for point, weight in zip(points.tolist(), weights.tolist(), strict=True))


GRADIENT: Nodes = ((1.0, 1.0),)
MIDPOINT: Nodes = ((0.5, 1.0),)
QUADRATURE = gauss_legendre(16)


def averaged(call: Call, nodes: Nodes, note: Note | None = None) -> Any:
    """Run an operation whose multipliers are its VJP, averaged on the straight line from `x0` to `x`.

    Args:
        call: the operation in both streams.
        nodes: positions on the line from baseline to input, and weights. The midpoint is complete for operations of
            degree two, quadrature for smooth operations, the gradient at the input for linear operations.
        note: takes the operation's part of the convergence delta once the multipliers are known: `Σ m·Δx − Σ g·Δy`, a
            float64 scalar tensor.

    Returns:
        The operation's result.
    """
    shape: list[Any] = []
    found = AveragedRule.apply(call, nodes, note, shape, *call.xs)
    (kind,) = shape
    if not issubclass(kind, tuple | list):
        return found
    return kind(found) if kind in (tuple, list) or hasattr(kind, "n_fields") else kind(*found)


class AveragedRule(torch.autograd.Function):
    """The rule behind :func:`averaged`; it keeps only arguments and runs the operation again at each node."""

    @staticmethod
    def forward(ctx: Any, call: Call, nodes: Nodes, note: Note | None, shape: list[Any], *xs: Tensor) -> Any:
        """The operation at the input; the type of its result is appended to `shape`."""
        ctx.call, ctx.nodes, ctx.note = call, nodes, note
        ctx.save_for_backward(*xs, *call.x0s)
        ctx.set_materialize_grads(False)
        outputs = whole(call.run(*xs), call.actual.floats)
        shape.append(type(outputs))
        if isinstance(outputs, Tensor):
            return outputs
        flat = tuple(outputs)
        ctx.mark_non_differentiable(*[o for o in flat if isinstance(o, Tensor) and not is_floating(o)])
        return flat

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        """The incoming multipliers times the averaged Jacobian."""
        count = len(ctx.saved_tensors) // 2
        xs, x0s = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        totals: list[Tensor | None] = [None] * count
        for position, weight in ctx.nodes:
            for index, part in enumerate(vjp(ctx.call, _between(xs, x0s, position), gradients)):
                if part is None:
                    continue
                part = part if weight == 1 else part * weight
                total = totals[index]
                totals[index] = part if total is None else total + part
        if ctx.note is not None:
            ctx.note(_missed(ctx.call, xs, x0s, totals, gradients))
        return (None, None, None, None, *totals)


def _between(xs: Sequence[Tensor], x0s: Sequence[Tensor], position: float) -> list[Tensor]:
    if position == 1:
        return [x.detach().requires_grad_() for x in xs]
    return [_on_line(x, x0, position).requires_grad_() for x, x0 in zip(xs, x0s, strict=True)]


def _on_line(x: Tensor, x0: Tensor, position: float) -> Tensor:
    # Equal infinities (masked logits in both streams) must stay; lerp would make NaN of them.
    point = torch.lerp(x0, x.detach(), position)
    return torch.where(x == x0, x0, point) if not point.is_complex() and point.isnan().any() else point


def vjp(call: Call, points: list[Tensor], gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """The VJP of an operation at `points`, leaves that need a gradient; `None` where the result does not depend."""
    with torch.enable_grad():
        outputs = call.run(*points)
    outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    pairs = [
        (o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and is_floating(o) and o.requires_grad
    ]
    if not pairs:
        return [None] * len(points)
    return torch.autograd.grad([o for o, _ in pairs], points, [g for _, g in pairs], allow_unused=True)


def _missed(
    call: Call,
    xs: Sequence[Tensor],
    x0s: Sequence[Tensor],
    totals: Sequence[Tensor | None],
    gradients: Sequence[Tensor | None],
) -> Tensor:
    """`Σ m·Δx − Σ g·Δy`; NaN if shapes differ between the streams."""
    with torch.no_grad():
        ys = _outputs(call.run(*xs))
        y0s = _outputs(call.baseline.run(call.func))
        given = [_inner(m, x, x0) for m, x, x0 in zip(totals, xs, x0s, strict=True) if m is not None]
        due = [_inner(g, y, y0) for g, y, y0 in zip(gradients, ys, y0s, strict=False) if g is not None]
    return torch.stack([*given, *(-d for d in due), xs[0].new_zeros((), dtype=torch.float64)]).sum()


def _outputs(outputs: Any) -> list[Any]:
    return [outputs] if isinstance(outputs, Tensor) else [o for o in leaves(tuple(outputs)) if isinstance(o, Tensor)]


def _inner(multiplier: Tensor, x: Tensor, x0: Tensor) -> Tensor:
    if x.shape != x0.shape:
        return torch.full((), torch.nan, dtype=torch.float64, device=x.device)
    difference = torch.where(x == x0, torch.zeros_like(x), x - x0)
    product = multiplier * difference.conj() if difference.is_complex() else multiplier * difference
    return (product.real if product.is_complex() else product).double().sum()

"""Whole layers with one rule each: the chain of the rules of their operations, in fewer passes over memory.

A layer that does not fit (weights that depend on the input, states other than zero …) runs as that chain, written out.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.rules.call import Call
from deeplift_fast.rules.distinct import distinct_rows
from deeplift_fast.rules.recurrent_layers import options, recurrent_layers

InParts = Callable[[Tensor], Any]
FLOATS = (torch.float32, torch.float64)


def run(call: Call, in_parts: InParts) -> tuple[Any, str] | None:
    """Run a layer at the input with its multipliers.

    Args:
        call: the layer in both streams, named in :data:`LAYERS`.
        in_parts: runs the layer on another first tensor at the input, operation by operation, with their rules.

    Returns:
        The layer's result and the name of the rule; `None` if the layer does not fit.
    """
    x = call.actual.floats[0]
    if not call.fixed or call.moved != [0] or x.dtype not in FLOATS or not x.numel():
        return None
    if torch.is_autocast_enabled(x.device.type):
        return None
    return LAYERS[call.name](call, in_parts)


class LayerNormRule(torch.autograd.Function):
    """A layer norm with the quotient rule; see :func:`deeplift_fast.ops.layer_norm_backward`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, x0: Tensor, affine: tuple[Tensor | None, Tensor | None], *options: Any) -> Tensor:
        """The layer norm at the input.

        Args:
            ctx: PyTorch's.
            x: its argument at the input, float32 or float64, `[…, *shape]`.
            x0: its argument at the baseline.
            affine: its weight and bias.
            *options: the normalised shape, and eps.
        """
        shape, eps = options
        weight, bias = (None if each is None else each.detach() for each in affine)
        y, mean, scale = torch.native_layer_norm(x, shape, weight, bias, eps)
        rows0, where = distinct_rows(x0, x0.dim() - len(shape))
        _, mean0, scale0 = torch.native_layer_norm(rows0, rows0.shape[1:], None, None, eps)
        ctx.weight = torch.ones(tuple(shape), dtype=x.dtype, device=x.device) if weight is None else weight
        ctx.save_for_backward(x, rows0, where, mean, mean0, scale, scale0)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """`centred((m − c̄·(Σ m·ȳ)/(n·σ̄))/σ̄)`."""
        x, rows0, where, *statistics = ctx.saved_tensors
        m, rows = (each.reshape(len(where), -1).contiguous() for each in (gradient, x))
        mean, mean0, scale, scale0 = (each.reshape(-1, 1) for each in statistics)
        weight = ctx.weight.reshape(-1).contiguous()
        found = ops.unchecked.layer_norm_backward(m, rows, rows0, where, mean, mean0, scale, scale0, weight, 0.5)
        return found.reshape(x.shape), None, None, None, None


def _layer_norm(call: Call, in_parts: InParts) -> tuple[Any, str]:
    (x,), (x0,) = call.xs, call.x0s
    affine = call.argument(2, "weight"), call.argument(3, "bias")
    shape, eps = call.argument(1, "normalized_shape"), call.argument(4, "eps", 1e-5)
    return LayerNormRule.apply(x, x0, affine, shape, eps), "quotient"


LAYERS: dict[str, Callable[[Call, InParts], tuple[Any, str] | None]] = {
    "layer_norm": _layer_norm,
    "lstm": recurrent_layers,
    "gru": recurrent_layers,
    "rnn_tanh": recurrent_layers,
    "rnn_relu": recurrent_layers,
}


def fits(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call may run as a whole, as far as its options tell: those are the same in both streams."""
    if name == "layer_norm":
        return True
    return name in LAYERS and not kwargs and len(args) == 9 and options(args).fit

"""Normalisations written out: centre, square, mean, rsqrt, product.

The product of the centred values and the rsqrt gets the quotient rule (`deeplift_fast.rules.quotient`). With the
secants of the parts that makes `m_x = centred((m − c̄·(Σ m·ȳ)/(n·σ̄))/σ̄)`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _wide(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same, computed in float32 for half types, as PyTorch does."""

    @functools.wraps(norm)
    def widened(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if input.dtype not in (torch.float16, torch.bfloat16):
            return norm(input, *args, **kwargs)
        return norm(input.float(), *args, **kwargs).to(input.dtype)

    return widened


@_wide
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Centre, square, mean, rsqrt, product."""
    dims = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(dims, keepdim=True)
    variance = torch.square(centred).mean(dims, keepdim=True)
    return _affine(centred * torch.rsqrt(variance + eps), weight, bias)


@_wide
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Square, mean, rsqrt, product."""
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    mean = torch.square(input).mean(dims, keepdim=True)
    return _affine(input * torch.rsqrt(mean + eps), weight, None)


@_wide
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """Layer norm over each group of channels."""
    groups = input.reshape(input.shape[0], num_groups, -1)
    centred = groups - groups.mean(-1, keepdim=True)
    variance = torch.square(centred).mean(-1, keepdim=True)
    normal = (centred * torch.rsqrt(variance + eps)).reshape(input.shape)
    return _per_channel(normal, weight, bias)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Group norm with a group per channel."""
    return group_norm(input, input.shape[1], weight, bias, eps)


@_wide
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Centre, square, mean, rsqrt, product over the batch, as in training mode; running statistics stay as they are."""
    dims = tuple(d for d in range(input.dim()) if d != 1)
    centred = input - input.mean(dims, keepdim=True)
    variance = torch.square(centred).mean(dims, keepdim=True)
    return _per_channel(centred * torch.rsqrt(variance + eps), weight, bias)


def _affine(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


def _per_channel(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1, *[1] * (normal.dim() - 2))
    return _affine(
        normal, None if weight is None else weight.reshape(shape), None if bias is None else bias.reshape(shape)
    )

"""Normalisations written out: centre, square, mean, rsqrt, product.

The product of the centred values and the rsqrt follows the quotient rule (`deeplift_fast.rules.quotient`). With the
secants of the other parts, `m_x = centred((m − c̄·(Σ m·ȳ)/(n·σ̄))/σ̄)`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _wide(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A norm that computes in float32 for half types, as PyTorch does."""

    @functools.wraps(norm)
    def widened(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if input.dtype not in (torch.float16, torch.bfloat16):
            return norm(input, *args, **kwargs)
        return norm(input.float(), *args, **kwargs).to(input.dtype)

    return widened


@_wide
def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *_: Any,
) -> Tensor:  # fmt: skip
    """Centre, square, mean, rsqrt, product."""
    return _affine(_normal(input, _last(normalized_shape), eps)[0], weight, bias)


def native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm, the means and the inverse deviations."""
    _, mean, inverse = _normal(input, _last(normalized_shape), eps)
    return layer_norm(input, normalized_shape, weight, bias, eps), mean, inverse


@_wide
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Square, mean, rsqrt, product."""
    return _affine(input * _inverse_root(input, _last(normalized_shape), eps), weight, None)


def fused_rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> tuple[Tensor, Tensor]:
    """RMS norm, and the inverse roots."""
    return rms_norm(input, normalized_shape, weight, eps), _inverse_root(input, _last(normalized_shape), eps)


@_wide
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    """Layer norm over each group of channels."""
    groups = input.reshape(input.shape[0], num_groups, -1)
    return _per_channel(_normal(groups, (-1,), eps)[0].reshape(input.shape), weight, bias)


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Group norm, the means and the inverse deviations."""
    _, mean, inverse = _normal(input.reshape(N, group, -1), (-1,), eps)
    return group_norm(input, group, weight, bias, eps), mean.squeeze(-1), inverse.squeeze(-1)


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> Tensor:  # fmt: skip
    """Group norm with a group per channel."""
    return group_norm(input, input.shape[1], weight, bias, eps)


def aten_instance_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Any, var: Any, *args: Any, **kwargs: Any
) -> Tensor:
    """`torch.instance_norm`, which takes its arguments in another order."""
    return instance_norm(input, mean, var, weight, bias, *args, **kwargs)


@_wide
def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> Tensor:  # fmt: skip
    """Centre, square, mean, rsqrt, product over the batch, as in training mode; running statistics stay as they are."""
    dims = tuple(d for d in range(input.dim()) if d != 1)
    return _per_channel(_normal(input, dims, eps)[0], weight, bias)


def aten_batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Any, var: Any, *args: Any, **kwargs: Any
) -> Tensor:
    """`torch.batch_norm`, which takes its arguments in another order."""
    return batch_norm(input, mean, var, weight, bias, *args, **kwargs)


def native_batch_norm(
    input: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm, the means and the inverse deviations."""
    _, middle, inverse = _normal(input, tuple(d for d in range(input.dim()) if d != 1), eps)
    return batch_norm(input, mean, var, weight, bias, eps=eps), middle.flatten(), inverse.flatten()


def _last(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(range(-len(shape), 0))


def _normal(x: Tensor, dims: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Values of mean 0 and variance 1 over `dims`, the means, and the inverse deviations."""
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    centred = centred - centred.mean(dims, keepdim=True)  # up to 1/√eps would multiply the mean's rounding error
    inverse = torch.rsqrt(torch.square(centred).mean(dims, keepdim=True) + eps)
    return centred * inverse, mean, inverse


def _inverse_root(x: Tensor, dims: tuple[int, ...], eps: float | None) -> Tensor:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return torch.rsqrt(torch.square(x).mean(dims, keepdim=True) + eps)


def _affine(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


def _per_channel(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1, *[1] * (normal.dim() - 2))
    return _affine(
        normal, None if weight is None else weight.reshape(shape), None if bias is None else bias.reshape(shape)
    )

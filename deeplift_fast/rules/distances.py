"""Norms, distances and spreads written out in squares, sums and roots."""

from operator import index
from typing import Any

import torch
from torch import Tensor


def _dims(x: Tensor, dim: Any) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(x.dim()))
    return tuple(map(index, dim)) if isinstance(dim, tuple | list) else (index(dim),)


def vector_norm(
    x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """`(Σ|x|^p)^(1/p)`; for 2 the square root of the sum of squares, for inf the largest absolute value."""
    x = x if dtype is None else x.to(dtype)
    dims = _dims(x, dim)
    if ord in (None, 2, "fro"):
        return torch.sqrt(torch.square(x).sum(dims, keepdim))
    size = torch.abs(x)
    if ord == 1:
        return size.sum(dims, keepdim)
    if ord == torch.inf:
        return size.amax(dims, keepdim)
    return torch.pow(torch.pow(size, ord).sum(dims, keepdim), 1 / ord)


def norm(
    input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: None = None, dtype: Any = None
) -> Tensor:
    """`torch.norm`: see :func:`vector_norm`."""
    return vector_norm(input, p, dim, keepdim, dtype=dtype)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """`‖x1 − x2 + eps‖` over the last dimension."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, *_: Any, **__: Any) -> Tensor:
    """`‖a − b‖` for every pair of rows."""
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """`‖x − y‖` over all elements."""
    return vector_norm(input - other, p)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """x / max(‖x‖, eps)."""
    size = vector_norm(input, p, dim, True).clamp_min(eps)
    return input / size


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The product of the two normalised vectors."""
    lengths = [vector_norm(x, 2, dim, True).clamp_min(eps) for x in (x1, x2)]
    return ((x1 / lengths[0]) * (x2 / lengths[1])).sum(dim)


def variance(
    input: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = None
) -> Tensor:
    """The mean of squares about the mean."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    dims = _dims(input, dim)
    count = 1
    for d in dims:
        count *= input.shape[d]
    less = (1 if unbiased else 0) if correction is None else correction
    centred = input - input.mean(dims, keepdim=True)
    return torch.square(centred).sum(dims, keepdim) * (1 / max(count - less, 0) if count > less else torch.nan)


def standard_deviation(*args: Any, **kwargs: Any) -> Tensor:
    """The square root of the variance."""
    return torch.sqrt(variance(*args, **kwargs))


def var_mean(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """The variance and the mean over the same dimensions."""
    return variance(input, *args, **kwargs), _mean_like(input, *args, **kwargs)


def std_mean(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean over the same dimensions."""
    return standard_deviation(input, *args, **kwargs), _mean_like(input, *args, **kwargs)


def _mean_like(
    input: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    return input.mean(_dims(input, None if isinstance(dim, bool) else dim), keepdim)

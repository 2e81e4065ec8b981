"""Secant slopes of relu, sigmoid and tanh as one Triton kernel: two loads, and two or three stores."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import activation
from deeplift_fast.ops.triton.tiles import launch, read, rows_of

BLOCK_BYTES = 2048  # bytes of each tensor per program: one load of 16 bytes for each of 128 threads


def secant(x: Tensor, x0: Tensor, function: str, variant: str) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.secant`."""
    multiplier = torch.empty_like(x)
    y, y0 = _one_after_the_other(multiplier)
    _launch(x, x0, y, y0, multiplier, function, variant)
    return y, y0, multiplier


def secant_at_input(x: Tensor, x0: Tensor, function: str, variant: str) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.secant_at_input`."""
    y, multiplier = torch.empty_like(x), torch.empty_like(x)
    _launch(x, x0, y, None, multiplier, function, variant)
    return y, multiplier


def _launch(
    x: Tensor, x0: Tensor, y: Tensor, y0: Tensor | None, multiplier: Tensor, function: str, variant: str
) -> None:
    x, x0 = _laid_out_as(multiplier, x), _laid_out_as(multiplier, x0)
    size, block = x.numel(), BLOCK_BYTES // x.element_size()
    given = x, x0, y, y0, multiplier, size, function, variant, block
    # PyHealth rounds y² before it computes 1 − y².
    launch(_secant_kernel, (triton.cdiv(size, block),), *given, enable_fp_fusion=variant != "pyhealth")


def _one_after_the_other(like: Tensor) -> tuple[Tensor, Tensor]:
    """Uninitialised tensors for both streams, adjoined if possible, so that one matrix product serves both."""
    y, y0 = torch.empty((2, *like.shape), dtype=like.dtype, device=like.device)
    return (y, y0) if y.stride() == like.stride() else (torch.empty_like(like), torch.empty_like(like))


def _laid_out_as(dense: Tensor, tensor: Tensor) -> Tensor:
    """`tensor`, or a copy of it, with the strides of `dense`."""
    return tensor if tensor.stride() == dense.stride() else torch.empty_like(dense).copy_(tensor)


@triton.jit
def _secant_kernel(
    x, x0, y, y0, multiplier, size, FUNCTION: tl.constexpr, VARIANT: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    at = rows_of(BLOCK)
    inside = at < size
    a, b, slope = activation(read(x + at, inside, None), read(x0 + at, inside, None), FUNCTION, VARIANT)
    tl.store(y + at, a, mask=inside)
    if y0 is not None:
        tl.store(y0 + at, b, mask=inside)
    tl.store(multiplier + at, slope, mask=inside)

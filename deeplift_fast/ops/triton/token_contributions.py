"""Contributions of pooled tokens as one Triton kernel: embedding differences times a row's multiplier."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.tiles import dense, strips, widened

ACCESSES = 1  # loads of 16 bytes of each embedding tile by each thread


def token_contributions(weight: Tensor, tokens: Tensor, baseline: Tensor, multipliers: Tensor) -> Tensor:
    """See :func:`deeplift_fast.ops.token_contributions`; tokens are not checked."""
    given = dense(weight, tokens, baseline, multipliers)
    out = torch.empty_like(given[1], dtype=weight.dtype)
    count, size = out.numel(), weight.shape[1]
    if count:
        together, columns = strips(size, weight.dtype, ACCESSES)
        with torch.cuda.device_of(weight):
            _token_kernel[(triton.cdiv(count, together),)](
                *given, out, count, tokens.shape[1], size, together, columns, num_warps=4
            )
    return out


@triton.jit
def _token_kernel(
    weight_pointer: tl.tensor, tokens_pointer: tl.tensor, baseline_pointer: tl.tensor, multipliers_pointer: tl.tensor,
    out_pointer: tl.tensor, count: tl.tensor, slots: tl.tensor, size: tl.tensor, TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    # int64: an int32 offset wraps at 2**31 elements.
    place = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    real = place < count
    token = tl.load(tokens_pointer + place, mask=real, other=0)
    token0 = tl.load(baseline_pointer + place, mask=real, other=0)
    differs = (token != token0)[:, None]  # padding, the same in both streams, is not read
    row = place // slots
    double: tl.constexpr = weight_pointer.dtype.element_ty == tl.float64
    partial = tl.zeros([TOKENS, COLUMNS], tl.float64 if double else tl.float32)
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = differs & (column < size)[None, :]
        at, at0 = (token[:, None] * size + column[None, :]), (token0[:, None] * size + column[None, :])
        x = widened(tl.load(weight_pointer + at, mask=inside, other=0.0))
        x0 = widened(tl.load(weight_pointer + at0, mask=inside, other=0.0))
        m = tl.load(multipliers_pointer + (row[:, None] * size + column[None, :]), mask=inside, other=0.0)
        partial += (x - x0) * widened(m)
    tl.store(out_pointer + place, tl.sum(partial, 1), mask=real)

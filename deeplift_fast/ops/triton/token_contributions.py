"""Contributions of pooled tokens as one Triton kernel: embedding differences times a row's multiplier."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.tiles import computed_in, dense, launch, read, rows_of, strip, strips

ACCESSES = 1  # loads of 16 bytes of each embedding tile by each thread


def token_contributions(weight: Tensor, tokens: Tensor, baseline: Tensor, multipliers: Tensor) -> Tensor:
    """See :func:`deeplift_fast.ops.token_contributions`; tokens are not checked."""
    given = dense(weight, tokens, baseline, multipliers)
    out = torch.empty_like(given[1], dtype=weight.dtype)
    count, size = out.numel(), weight.shape[1]
    high, columns = strips(size, weight.dtype, ACCESSES)
    launch(_token_kernel, (triton.cdiv(count, high),), *given, out, count, tokens.shape[1], size, high, columns)
    return out


@triton.jit
def _token_kernel(
    weight, tokens, baseline, multipliers, out, count, slots, size, TOKENS: tl.constexpr, COLUMNS: tl.constexpr
):
    place = rows_of(TOKENS)
    real = place < count
    token, token0 = tl.load(tokens + place, mask=real, other=0), tl.load(baseline + place, mask=real, other=0)
    differs = token != token0  # padding, the same in both streams, is not read
    partial = tl.zeros([TOKENS, COLUMNS], computed_in(weight.dtype.element_ty))
    for first in range(0, size, COLUMNS):
        at, inside = strip(token, differs, first, size, COLUMNS)
        at0, _ = strip(token0, differs, first, size, COLUMNS)
        of_row, _ = strip(place // slots, differs, first, size, COLUMNS)
        x, x0 = read(weight + at, inside), read(weight + at0, inside)
        partial += (x - x0) * read(multipliers + of_row, inside)
    tl.store(out + place, tl.sum(partial, 1), mask=real)

"""Rows of pooled tokens with their times as one Triton kernel; a program handles some rows."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.tiles import dense, strips, widened

ACCESSES = 1  # loads of 16 bytes of each embedding tile by each thread


def token_rows(weight: Tensor, tokens: Tensor, baseline: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.token_rows`."""
    weight, tokens, baseline, times = dense(weight, tokens, baseline, times)
    (batch, steps, slots), (vocabulary, size) = tokens.shape, weight.shape
    rows, both = weight.new_empty(2, steps, batch, size + 1), tokens.new_empty(2, steps, batch, slots)
    count = 2 * steps * batch
    if count:
        high, columns = strips(size, weight.dtype, ACCESSES)
        with torch.cuda.device_of(weight):
            _token_rows_kernel[(triton.cdiv(count, high),)](
                weight, tokens, baseline, times, rows, both, count, batch, steps, slots, vocabulary, size,
                high, columns, num_warps=4,
            )  # fmt: skip
    return rows, both


@triton.jit
def _token_rows_kernel(
    weight: tl.tensor, tokens: tl.tensor, baseline: tl.tensor, times: tl.tensor, rows: tl.tensor, both: tl.tensor,
    count: tl.tensor, batch: tl.tensor, steps: tl.tensor, slots: tl.tensor, vocabulary: tl.tensor, size: tl.tensor,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < count
    at_input = row < count // 2
    place = tl.where(at_input, row, row - count // 2)  # step by step
    from_step = place % batch * steps + place // batch  # sample by sample
    time = tl.load(times + from_step, mask=real, other=0.0)
    tl.store(rows + (row * (size + 1) + size), time, mask=real)
    wide: tl.constexpr = tl.float64 if weight.dtype.element_ty == tl.float64 else tl.float32
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = real[:, None] & (column < size)[None, :]
        total = tl.zeros([ROWS, COLUMNS], wide)
        for slot in range(slots):
            at = from_step * slots + slot
            token = tl.load(tokens + at, mask=real & at_input, other=0)
            token += tl.load(baseline + at, mask=real & (row >= count // 2), other=0)
            token = tl.minimum(tl.maximum(token, 0), vocabulary - 1)
            tl.store(both + (row * slots + slot), token, mask=real)
            total += widened(tl.load(weight + (token[:, None] * size + column[None, :]), mask=inside, other=0.0))
        tl.store(rows + (row[:, None] * (size + 1) + column[None, :]), total, mask=inside)

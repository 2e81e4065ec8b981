"""Rows of continuous values with their times as one Triton kernel; a program handles some rows of both streams."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.tiles import dense, strips, widened

ACCESSES = 1  # loads of 16 bytes of each tile by each thread


def value_rows(values: Tensor, baseline: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.value_rows`."""
    values, baseline, times = dense(values, baseline, times)
    batch, steps, size = values.shape
    rows, difference = values.new_empty(2, steps, batch, size + 1), values.new_empty(steps, batch, size)
    count = steps * batch
    if count:
        high, columns = strips(size, values.dtype, ACCESSES)
        with torch.cuda.device_of(values):
            _value_rows_kernel[(triton.cdiv(count, high),)](
                values, baseline, times, rows, difference, count, batch, steps, size, high, columns, num_warps=4
            )
    return rows, difference


@triton.jit
def _value_rows_kernel(
    values: tl.tensor, baseline: tl.tensor, times: tl.tensor, rows: tl.tensor, difference: tl.tensor, count: tl.tensor,
    batch: tl.tensor, steps: tl.tensor, size: tl.tensor, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # step by step
    real = row < count
    from_step = row % batch * steps + row // batch  # sample by sample
    time = tl.load(times + from_step, mask=real, other=0.0)
    tl.store(rows + (row * (size + 1) + size), time, mask=real)
    tl.store(rows + ((row + count) * (size + 1) + size), time, mask=real)
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = real[:, None] & (column < size)[None, :]
        at = from_step[:, None] * size + column[None, :]
        x = tl.load(values + at, mask=inside, other=0.0)
        x0 = tl.load(baseline + at, mask=inside, other=0.0)
        tl.store(rows + (row[:, None] * (size + 1) + column[None, :]), x, mask=inside)
        tl.store(rows + ((row + count)[:, None] * (size + 1) + column[None, :]), x0, mask=inside)
        tl.store(difference + (row[:, None] * size + column[None, :]), widened(x) - widened(x0), mask=inside)

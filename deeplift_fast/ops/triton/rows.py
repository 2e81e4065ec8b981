"""Rows of pooled tokens, or of continuous values, with their times; each op is one Triton kernel."""

import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.tiles import computed_in, dense, launch, read, rows_of, strip, strips, widened

ACCESSES = 1  # loads of 16 bytes of each tile by each thread


def token_rows(weight: Tensor, tokens: Tensor, baseline: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.token_rows`."""
    given = dense(weight, tokens, baseline, times)
    (batch, steps, slots), (vocabulary, size) = tokens.shape, weight.shape
    rows, both = weight.new_empty(2, steps, batch, size + 1), tokens.new_empty(2, steps, batch, slots)
    count, (high, columns) = 2 * steps * batch, strips(size, weight.dtype, ACCESSES)
    sizes = count, batch, steps, slots, vocabulary, size, high, columns
    launch(_token_rows_kernel, (triton.cdiv(count, high),), *given, rows, both, *sizes)
    return rows, both


@triton.jit
def _token_rows_kernel(
    weight, tokens, baseline, times, rows, both, count, batch, steps, slots, vocabulary, size, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    row = rows_of(ROWS)  # step by step, of the input and then of the baseline
    real, at_input = row < count, row < count // 2
    place = tl.where(at_input, row, row - count // 2)
    from_step = place % batch * steps + place // batch  # sample by sample
    tl.store(rows + (row * (size + 1) + size), tl.load(times + from_step, mask=real, other=0.0), mask=real)
    for first in range(0, size, COLUMNS):
        total = tl.zeros([ROWS, COLUMNS], computed_in(weight.dtype.element_ty))
        for slot in range(slots):
            at = from_step * slots + slot
            token = tl.load(tokens + at, mask=real & at_input, other=0)
            token += tl.load(baseline + at, mask=real & (row >= count // 2), other=0)
            token = tl.minimum(tl.maximum(token, 0), vocabulary - 1)
            tl.store(both + (row * slots + slot), token, mask=real)
            of_token, inside = strip(token, real, first, size, COLUMNS)
            total += read(weight + of_token, inside)
        column = first + tl.arange(0, COLUMNS)
        to, inside = row[:, None] * (size + 1) + column[None, :], real[:, None] & (column < size)[None, :]
        tl.store(rows + to, total, mask=inside)


def value_rows(values: Tensor, baseline: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.value_rows`."""
    given = dense(values, baseline, times)
    batch, steps, size = values.shape
    rows, difference = values.new_empty(2, steps, batch, size + 1), values.new_empty(steps, batch, size)
    count, (high, columns) = steps * batch, strips(size, values.dtype, ACCESSES)
    sizes = count, batch, steps, size, high, columns
    launch(_value_rows_kernel, (triton.cdiv(count, high),), *given, rows, difference, *sizes)
    return rows, difference


@triton.jit
def _value_rows_kernel(
    values, baseline, times, rows, difference, count, batch, steps, size, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    row = rows_of(ROWS)  # step by step
    real = row < count
    from_step = row % batch * steps + row // batch  # sample by sample
    time = tl.load(times + from_step, mask=real, other=0.0)
    tl.store(rows + (row * (size + 1) + size), time, mask=real)
    tl.store(rows + ((row + count) * (size + 1) + size), time, mask=real)
    for first in range(0, size, COLUMNS):
        at, inside = strip(from_step, real, first, size, COLUMNS)
        x, x0 = tl.load(values + at, mask=inside, other=0.0), tl.load(baseline + at, mask=inside, other=0.0)
        column = (first + tl.arange(0, COLUMNS))[None, :]
        tl.store(rows + (row[:, None] * (size + 1) + column), x, mask=inside)
        tl.store(rows + ((row + count)[:, None] * (size + 1) + column), x0, mask=inside)
        tl.store(difference + (row[:, None] * size + column), widened(x) - widened(x0), mask=inside)

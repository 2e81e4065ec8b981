"""Softmax with the logarithmic means of both streams' probabilities, and its multipliers, as two Triton kernels.

Rows have any length: the first loop over a row computes its sums. Further loops read the row from the cache and compute
its results.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import exponential, log_mean
from deeplift_fast.ops.triton.tiles import dense, strips, widened

ACCESSES = 2  # loads of 16 bytes of each tensor by each thread


def log_mean_softmax(z: Tensor, z0: Tensor, dim: int, log: bool) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.log_mean_softmax`."""
    rows, rows0 = _rows(z, dim), _rows(z0, dim)
    y, mean = torch.empty_like(rows), torch.empty_like(rows)
    _launch(_softmax_kernel, rows, rows0, y, mean, log)
    return _as(z, y, dim), _as(z, mean, dim)


def log_mean_softmax_backward(g: Tensor, mean: Tensor, dim: int) -> Tensor:
    """See :func:`deeplift_fast.ops.log_mean_softmax_backward`."""
    rows = _rows(g, dim)
    out = torch.empty_like(rows)
    _launch(_backward_kernel, rows, _rows(mean, dim), out)
    return _as(g, out, dim)


def _rows(x: Tensor, dim: int) -> Tensor:
    (rows,) = dense(x.movedim(dim, -1) if x.dim() else x)
    return rows


def _as(x: Tensor, rows: Tensor, dim: int) -> Tensor:
    return rows.movedim(-1, dim).contiguous() if x.dim() else rows


def _launch(kernel: triton.JITFunction, rows: Tensor, *others: Tensor | bool) -> None:
    if rows.numel() == 0:
        return
    size = rows.shape[-1] if rows.dim() else 1
    count = rows.numel() // size
    high, columns = strips(size, rows.dtype, ACCESSES)
    with torch.cuda.device_of(rows):
        kernel[(triton.cdiv(count, high),)](rows, *others, count, size, high, columns, num_warps=4)


@triton.jit
def _softmax_kernel(
    z_pointer: tl.tensor, z0_pointer: tl.tensor, y_pointer: tl.tensor, mean_pointer: tl.tensor, LOG: tl.constexpr,
    rows: tl.tensor, size: tl.tensor, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    # int64: an int32 offset wraps at 2**31 elements.
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = (row < rows)[:, None]
    double: tl.constexpr = z_pointer.dtype.element_ty == tl.float64
    dtype: tl.constexpr = tl.float64 if double else tl.float32
    high = tl.full([ROWS], float("-inf"), dtype)
    high0, total, total0 = high, tl.zeros([ROWS], dtype), tl.zeros([ROWS], dtype)
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = real & (column < size)[None, :]
        place = row[:, None] * size + column[None, :]
        z = widened(tl.load(z_pointer + place, mask=inside, other=float("-inf")))
        z0 = widened(tl.load(z0_pointer + place, mask=inside, other=float("-inf")))
        high, total = _more(z, high, total)
        high0, total0 = _more(z0, high0, total0)
    some = ((total > 0) & (total0 > 0))[:, None]  # a row with NaN, or of −inf alone, has no softmax
    high, high0 = high + tl.log(total), high0 + tl.log(total0)
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = real & (column < size)[None, :]
        place = row[:, None] * size + column[None, :]
        z = widened(tl.load(z_pointer + place, mask=inside, other=0.0)) - high[:, None]
        z0 = widened(tl.load(z0_pointer + place, mask=inside, other=0.0)) - high0[:, None]
        tl.store(y_pointer + place, z if LOG else exponential(z)[0], mask=inside)
        tl.store(mean_pointer + place, tl.where(some, log_mean(z, z0, 0.5), 0.0), mask=inside)


@triton.jit
def _more(z: tl.tensor, high: tl.tensor, total: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The largest number so far, and the sum of e^(number − largest)."""
    higher = tl.maximum(high, tl.max(z, 1))
    finite = tl.where(higher == float("-inf"), 0.0, higher)
    summed = total * exponential(high - finite)[0] + tl.sum(exponential(z - finite[:, None])[0], 1)
    return higher, summed


@triton.jit
def _backward_kernel(
    g_pointer: tl.tensor, mean_pointer: tl.tensor, out_pointer: tl.tensor, rows: tl.tensor, size: tl.tensor,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = (row < rows)[:, None]
    double: tl.constexpr = g_pointer.dtype.element_ty == tl.float64
    dtype: tl.constexpr = tl.float64 if double else tl.float32
    weighted, means = tl.zeros([ROWS, COLUMNS], dtype), tl.zeros([ROWS, COLUMNS], dtype)
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = real & (column < size)[None, :]
        place = row[:, None] * size + column[None, :]
        mean = widened(tl.load(mean_pointer + place, mask=inside, other=0.0))
        weighted += mean * widened(tl.load(g_pointer + place, mask=inside, other=0.0))
        means += mean
    total = tl.sum(means, 1)
    total = tl.where(total > 0, total, 1.0)
    average = tl.sum(weighted, 1) / total
    rest = tl.zeros([ROWS, COLUMNS], dtype)  # the rounding error of a sum that should be zero
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = real & (column < size)[None, :]
        place = row[:, None] * size + column[None, :]
        mean = widened(tl.load(mean_pointer + place, mask=inside, other=0.0))
        rest += mean * (widened(tl.load(g_pointer + place, mask=inside, other=0.0)) - average[:, None])
    less = tl.sum(rest, 1) / total
    for first in range(0, size, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = real & (column < size)[None, :]
        place = row[:, None] * size + column[None, :]
        mean = widened(tl.load(mean_pointer + place, mask=inside, other=0.0))
        g = widened(tl.load(g_pointer + place, mask=inside, other=0.0))
        tl.store(out_pointer + place, mean * (g - average[:, None] - less[:, None]), mask=inside)

"""Softmax with the logarithmic means of both streams' probabilities, and its multipliers, as two Triton kernels.

Rows have any length: the first loop over a row computes its sums. Further loops read the row from the cache and compute
its results.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import exponential, log_mean
from deeplift_fast.ops.triton.tiles import computed_in, dense, launch, read, rows_of, strip, strips

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
    size = rows.shape[-1] if rows.dim() else 1
    count = rows.numel() // max(size, 1)
    high, columns = strips(size, rows.dtype, ACCESSES)
    launch(kernel, (triton.cdiv(count, high),), rows, *others, count, size, high, columns)


@triton.jit
def _softmax_kernel(
    z, z0, y, mean, LOG: tl.constexpr, rows, size, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    row = rows_of(ROWS)
    dtype: tl.constexpr = computed_in(z.dtype.element_ty)
    high = tl.full([ROWS], float("-inf"), dtype)
    high0, total, total0 = high, tl.zeros([ROWS], dtype), tl.zeros([ROWS], dtype)
    for first in range(0, size, COLUMNS):
        at, inside = strip(row, row < rows, first, size, COLUMNS)
        high, total = _more(read(z + at, inside, float("-inf")), high, total)
        high0, total0 = _more(read(z0 + at, inside, float("-inf")), high0, total0)
    some = ((total > 0) & (total0 > 0))[:, None]  # a row with NaN, or of −inf alone, has no softmax
    high, high0 = high + tl.log(total), high0 + tl.log(total0)
    for first in range(0, size, COLUMNS):
        at, inside = strip(row, row < rows, first, size, COLUMNS)
        a, b = read(z + at, inside) - high[:, None], read(z0 + at, inside) - high0[:, None]
        tl.store(y + at, a if LOG else exponential(a)[0], mask=inside)
        tl.store(mean + at, tl.where(some, log_mean(a, b, 0.5), 0.0), mask=inside)


@triton.jit
def _more(z, high, total):
    """The largest number so far, and the sum of e^(number − largest)."""
    higher = tl.maximum(high, tl.max(z, 1))
    finite = tl.where(higher == float("-inf"), 0.0, higher)
    summed = total * exponential(high - finite)[0] + tl.sum(exponential(z - finite[:, None])[0], 1)
    return higher, summed


@triton.jit
def _backward_kernel(g, mean, out, rows, size, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = rows_of(ROWS)
    dtype: tl.constexpr = computed_in(g.dtype.element_ty)
    weighted, means = tl.zeros([ROWS, COLUMNS], dtype), tl.zeros([ROWS, COLUMNS], dtype)
    for first in range(0, size, COLUMNS):
        at, inside = strip(row, row < rows, first, size, COLUMNS)
        share = read(mean + at, inside)
        weighted += share * read(g + at, inside)
        means += share
    total = tl.sum(means, 1)
    total = tl.where(total > 0, total, 1.0)
    average = (tl.sum(weighted, 1) / total)[:, None]
    rest = tl.zeros([ROWS, COLUMNS], dtype)  # the rounding error of a sum that should be zero
    for first in range(0, size, COLUMNS):
        at, inside = strip(row, row < rows, first, size, COLUMNS)
        rest += read(mean + at, inside) * (read(g + at, inside) - average)
    less = (tl.sum(rest, 1) / total)[:, None]
    for first in range(0, size, COLUMNS):
        at, inside = strip(row, row < rows, first, size, COLUMNS)
        tl.store(out + at, read(mean + at, inside) * (read(g + at, inside) - average - less), mask=inside)

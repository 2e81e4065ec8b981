"""Attention over ragged rows and its multipliers, as Triton kernels with products on tensor cores.

The queries of all heads of a sample are its groups. A program handles a block of groups, or of rows, of one sample, and
goes through the sample's rows, or its groups, block by block. It finds its sample itself, so that the host does not
wait for the device, and uses no atomics. Only one number per group is stored, the logarithm of its softmax's sum: the
backward kernels compute scores again (Dao et al. 2022, "FlashAttention").

With h the shares of the softmax's Jacobian, a group's multiplier `Σ h·(g − Σ h·g/Σ h)·b̄` is a covariance of g and b̄. It
is accumulated as one, without cancellation: each block of rows has averages and a covariance, and blocks are merged
(Chan et al. 1983, "Algorithms for Computing the Sample Variance"). In g and b̄, the sample's first row is subtracted
from all rows, which does not change the covariance. Averages are then rounded relative to the differences of rows, not
to their common part.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.triton.activations import exponential, log_mean, midpoint
from deeplift_fast.ops.triton.tiles import block_of, dense, launch, products, read

GROUPS = 16  # of a block: the least of a product
BY_BATCH = ("samples", "halvings", "total", "total0")  # sizes that differ between batches
DEPTH = 16  # columns that are multiplied at a time; with more, a thread's registers do not suffice


def constants_of(dtype: torch.dtype, width: int) -> dict[str, int]:
    """The sizes of the kernels' tiles; programs share the columns of wide rows, and each computes all scores."""
    double = dtype == torch.float64
    wide = max(min(triton.next_power_of_2(width), 32 if double else 128), 16)
    return {"GROUPS": GROUPS, "ROWS": 16 if double else 32, "WIDTH": wide, "DEPTH": DEPTH}


def attention(
    asked: Tensor, rows: Tensor, index: Tensor, starts: Tensor, queries: Tensor, looks: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.attention`; `index`, `starts` and `queries` are not checked."""
    given = dense(asked, rows, index, starts, queries, looks, seen)
    (heads, total, width), samples = asked.shape, len(starts) - 1
    mixed = torch.empty_like(given[0])
    log_sums = torch.empty(heads, total, dtype=computed(asked.dtype), device=asked.device)
    constants = constants_of(asked.dtype, width)
    across = triton.cdiv(width, constants["WIDTH"]) if heads * total else 0
    sizes = samples, samples.bit_length(), heads, total, width, *constants.values()
    grid, options = (heads * total // GROUPS + samples, across), products(log_sums.dtype, torch.version.hip is None)
    launch(_attention_kernel, grid, mixed, (*given, log_sums), *sizes, num_stages=1, **options)
    return mixed, log_sums


@triton.jit(do_not_specialize=BY_BATCH)
def _attention_kernel(
    mixed, stream, samples, halvings, heads, total, width, GROUPS: tl.constexpr, ROWS: tl.constexpr,
    WIDTH: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    sample, block = block_of(tl.program_id(0), stream[4], samples, halvings, heads, GROUPS)
    query, count, asking = _sizes(stream, sample)
    at = _from(stream, sample, total, width)
    if block * GROUPS < heads * asking:
        groups = _groups(block * GROUPS, heads, asking, GROUPS)
        place, mine = groups[0] * total + groups[1], groups[2]
        column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        dtype: tl.constexpr = at[6].dtype.element_ty
        high, sums = tl.full([GROUPS], float("-inf"), dtype), tl.zeros([GROUPS], dtype)
        summed = tl.zeros([GROUPS, WIDTH], dtype)
        for start in range(0, _end(at, groups, count), ROWS):
            row = start + tl.arange(0, ROWS)
            real = row < count
            of_row = tl.load(at[2] + row, mask=real, other=0)
            scores = tl.zeros([GROUPS, ROWS], dtype)
            for part in range(0, width, DEPTH):
                some = part + tl.arange(0, DEPTH)
                a, b = _tile(at[0], place, mine, some, width), _tile(at[1], of_row, real, some, width)
                scores = _dot(a, tl.trans(b), scores, PRECISION)
            scores = _masked(scores, at, groups, row, real)
            higher = tl.maximum(high, tl.max(scores, 1))
            finite = tl.where(higher == float("-inf"), 0.0, higher)
            p = exponential(scores - finite[:, None])[0]
            fading = exponential(high - finite)[0]
            sums = sums * fading + tl.sum(p, 1)
            b = _tile(at[1], of_row, real, column, width)
            summed = _dot(p, b, summed * fading[:, None], PRECISION)
            high = higher
        divisor = tl.where(sums == 0, 1.0, sums)  # 0 for a sample without rows
        _store(mixed + query * width, place, mine, column, width, summed / divisor[:, None])
        tl.store(at[6] + place, high + tl.log(sums), mask=mine & (tl.program_id(1) == 0))


@triton.jit
def _dot(x, y, before, PRECISION: tl.constexpr):
    return tl.dot(x, y, before, input_precision=PRECISION, out_dtype=before.dtype)


@triton.jit
def _sizes(stream, sample):
    """A sample's first query, and the number of its rows and of its queries."""
    starts, query = stream[3] + sample, tl.load(stream[4] + sample)
    return query, tl.load(starts + 1) - tl.load(starts), tl.load(stream[4] + sample + 1) - query


@triton.jit
def _from(stream, sample, total, width):
    """One stream's tensors from a sample's first query or row on, the end of its visible rows, and all queries."""
    asked, rows, index, starts, _queries, looks, seen, log_sums = stream
    query, count, _asking = _sizes(stream, sample)
    first = tl.load(starts + sample)
    visible = _end_of_seen(seen + first, count)
    return asked + query * width, rows, index + first, looks + query, seen + first, visible, log_sums + query, total


@triton.jit
def _end_of_seen(seen, count):
    end = tl.zeros([128], tl.int64)
    for start in range(0, count, 128):
        row = start + tl.arange(0, 128)
        end = tl.where(tl.load(seen + row, mask=row < count, other=0).to(tl.int1), row + 1, end)
    return tl.max(end, 0)


@triton.jit
def _end(stream, groups, count):
    """The end of the rows that any of the groups weighs: padding costs nothing if all of them choose among rows."""
    chooses = _flags(stream[3] + groups[1], groups[2]) | ~groups[2]
    return tl.where((stream[5] > 0) & (tl.min(chooses.to(tl.int32), 0) > 0), stream[5], count)


@triton.jit
def _groups(start, heads, asking, GROUPS: tl.constexpr):
    """The head and the query of a sample's groups from `start` on, and whether there is such a group."""
    group = start + tl.arange(0, GROUPS)
    head = group // asking
    return head, group - head * asking, group < heads * asking


@triton.jit
def _tile(pointer, row, real, column, width):
    return read(pointer + row[:, None] * width + column[None, :], real[:, None] & (column < width)[None, :])


@triton.jit
def _store(pointer, row, real, column, width, numbers):
    to = pointer + row[:, None] * width + column[None, :]
    tl.store(to, numbers, mask=real[:, None] & (column < width)[None, :])


@triton.jit
def _masked(scores, stream, groups, row, real):
    """The scores: −inf for rows that are not visible, and 0 for groups that weigh all rows alike."""
    chooses = (stream[5] > 0) & _flags(stream[3] + groups[1], groups[2])
    seen = _flags(stream[4] + row, real)
    scores = tl.where(chooses[:, None], tl.where(seen[None, :], scores, float("-inf")), 0.0)
    return tl.where(real[None, :], scores, float("-inf"))


@triton.jit
def _flags(pointer, real):
    """Booleans, through a sum of one number each.

    Without it, Triton takes their 8 bits for the width of a product's operands, and does not compile it for float64.
    """
    return tl.sum(tl.load(pointer, mask=real, other=0).to(tl.int32)[:, None], 1) > 0


def attention_backward(
    m: Tensor, asked: Tensor, asked0: Tensor, rows: Tensor, rows0: Tensor, index: Tensor, index0: Tensor,
    starts: Tensor, starts0: Tensor, queries: Tensor, queries0: Tensor, where: Tensor, looks: Tensor, looks0: Tensor,
    seen: Tensor, seen0: Tensor, log_sums: Tensor, log_sums0: Tensor, half: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See :func:`deeplift_fast.ops.attention_backward`; the integers are not checked."""
    m, where, *stream = dense(m, where, asked, rows, index, starts, queries, looks, seen, log_sums)
    stream0 = dense(asked0, rows0, index0, starts0, queries0, looks0, seen0, log_sums0)
    (heads, total, width), samples = asked.shape, len(starts) - 1
    m_asked, m_rows, averages = torch.empty_like(stream[0]), torch.zeros_like(stream[1]), torch.empty_like(stream[7])
    constants, options = constants_of(asked.dtype, width), products(averages.dtype, torch.version.hip is None)
    across = triton.cdiv(width, constants["WIDTH"]) if heads * total else 0
    sizes = samples, samples.bit_length(), heads, total, asked0.shape[1], width, half, *constants.values()
    grids = (heads * total // GROUPS + samples, across), (len(index) // constants["ROWS"] + samples, across)
    for kernel, out, grid in zip((_groups_kernel, _rows_kernel), (m_asked, m_rows), grids, strict=True):
        given = m, where, tuple(stream), stream0, out, averages, *sizes
        launch(kernel, grid, *given, num_warps=8, num_stages=1, **options)
    return m_asked, m_rows


@triton.jit(do_not_specialize=BY_BATCH)
def _groups_kernel(
    m, where, stream, stream0, m_asked, averages, samples, halvings, heads, total, total0, width, HALF: tl.constexpr,
    GROUPS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    sample, block = block_of(tl.program_id(0), stream[4], samples, halvings, heads, GROUPS)
    query, count, asking = _sizes(stream, sample)
    at, at0 = _from(stream, sample, total, width), _from(stream0, tl.load(where + sample), total0, width)
    if block * GROUPS < heads * asking:
        groups = _groups(block * GROUPS, heads, asking, GROUPS)
        place, mine = groups[0] * total + groups[1], groups[2]
        column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        dtype: tl.constexpr = averages.dtype.element_ty
        weight, average = tl.zeros([GROUPS], dtype), tl.zeros([GROUPS], dtype)
        centre, covariance = tl.zeros([GROUPS, WIDTH], dtype), tl.zeros([GROUPS, WIDTH], dtype)
        for start in range(0, tl.maximum(_end(at, groups, count), _end(at0, groups, count)), ROWS):
            row = start + tl.arange(0, ROWS)
            _p, share, score = _pairs(
                m + query * width, at, at0, groups, row, row < count, width, HALF, DEPTH, PRECISION
            )
            shares = tl.sum(share, 1)
            divisor = tl.where(shares > 0, shares, 1.0)
            mean = tl.sum(share * score, 1) / divisor
            apart = share * (score - mean[:, None])
            apart -= share * (tl.sum(apart, 1) / divisor)[:, None]  # a sum of exactly zero
            b = _apart(at, at0, row, row < count, column, width, HALF)
            merged = weight + shares
            part = shares / tl.where(merged > 0, merged, 1.0)
            rise = mean - average
            drift = _dot(share, b, tl.zeros_like(centre), PRECISION) / divisor[:, None] - centre
            covariance = _dot(apart, b, covariance, PRECISION)
            covariance += (weight * part * rise)[:, None] * drift
            average += part * rise
            centre += part[:, None] * drift
            weight = merged
        _store(m_asked + query * width, place, mine, column, width, covariance)
        tl.store(averages + query + place, average, mask=mine & (tl.program_id(1) == 0))


@triton.jit(do_not_specialize=BY_BATCH)
def _rows_kernel(
    m, where, stream, stream0, m_rows, averages, samples, halvings, heads, total, total0, width, HALF: tl.constexpr,
    GROUPS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    sample, block = block_of(tl.program_id(0), stream[3], samples, halvings, 1, ROWS)
    query, count, asking = _sizes(stream, sample)
    at, at0 = _from(stream, sample, total, width), _from(stream0, tl.load(where + sample), total0, width)
    if block * ROWS < count:
        row = block * ROWS + tl.arange(0, ROWS)
        column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        summed = tl.zeros([ROWS, WIDTH], averages.dtype.element_ty)
        for start in range(0, heads * asking, GROUPS):
            groups = _groups(start, heads, asking, GROUPS)
            if block * ROWS < tl.maximum(_end(at, groups, count), _end(at0, groups, count)):
                place, mine = groups[0] * total + groups[1], groups[2]
                p, share, score = _pairs(
                    m + query * width, at, at0, groups, row, row < count, width, HALF, DEPTH, PRECISION
                )
                g = _tile(m + query * width, place, mine, column, width)
                summed = _dot(tl.trans(p), g, summed, PRECISION)
                m_score = share * (score - tl.load(averages + query + place, mask=mine, other=0.0)[:, None])
                a = _tile(at[0], place, mine, column, width)
                if HALF != 0:
                    a = midpoint(a, _tile(at0[0], groups[0] * total0 + groups[1], mine, column, width), HALF)
                summed = _dot(tl.trans(m_score), a, summed, PRECISION)
        _store(m_rows, tl.load(at[2] + row, mask=row < count, other=0), row < count, column, width, summed)


@triton.jit
def _pairs(m, at, at0, groups, row, real, width, HALF: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr):
    """For groups and rows of a sample: p̄, the shares h, and g relative to that of the sample's first row."""
    head, nth, mine = groups
    place, place0 = head * at[7] + nth, head * at0[7] + nth
    score = tl.zeros([head.shape[0], row.shape[0]], at[6].dtype.element_ty)
    log, log0 = score, score
    for part in range(0, width, DEPTH):
        column = part + tl.arange(0, DEPTH)
        b, first = _rows_of(at, row, real, column, width)
        log = _dot(_tile(at[0], place, mine, column, width), tl.trans(b), log, PRECISION)
        if HALF != 0:
            b0, first0 = _rows_of(at0, row, real, column, width)
            log0 = _dot(_tile(at0[0], place0, mine, column, width), tl.trans(b0), log0, PRECISION)
            b, first = midpoint(b, b0, HALF), midpoint(first, first0, HALF)
        score = _dot(_tile(m, place, mine, column, width), tl.trans(b - first), score, PRECISION)
    log = _masked(log, at, groups, row, real) - tl.load(at[6] + place, mask=mine, other=0.0)[:, None]
    if HALF != 0:
        log0 = _masked(log0, at0, groups, row, real) - tl.load(at0[6] + place0, mask=mine, other=0.0)[:, None]
    else:
        log0 = log
    p = tl.where(mine[:, None], midpoint(exponential(log)[0], exponential(log0)[0], HALF), 0.0)
    chooses = (at[5] > 0) & _flags(at[3] + nth, mine)
    return p, tl.where(chooses[:, None], log_mean(log, log0, HALF), 0.0), score


@triton.jit
def _apart(at, at0, row, real, column, width, HALF: tl.constexpr):
    """b̄ of rows of a sample, less that of its first row."""
    b, first = _rows_of(at, row, real, column, width)
    if HALF != 0:
        b0, first0 = _rows_of(at0, row, real, column, width)
        b, first = midpoint(b, b0, HALF), midpoint(first, first0, HALF)
    return b - first


@triton.jit
def _rows_of(stream, row, real, column, width):
    """One stream's rows, and the sample's first row, `[1, columns]`."""
    first = read(stream[1] + tl.load(stream[2]) * width + column, column < width)[None, :]
    return _tile(stream[1], tl.load(stream[2] + row, mask=real, other=0), real, column, width), first

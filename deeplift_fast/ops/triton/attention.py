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

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.triton.activations import exponential, log_mean, midpoint
from deeplift_fast.ops.triton.tiles import block_of, dense, widened

GROUPS = 16  # of a block: the least of a product
BY_BATCH = ("samples", "halvings", "total", "total0")  # sizes that differ between batches
DEPTH = 16  # columns that are multiplied at a time; with more, a thread's registers do not suffice


def constants_of(dtype: torch.dtype, width: int) -> dict[str, Any]:
    """The constants of the kernels; programs share the columns of wide rows, and each computes all scores."""
    double = dtype == torch.float64
    wide = max(min(triton.next_power_of_2(width), 32 if double else 128), 16)
    exact = double or torch.version.hip is not None  # NVIDIA's tensor cores take float32 as TF32
    precision = "ieee" if exact else "tf32x3"
    return {"GROUPS": GROUPS, "ROWS": 16 if double else 32, "WIDTH": wide, "DEPTH": DEPTH, "PRECISION": precision}


def options_of(warps: int, nvidia: bool) -> dict[str, int]:
    """The options that a kernel is compiled with; without a limit, NVIDIA's assembler spills to run more programs."""
    return {"num_warps": warps, "num_stages": 1} | ({"maxnreg": 255} if nvidia else {})


def attention(
    asked: Tensor, rows: Tensor, index: Tensor, starts: Tensor, queries: Tensor, looks: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.attention`; `index`, `starts` and `queries` are not checked."""
    given = dense(asked, rows, index, starts, queries, looks, seen)
    (heads, total, width), samples = asked.shape, len(starts) - 1
    mixed = torch.empty_like(given[0])
    log_sums = torch.empty(heads, total, dtype=computed(asked.dtype), device=asked.device)
    if heads * total:
        constants = constants_of(asked.dtype, width)
        grid = heads * total // GROUPS + samples, triton.cdiv(width, constants["WIDTH"])
        with torch.cuda.device_of(asked):
            _attention_kernel[grid](
                *given, mixed, log_sums, samples, samples.bit_length(), heads, total, width, *constants.values(),
                **options_of(4, torch.version.hip is None),
            )  # fmt: skip
    return mixed, log_sums


@triton.jit(do_not_specialize=BY_BATCH)
def _attention_kernel(
    asked: tl.tensor, rows: tl.tensor, index: tl.tensor, starts: tl.tensor, queries: tl.tensor, looks: tl.tensor,
    seen: tl.tensor, mixed: tl.tensor, log_sums: tl.tensor, samples: tl.tensor, halvings: tl.tensor, heads: tl.tensor,
    total: tl.tensor, width: tl.tensor, GROUPS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
    DEPTH: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    sample, block = block_of(tl.program_id(0), queries, samples, halvings, heads, GROUPS)
    stream = _stream(asked, rows, index, starts, queries, looks, seen, log_sums, sample, total, width)
    count, asking = _size(starts, sample), _size(queries, sample)
    if block * GROUPS < heads * asking:
        groups = _groups(block * GROUPS, heads, asking, GROUPS)
        place, mine = groups[0] * total + groups[1], groups[2]
        column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        dtype: tl.constexpr = log_sums.dtype.element_ty
        high, sums = tl.full([GROUPS], float("-inf"), dtype), tl.zeros([GROUPS], dtype)
        summed = tl.zeros([GROUPS, WIDTH], dtype)
        for start in range(0, _end(stream, groups, count), ROWS):
            row = start + tl.arange(0, ROWS)
            real = row < count
            at = tl.load(stream[2] + row, mask=real, other=0)
            scores = tl.zeros([GROUPS, ROWS], dtype)
            for part in range(0, width, DEPTH):
                some = part + tl.arange(0, DEPTH)
                a, b = _tile(stream[0], place, mine, some, width), _tile(rows, at, real, some, width)
                scores = _dot(a, tl.trans(b), scores, PRECISION)
            scores = _masked(scores, stream, groups, row, real)
            higher = tl.maximum(high, tl.max(scores, 1))
            finite = tl.where(higher == float("-inf"), 0.0, higher)
            p = exponential(scores - finite[:, None])[0]
            fading = exponential(high - finite)[0]
            sums = sums * fading + tl.sum(p, 1)
            b = _tile(rows, at, real, column, width)
            summed = _dot(p, b, summed * fading[:, None], PRECISION)
            high = higher
        divisor = tl.where(sums == 0, 1.0, sums)  # 0 for a sample without rows
        _store(mixed + tl.load(queries + sample) * width, place, mine, column, width, summed / divisor[:, None])
        tl.store(stream[6] + place, high + tl.log(sums), mask=mine & (tl.program_id(1) == 0))


@triton.jit
def _dot(x: tl.tensor, y: tl.tensor, before: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    return tl.dot(x, y, before, input_precision=PRECISION, out_dtype=before.dtype)


@triton.jit
def _size(ends: tl.tensor, sample: tl.tensor) -> tl.tensor:
    return tl.load(ends + sample + 1) - tl.load(ends + sample)


@triton.jit
def _stream(
    asked: tl.tensor, rows: tl.tensor, index: tl.tensor, starts: tl.tensor, queries: tl.tensor, looks: tl.tensor,
    seen: tl.tensor, log_sums: tl.tensor, sample: tl.tensor, total: tl.tensor, width: tl.tensor,
) -> tl.tuple:  # fmt: skip
    """One stream's tensors from a sample's first query or row on, the end of its visible rows, and all queries."""
    first, query = tl.load(starts + sample), tl.load(queries + sample)
    visible = _end_of_seen(seen + first, _size(starts, sample))
    return (
        asked + query * width, rows, index + first, looks + query, seen + first, visible, log_sums + query, total
    )  # fmt: skip


@triton.jit
def _end_of_seen(seen: tl.tensor, count: tl.tensor) -> tl.tensor:
    end = tl.zeros([128], tl.int64)
    for start in range(0, count, 128):
        row = start + tl.arange(0, 128)
        end = tl.where(tl.load(seen + row, mask=row < count, other=0).to(tl.int1), row + 1, end)
    return tl.max(end, 0)


@triton.jit
def _end(stream: tl.tuple, groups: tl.tuple, count: tl.tensor) -> tl.tensor:
    """The end of the rows that any of the groups weighs: padding costs nothing if all of them choose among rows."""
    chooses = _flags(stream[3] + groups[1], groups[2]) | ~groups[2]
    return tl.where((stream[5] > 0) & (tl.min(chooses.to(tl.int32), 0) > 0), stream[5], count)


@triton.jit
def _groups(
    start: tl.tensor, heads: tl.tensor, asking: tl.tensor, GROUPS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The head and the query of a sample's groups from `start` on, and whether there is such a group."""
    group = start + tl.arange(0, GROUPS)
    head = group // asking
    return head, group - head * asking, group < heads * asking


@triton.jit
def _tile(pointer: tl.tensor, row: tl.tensor, real: tl.tensor, column: tl.tensor, width: tl.tensor) -> tl.tensor:
    shown = real[:, None] & (column < width)[None, :]
    return widened(tl.load(pointer + row[:, None] * width + column[None, :], mask=shown, other=0.0))


@triton.jit
def _store(
    pointer: tl.tensor, row: tl.tensor, real: tl.tensor, column: tl.tensor, width: tl.tensor, numbers: tl.tensor
) -> None:
    shown = real[:, None] & (column < width)[None, :]
    tl.store(pointer + row[:, None] * width + column[None, :], numbers, mask=shown)


@triton.jit
def _masked(scores: tl.tensor, stream: tl.tuple, groups: tl.tuple, row: tl.tensor, real: tl.tensor) -> tl.tensor:
    """The scores: −inf for rows that are not visible, and 0 for groups that weigh all rows alike."""
    chooses = (stream[5] > 0) & _flags(stream[3] + groups[1], groups[2])
    seen = _flags(stream[4] + row, real)
    scores = tl.where(chooses[:, None], tl.where(seen[None, :], scores, float("-inf")), 0.0)
    return tl.where(real[None, :], scores, float("-inf"))


@triton.jit
def _flags(pointer: tl.tensor, real: tl.tensor) -> tl.tensor:
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
    given = dense(
        m, asked, asked0, rows, rows0, index, index0, starts, starts0, queries, queries0, where, looks, looks0, seen,
        seen0, log_sums, log_sums0,
    )  # fmt: skip
    (heads, total, width), samples = asked.shape, len(starts) - 1
    m_asked, m_rows, averages = torch.empty_like(given[1]), torch.zeros_like(given[3]), torch.empty_like(given[16])
    if heads * total:
        constants = constants_of(asked.dtype, width)
        across, options = triton.cdiv(width, constants["WIDTH"]), options_of(8, torch.version.hip is None)
        sizes = samples, samples.bit_length(), heads, total, asked0.shape[1], width, half, *constants.values()
        with torch.cuda.device_of(m):
            _groups_kernel[heads * total // GROUPS + samples, across](*given, m_asked, averages, *sizes, **options)
            _rows_kernel[len(index) // constants["ROWS"] + samples, across](*given, m_rows, averages, *sizes, **options)
    return m_asked, m_rows


@triton.jit(do_not_specialize=BY_BATCH)
def _groups_kernel(
    m: tl.tensor, asked: tl.tensor, asked0: tl.tensor, rows: tl.tensor, rows0: tl.tensor, index: tl.tensor,
    index0: tl.tensor, starts: tl.tensor, starts0: tl.tensor, queries: tl.tensor, queries0: tl.tensor,
    where: tl.tensor, looks: tl.tensor, looks0: tl.tensor, seen: tl.tensor, seen0: tl.tensor, log_sums: tl.tensor,
    log_sums0: tl.tensor, m_asked: tl.tensor, averages: tl.tensor, samples: tl.tensor, halvings: tl.tensor,
    heads: tl.tensor, total: tl.tensor, total0: tl.tensor, width: tl.tensor, HALF: tl.constexpr, GROUPS: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    sample, block = block_of(tl.program_id(0), queries, samples, halvings, heads, GROUPS)
    other = tl.load(where + sample)
    at = _stream(asked, rows, index, starts, queries, looks, seen, log_sums, sample, total, width)
    at0 = _stream(asked0, rows0, index0, starts0, queries0, looks0, seen0, log_sums0, other, total0, width)
    query, count, asking = tl.load(queries + sample), _size(starts, sample), _size(queries, sample)
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
    m: tl.tensor, asked: tl.tensor, asked0: tl.tensor, rows: tl.tensor, rows0: tl.tensor, index: tl.tensor,
    index0: tl.tensor, starts: tl.tensor, starts0: tl.tensor, queries: tl.tensor, queries0: tl.tensor,
    where: tl.tensor, looks: tl.tensor, looks0: tl.tensor, seen: tl.tensor, seen0: tl.tensor, log_sums: tl.tensor,
    log_sums0: tl.tensor, m_rows: tl.tensor, averages: tl.tensor, samples: tl.tensor, halvings: tl.tensor,
    heads: tl.tensor, total: tl.tensor, total0: tl.tensor, width: tl.tensor, HALF: tl.constexpr, GROUPS: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    sample, block = block_of(tl.program_id(0), starts, samples, halvings, 1, ROWS)
    other = tl.load(where + sample)
    at = _stream(asked, rows, index, starts, queries, looks, seen, log_sums, sample, total, width)
    at0 = _stream(asked0, rows0, index0, starts0, queries0, looks0, seen0, log_sums0, other, total0, width)
    query, count, asking = tl.load(queries + sample), _size(starts, sample), _size(queries, sample)
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
def _pairs(
    m: tl.tensor, at: tl.tuple, at0: tl.tuple, groups: tl.tuple, row: tl.tensor, real: tl.tensor, width: tl.tensor,
    HALF: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """For groups and rows of a sample: p̄, the shares h, and g relative to that of the sample's first row."""
    head, nth, mine = groups
    place, place0 = head * at[7] + nth, head * at0[7] + nth
    dtype: tl.constexpr = at[6].dtype.element_ty
    score = tl.zeros([head.shape[0], row.shape[0]], dtype)
    log, log0 = score, score
    for part in range(0, width, DEPTH):
        column = part + tl.arange(0, DEPTH)
        b, first = _rows_of(at, row, real, column, width)
        log = _dot(_tile(at[0], place, mine, column, width), tl.trans(b), log, PRECISION)
        if HALF != 0:
            b0, first0 = _rows_of(at0, row, real, column, width)
            a0 = _tile(at0[0], place0, mine, column, width)
            log0 = _dot(a0, tl.trans(b0), log0, PRECISION)
            b, first = midpoint(b, b0, HALF), midpoint(first, first0, HALF)
        g = _tile(m, place, mine, column, width)
        score = _dot(g, tl.trans(b - first), score, PRECISION)
    log = _masked(log, at, groups, row, real) - tl.load(at[6] + place, mask=mine, other=0.0)[:, None]
    if HALF != 0:
        log0 = _masked(log0, at0, groups, row, real) - tl.load(at0[6] + place0, mask=mine, other=0.0)[:, None]
    else:
        log0 = log
    p = tl.where(mine[:, None], midpoint(exponential(log)[0], exponential(log0)[0], HALF), 0.0)
    chooses = (at[5] > 0) & _flags(at[3] + nth, mine)
    return p, tl.where(chooses[:, None], log_mean(log, log0, HALF), 0.0), score


@triton.jit
def _apart(
    at: tl.tuple, at0: tl.tuple, row: tl.tensor, real: tl.tensor, column: tl.tensor, width: tl.tensor,
    HALF: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """b̄ of rows of a sample, less that of its first row."""
    b, first = _rows_of(at, row, real, column, width)
    if HALF != 0:
        b0, first0 = _rows_of(at0, row, real, column, width)
        b, first = midpoint(b, b0, HALF), midpoint(first, first0, HALF)
    return b - first


@triton.jit
def _rows_of(
    stream: tl.tuple, row: tl.tensor, real: tl.tensor, column: tl.tensor, width: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """One stream's rows, and the sample's first row, `[1, columns]`."""
    at = tl.load(stream[2] + row, mask=real, other=0)
    first = tl.load(stream[1] + tl.load(stream[2]) * width + column, mask=column < width, other=0.0)
    return _tile(stream[1], at, real, column, width), widened(first)[None, :]

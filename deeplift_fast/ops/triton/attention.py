"""Attention over ragged rows and its multipliers, as Triton kernels.

Kernels use no atomics, and each program finds its sample itself, so that the host does not wait for the device. In the
forward kernel a program handles one query and head, and loops over the rows of its sample.

The backward op has two kernels. The first has a program for each query and head. It reads both streams' rows once and
computes the multipliers of the queries. For the second kernel it stores each score's `m·b̄`, minus that of the sample's
first row, and their averages. With h the shares of the softmax's Jacobian, a query's multiplier
`Σ h·(g − Σ h·g/Σ h)·b̄` is a covariance of g and b̄. It is accumulated as one, without cancellation (West 1979, "Updating
Mean and Variance Estimates: An Improved Method"). In the second kernel a program handles some rows, and adds up their
multipliers over the queries of their samples in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.triton.activations import exponential, log_mean, midpoint
from deeplift_fast.ops.triton.tiles import dense, part_of, tile, widened

ACCESSES = 1  # loads of 16 bytes of a stream's rows by each thread at a time
PAIRS = 256  # pairs of a query and a row that become log-probabilities at a time
SAMPLES = 1024  # samples whose pairs are counted at a time


def attention(
    asked: Tensor, rows: Tensor, index: Tensor, starts: Tensor, queries: Tensor, looks: Tensor, seen: Tensor,
    pairs: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See :func:`deeplift_fast.ops.attention`; `index`, `starts`, `queries` and `pairs` are not checked.

    Nothing is written past the end of `log_p`, whatever `pairs` is.
    """
    given = dense(asked, rows, index, starts, queries, looks, seen)
    asked, starts, queries = given[0], given[3], given[4]
    heads, total, width = asked.shape
    mixed = torch.empty_like(asked)
    log_p = torch.empty(heads * pairs, dtype=computed(asked.dtype), device=asked.device)
    if heads * total:
        samples = len(starts) - 1
        high, wide, warps = tile(width, asked.dtype, ACCESSES)
        with torch.cuda.device_of(asked):
            _attention_kernel[(total * heads,)](
                *given, pair_offsets(starts, queries), mixed, log_p, samples, samples.bit_length(), heads, total, width,
                log_p.numel(), high, wide, PAIRS, num_warps=warps,
            )  # fmt: skip
    return mixed, log_p


def pair_offsets(starts: Tensor, queries: Tensor) -> Tensor:
    """The start of each sample's pairs of a row and a query, without heads, int64 `[samples + 1]`."""
    offsets = torch.empty_like(starts)
    _offsets_kernel[(1,)](starts, queries, offsets, len(starts) - 1, SAMPLES, num_warps=4)
    return offsets


@triton.jit
def _offsets_kernel(
    starts: tl.tensor, queries: tl.tensor, offsets: tl.tensor, samples: tl.tensor, SAMPLES: tl.constexpr
) -> None:
    before = tl.full([1], 0, tl.int64)
    for first in range(0, samples + 1, SAMPLES):
        sample = first + tl.arange(0, SAMPLES)
        real = sample < samples
        rows = tl.load(starts + sample + 1, mask=real, other=0) - tl.load(starts + sample, mask=real, other=0)
        asking = tl.load(queries + sample + 1, mask=real, other=0) - tl.load(queries + sample, mask=real, other=0)
        pairs = rows * asking
        tl.store(offsets + sample, before + tl.cumsum(pairs, 0) - pairs, mask=sample <= samples)
        before += tl.sum(pairs, 0)


@triton.jit
def _attention_kernel(
    asked: tl.tensor, rows: tl.tensor, index: tl.tensor, starts: tl.tensor, queries: tl.tensor, looks: tl.tensor,
    seen: tl.tensor, offsets: tl.tensor, mixed: tl.tensor, log_p: tl.tensor, samples: tl.tensor, steps: tl.tensor,
    heads: tl.tensor, total: tl.tensor, width: tl.tensor, size: tl.tensor, ROWS: tl.constexpr, WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
) -> None:  # fmt: skip
    # The heads of a query follow each other: all but the first find the rows in the cache. int64: an int32 offset wraps
    # at 2**31 elements.
    query = (tl.program_id(0) // heads).to(tl.int64)
    head = tl.program_id(0) % heads
    column = tl.arange(0, WIDTH)
    sample = part_of(query, queries, samples, steps)
    first = tl.load(starts + sample)
    count = tl.load(starts + (sample + 1)) - first
    first_query = tl.load(queries + sample)
    asking = tl.load(queries + (sample + 1)) - first_query
    place = (head.to(tl.int64) * total + query) * width + column
    a = widened(tl.load(asked + place, mask=column < width, other=0.0))
    chooses = _any_seen(seen, first, count, PAIRS) & tl.load(looks + query).to(tl.int1)
    # The place of the sample's first row, for this query and head, in [rows][heads · queries].
    pair = tl.load(offsets + sample) * heads + head * asking + query - first_query
    stride = heads * asking

    # Each lane of the tile has a softmax of its own rows; lanes are combined at the end.
    high = tl.full([ROWS], float("-inf"), a.dtype)
    sums = tl.zeros([ROWS], a.dtype)
    summed = tl.zeros([ROWS, WIDTH], a.dtype)
    for start in range(0, count, ROWS):
        row = start + tl.arange(0, ROWS)
        real = row < count
        at = tl.load(index + (first + row), mask=real, other=0)
        shown = real[:, None] & (column < width)[None, :]
        b = widened(tl.load(rows + (at[:, None] * width + column[None, :]), mask=shown, other=0.0))
        visible = tl.load(seen + (first + row), mask=real, other=0).to(tl.int1)
        scores = tl.sum(a[None, :] * b, 1)
        scores = tl.where(chooses, tl.where(visible, scores, float("-inf")), 0.0)
        scores = tl.where(real, scores, float("-inf"))
        where = pair + row * stride
        tl.store(log_p + where, scores, mask=real & (where < size))
        higher = tl.where(scores > high, scores, high)
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        p = exponential(scores - finite)[0]
        fading = exponential(high - finite)[0]
        sums = sums * fading + p
        summed = summed * fading[:, None] + p[:, None] * b
        high = higher
    highest = tl.max(high, 0)
    fading = exponential(high - tl.where(highest == float("-inf"), 0.0, highest))[0]
    total_sum = tl.sum(sums * fading, 0)
    total_sum = tl.where(total_sum == 0, 1.0, total_sum)  # 0 for a sample without rows
    tl.store(mixed + place, tl.sum(summed * fading[:, None], 0) / total_sum, mask=column < width)

    normaliser = highest + tl.log(total_sum)
    tl.debug_barrier()  # other threads of the program wrote the scores
    for start in range(0, count, PAIRS):
        row = start + tl.arange(0, PAIRS)
        where = pair + row * stride
        written = (row < count) & (where < size)
        tl.store(log_p + where, tl.load(log_p + where, mask=written, other=0.0) - normaliser, mask=written)


@triton.jit
def _any_seen(seen: tl.tensor, first: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:
    found = tl.zeros([BLOCK], tl.int32)
    for start in range(0, count, BLOCK):
        row = start + tl.arange(0, BLOCK)
        found += tl.load(seen + (first + row), mask=row < count, other=0).to(tl.int32)
    return tl.max(found, 0) > 0


def attention_backward(
    m: Tensor, asked: Tensor, asked0: Tensor, rows: Tensor, rows0: Tensor, index: Tensor, index0: Tensor,
    starts: Tensor, starts0: Tensor, queries: Tensor, queries0: Tensor, where: Tensor, looks: Tensor, log_p: Tensor,
    log_p0: Tensor, half: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See :func:`deeplift_fast.ops.attention_backward`; the integers are not checked."""
    m, asked, asked0, rows, rows0, index, index0, looks, log_p, log_p0 = dense(
        m, asked, asked0, rows, rows0, index, index0, looks, log_p, log_p0
    )
    starts, starts0, queries, queries0, where = dense(starts, starts0, queries, queries0, where)
    heads, total, width = asked.shape
    m_asked, m_rows = torch.empty_like(asked), torch.zeros_like(rows)
    samples = len(starts) - 1
    if not heads * total:
        return m_asked, m_rows
    arriving = torch.empty_like(log_p)
    averages = torch.empty(heads, total, dtype=computed(asked.dtype), device=asked.device)
    with torch.cuda.device_of(m):
        offsets, offsets0 = pair_offsets(starts, queries), pair_offsets(starts0, queries0)
        spans = (starts, starts0, queries, queries0, where, looks, offsets, offsets0, log_p, log_p0, arriving, averages)
        sizes = (samples, samples.bit_length(), heads, total, width)
        high, wide, warps = tile(width, asked.dtype, ACCESSES)
        _queries_kernel[(total * heads,)](
            m, rows, rows0, index, index0, *spans, m_asked, *sizes, half, high, wide, num_warps=warps
        )
        if len(index):
            _rows_kernel[(triton.cdiv(len(index), high),)](
                m, asked, asked0, index, *spans, m_rows, *sizes, asked0.shape[1], len(index), half, high, wide,
                num_warps=warps,
            )  # fmt: skip
    return m_asked, m_rows


@triton.jit
def _queries_kernel(
    m: tl.tensor, rows: tl.tensor, rows0: tl.tensor, index: tl.tensor, index0: tl.tensor, starts: tl.tensor,
    starts0: tl.tensor, queries: tl.tensor, queries0: tl.tensor, where: tl.tensor, looks: tl.tensor,
    offsets: tl.tensor, offsets0: tl.tensor, log_p: tl.tensor, log_p0: tl.tensor, arriving: tl.tensor,
    averages: tl.tensor, m_asked: tl.tensor, samples: tl.tensor, steps: tl.tensor, heads: tl.tensor, total: tl.tensor,
    width: tl.tensor, HALF: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
) -> None:  # fmt: skip
    # The heads of a query follow each other: all but the first find the rows in the cache. int64: an int32 offset wraps
    # at 2**31 elements.
    query = (tl.program_id(0) // heads).to(tl.int64)
    head = (tl.program_id(0) % heads).to(tl.int64)
    column = tl.arange(0, WIDTH)
    sample = part_of(query, queries, samples, steps)
    other = tl.load(where + sample)
    first, first0 = tl.load(starts + sample), tl.load(starts0 + other)
    count = tl.load(starts + (sample + 1)) - first
    first_query = tl.load(queries + sample)
    asking = tl.load(queries + (sample + 1)) - first_query
    place = head * total + query
    g = widened(tl.load(m + (place * width + column), mask=column < width, other=0.0))
    looking = tl.load(looks + query).to(tl.int1)
    in_sample = head * asking + query - first_query
    pair, pair0 = (tl.load(offsets + sample) * heads + in_sample), (tl.load(offsets0 + other) * heads + in_sample)
    stride = heads * asking

    # The first row's score is subtracted from all scores, which does not change the softmax. Averages are then rounded
    # relative to the differences of scores, not to their common part.
    some = (column < width) & (count > 0)
    origin = tl.load(index + first, mask=count > 0, other=0) * width
    of_first = widened(tl.load(rows + (origin + column), mask=some, other=0.0))
    if HALF != 0:
        origin0 = tl.load(index0 + first0, mask=count > 0, other=0) * width
        of_first = midpoint(of_first, widened(tl.load(rows0 + (origin0 + column), mask=some, other=0.0)), HALF)
    pivot = tl.sum(g * of_first, 0)

    # Each lane of the tile has the weight, averages and covariance of its own rows; lanes are combined at the end.
    weight, average = tl.zeros([ROWS], g.dtype), tl.zeros([ROWS], g.dtype)
    centre, covariance = tl.zeros([ROWS, WIDTH], g.dtype), tl.zeros([ROWS, WIDTH], g.dtype)
    for start in range(0, count, ROWS):
        row = start + tl.arange(0, ROWS)
        real = row < count
        shown = real[:, None] & (column < width)[None, :]
        at = tl.load(index + (first + row), mask=real, other=0)
        b = widened(tl.load(rows + (at[:, None] * width + column[None, :]), mask=shown, other=0.0))
        log = tl.load(log_p + (pair + row * stride), mask=real, other=float("-inf"))
        log0 = log
        if HALF != 0:
            at0 = tl.load(index0 + (first0 + row), mask=real, other=0)
            b0 = widened(tl.load(rows0 + (at0[:, None] * width + column[None, :]), mask=shown, other=0.0))
            b = midpoint(b, b0, HALF)
            log0 = tl.load(log_p0 + (pair0 + row * stride), mask=real, other=float("-inf"))
        share = tl.where(looking, log_mean(log, log0, HALF), 0.0)
        score = tl.sum(g[None, :] * b, 1) - pivot
        tl.store(arriving + (pair + row * stride), score, mask=real)
        before = weight
        weight += share
        part = share / tl.where(weight > 0, weight, 1.0)
        rise, drift = score - average, b - centre
        covariance += (before * part * rise)[:, None] * drift
        average += part * rise
        centre += part[:, None] * drift
    shares = tl.sum(weight, 0)
    shares = tl.where(shares > 0, shares, 1.0)
    overall = tl.sum(weight * average, 0) / shares
    apart = weight * (average - overall)
    apart -= weight * (tl.sum(apart, 0) / shares)  # a sum of exactly zero, since centres may be far from 0
    covariance += apart[:, None] * centre
    tl.store(m_asked + (place * width + column), tl.sum(covariance, 0), mask=column < width)
    tl.store(averages + place, overall)


@triton.jit
def _rows_kernel(
    m: tl.tensor, asked: tl.tensor, asked0: tl.tensor, index: tl.tensor, starts: tl.tensor, starts0: tl.tensor,
    queries: tl.tensor, queries0: tl.tensor, where: tl.tensor, looks: tl.tensor, offsets: tl.tensor,
    offsets0: tl.tensor, log_p: tl.tensor, log_p0: tl.tensor, arriving: tl.tensor, averages: tl.tensor,
    m_rows: tl.tensor, samples: tl.tensor, steps: tl.tensor, heads: tl.tensor, total: tl.tensor, width: tl.tensor,
    total0: tl.tensor, count: tl.tensor, HALF: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
) -> None:  # fmt: skip
    position = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = position < count
    column = tl.arange(0, WIDTH)
    sample = part_of(tl.where(real, position, 0), starts, samples, steps)
    other = tl.load(where + sample)
    first_query, first_query0 = tl.load(queries + sample), tl.load(queries0 + other)
    asking = tl.load(queries + (sample + 1)) - first_query
    groups = tl.where(real, heads * asking, 0)
    row = position - tl.load(starts + sample)
    pair = tl.load(offsets + sample) * heads + row * groups
    pair0 = tl.load(offsets0 + other) * heads + row * groups
    summed = tl.zeros([ROWS, WIDTH], averages.dtype.element_ty)
    for group in range(tl.max(groups, 0)):
        mine = group < groups
        # Samples without a query have no groups.
        head = group // tl.maximum(asking, 1)
        nth = group - head * asking
        query = head * total + first_query + nth
        shown = mine[:, None] & (column < width)[None, :]
        g = widened(tl.load(m + (query[:, None] * width + column[None, :]), mask=shown, other=0.0))
        a = widened(tl.load(asked + (query[:, None] * width + column[None, :]), mask=shown, other=0.0))
        log = tl.load(log_p + (pair + group), mask=mine, other=float("-inf"))
        log0 = log
        if HALF != 0:
            query0 = head * total0 + first_query0 + nth
            a0 = widened(tl.load(asked0 + (query0[:, None] * width + column[None, :]), mask=shown, other=0.0))
            a = midpoint(a, a0, HALF)
            log0 = tl.load(log_p0 + (pair0 + group), mask=mine, other=float("-inf"))
        p = midpoint(exponential(log)[0], exponential(log0)[0], HALF)
        looking = tl.load(looks + (first_query + nth), mask=mine, other=0).to(tl.int1)
        share = tl.where(looking, log_mean(log, log0, HALF), 0.0)
        score = tl.load(arriving + (pair + group), mask=mine, other=0.0)
        m_score = share * (score - tl.load(averages + query, mask=mine, other=0.0))
        summed += p[:, None] * g + m_score[:, None] * a
    at = tl.load(index + position, mask=real, other=0)
    shown = real[:, None] & (column < width)[None, :]
    tl.store(m_rows + (at[:, None] * width + column[None, :]), summed, mask=shown)

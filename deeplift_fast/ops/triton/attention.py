"""Attention over ragged rows, as Triton kernels: a program for each query, over its sample's rows.

No atomics and no look at the device's numbers from the host: a program finds its sample itself.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.triton.activations import exponential
from deeplift_fast.ops.triton.tiles import dense, part_of, tile, widened

ACCESSES = 1  # of 16 bytes of the rows, by each thread at a time
PAIRS = 256  # of a query and a row, whose scores are made log-probabilities at a time
SAMPLES = 1024  # at a time, where pairs are counted


def attention(
    asked: Tensor,
    rows: Tensor,
    index: Tensor,
    starts: Tensor,
    queries: Tensor,
    looks: Tensor,
    seen: Tensor,
    pairs: int,
) -> tuple[Tensor, Tensor]:
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
    """Where each sample's pairs of a row and a query begin, heads left out, int64 `[samples + 1]`."""
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
    asked: tl.tensor,
    rows: tl.tensor,
    index: tl.tensor,
    starts: tl.tensor,
    queries: tl.tensor,
    looks: tl.tensor,
    seen: tl.tensor,
    offsets: tl.tensor,
    mixed: tl.tensor,
    log_p: tl.tensor,
    samples: tl.tensor,
    steps: tl.tensor,
    heads: tl.tensor,
    total: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
) -> None:
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
    # Of row r and this head in [rows][heads · queries] of the sample.
    pair = tl.load(offsets + sample) * heads + head * asking + query - first_query
    stride = heads * asking

    # Each lane of the tile has a softmax of its own rows: nothing crosses lanes before the end.
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
    total_sum = tl.where(total_sum == 0, 1.0, total_sum)  # of a sample without rows
    tl.store(mixed + place, tl.sum(summed * fading[:, None], 0) / total_sum, mask=column < width)

    normaliser = highest + tl.log(total_sum)
    tl.debug_barrier()  # the scores were written by other threads of the program
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

"""What a batch of tokens or of continuous values tells of itself, each as one Triton kernel; a program has a sample."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.tiles import dense, launch, strip

TILE = 512  # tokens or values that a program handles at a time


def survey_tile(steps: int, wide: int) -> tuple[int, int]:
    """Steps, and tokens or values of a step, that a program handles at a time: powers of two."""
    columns = min(triton.next_power_of_2(max(wide, 1)), 64)
    return min(triton.next_power_of_2(steps), TILE // columns), columns


def token_survey(times: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.token_survey`."""
    times, tokens = dense(times, tokens)
    batch, steps, slots = tokens.shape
    real, unknown = torch.empty_like(tokens, dtype=torch.bool), torch.empty_like(tokens)
    held, ends = real.new_empty(batch, steps), tokens.new_empty(batch)
    found = real, unknown, held, ends, tokens.new_empty(batch, 2), real.new_empty(batch)
    launch(_token_survey_kernel, (batch,), times, tokens, *found, steps, slots, *survey_tile(steps, slots))
    return found


@triton.jit
def _token_survey_kernel(
    times, tokens, real, unknown, held, ends, bounds, bad, steps, slots, STEPS: tl.constexpr, WIDE: tl.constexpr
):
    sample = tl.program_id(0).to(tl.int64)
    some = tl.load(tokens + sample * steps * slots)
    low = tl.zeros([STEPS], tl.int64) + some
    high, count, wrong = low, tl.zeros([STEPS], tl.int64), tl.zeros([STEPS], tl.int32)
    for first in range(0, steps, STEPS):
        row, inside, _ = _steps(sample, first, steps, STEPS)
        time = tl.load(times + row, mask=inside, other=0.0)
        wrong, of_step = tl.maximum(wrong, _infinite(time)), tl.zeros([STEPS], tl.int32)
        for left in range(0, slots, WIDE):
            at, mask = strip(row, inside, left, slots, WIDE)
            token = tl.load(tokens + at, mask=mask, other=0)
            is_real = token != 0
            tl.store(real + at, is_real, mask=mask)
            tl.store(unknown + at, is_real.to(tl.int64), mask=mask)
            of_step = tl.maximum(of_step, tl.max(is_real.to(tl.int32), 1))
            low = tl.minimum(low, tl.min(tl.where(mask, token, some), 1))
            high = tl.maximum(high, tl.max(tl.where(mask, token, some), 1))
        tl.store(held + row, of_step != 0, mask=inside)
        count += of_step
    tl.store(ends + sample, tl.maximum(tl.sum(count, 0), 1))
    tl.store(bounds + 2 * sample, tl.min(low, 0))
    tl.store(bounds + 2 * sample + 1, tl.max(high, 0))
    tl.store(bad + sample, tl.max(wrong, 0) != 0)


@triton.jit
def _steps(sample, first, steps, STEPS: tl.constexpr):
    """The rows of some steps of a sample, whether there are such steps, and the steps."""
    step = first + tl.arange(0, STEPS)
    return sample * steps + step, step < steps, step


@triton.jit
def _infinite(x):
    """1 for NaN and infinite numbers, else 0."""
    return tl.where(tl.abs(x) < float("inf"), 0, 1)


def value_survey(values: Tensor, times: Tensor, neutral: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.value_survey`."""
    values, times = dense(values, times)
    batch, steps, size = values.shape
    filled, real = (torch.empty_like(times, dtype=torch.bool) for _ in range(2))
    ends = values.new_empty(batch, dtype=torch.int64)
    found = filled, real, torch.empty_like(values), ends, torch.empty_like(ends, dtype=torch.bool)
    launch(_value_survey_kernel, (batch,), values, times, *found, steps, size, neutral, *survey_tile(steps, size))
    return found


@triton.jit
def _value_survey_kernel(
    values, times, filled, real, baseline, ends, bad, steps, size, NEUTRAL: tl.constexpr, STEPS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0).to(tl.int64)
    last, wrong = tl.zeros([STEPS], tl.int32), tl.zeros([STEPS], tl.int32)
    for first in range(0, steps, STEPS):
        row, inside, step = _steps(sample, first, steps, STEPS)
        time = tl.load(times + row, mask=inside, other=0.0)
        wrong, held = tl.maximum(wrong, _infinite(time)), tl.zeros([STEPS], tl.int32)
        for left in range(0, size, WIDE):
            at, mask = strip(row, inside, left, size, WIDE)
            x = tl.load(values + at, mask=mask, other=0.0)
            held = tl.maximum(held, tl.max((x != 0).to(tl.int32), 1))
            wrong = tl.maximum(wrong, tl.max(_infinite(x), 1))
        tl.store(filled + row, held != 0, mask=inside)
        last = tl.maximum(last, tl.where((held != 0) | (time != 0), step + 1, 0))
    end = tl.max(last, 0)
    for first in range(0, steps, STEPS):
        row, inside, step = _steps(sample, first, steps, STEPS)
        tl.store(real + row, step < end, mask=inside)
        for left in range(0, size, WIDE):
            at, mask = strip(row, inside, left, size, WIDE)
            x = tl.load(values + at, mask=mask, other=0.0)
            neutral = tl.full([STEPS, WIDE], NEUTRAL, x.dtype)
            tl.store(baseline + at, tl.where((step < end)[:, None], neutral, x), mask=mask)
    tl.store(ends + sample, tl.maximum(end, 1).to(tl.int64))
    tl.store(bad + sample, tl.max(wrong, 0) != 0)

"""What a batch of tokens tells of itself as one Triton kernel; a program handles a sample."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.tiles import dense

TILE = 512  # tokens that a program handles at a time


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
    bounds, bad = tokens.new_empty(batch, 2), real.new_empty(batch)
    if batch:
        high, wide = survey_tile(steps, slots)
        with torch.cuda.device_of(tokens):
            _token_survey_kernel[(batch,)](
                times, tokens, real, unknown, held, ends, bounds, bad, steps, slots, high, wide, num_warps=4
            )
    return real, unknown, held, ends, bounds, bad


@triton.jit
def _token_survey_kernel(
    times: tl.tensor, tokens: tl.tensor, real: tl.tensor, unknown: tl.tensor, held: tl.tensor, ends: tl.tensor,
    bounds: tl.tensor, bad: tl.tensor, steps: tl.tensor, slots: tl.tensor, STEPS: tl.constexpr, SLOTS: tl.constexpr,
) -> None:  # fmt: skip
    sample = tl.program_id(0).to(tl.int64)
    some = tl.load(tokens + sample * steps * slots)
    low = tl.zeros([STEPS], tl.int64) + some
    high = tl.zeros([STEPS], tl.int64) + some
    count = tl.zeros([STEPS], tl.int64)
    wrong = tl.zeros([STEPS], tl.int32)
    for first in range(0, steps, STEPS):
        step = first + tl.arange(0, STEPS)
        inside = step < steps
        row = sample * steps + step
        finite = tl.abs(tl.load(times + row, mask=inside, other=0.0)) < float("inf")  # false for NaN
        wrong = tl.maximum(wrong, tl.where(finite, 0, 1))
        of_step = tl.zeros([STEPS], tl.int32)
        for left in range(0, slots, SLOTS):
            slot = left + tl.arange(0, SLOTS)
            mask = inside[:, None] & (slot < slots)[None, :]
            at = row[:, None] * slots + slot[None, :]
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

"""What a batch of continuous values tells of itself as one Triton kernel; a program handles a sample."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.tiles import dense
from deeplift_fast.ops.triton.token_survey import survey_tile


def value_survey(values: Tensor, times: Tensor, neutral: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.value_survey`."""
    values, times = dense(values, times)
    batch, steps, size = values.shape
    filled, real = (torch.empty_like(times, dtype=torch.bool) for _ in range(2))
    baseline, bad = torch.empty_like(values), filled.new_empty(batch)
    ends = torch.empty_like(bad, dtype=torch.int64)
    if batch:
        high, wide = survey_tile(steps, size)
        with torch.cuda.device_of(values):
            _value_survey_kernel[(batch,)](
                values, times, filled, real, baseline, ends, bad, steps, size, neutral, high, wide, num_warps=4
            )
    return filled, real, baseline, ends, bad


@triton.jit
def _value_survey_kernel(
    values: tl.tensor, times: tl.tensor, filled: tl.tensor, real: tl.tensor, baseline: tl.tensor, ends: tl.tensor,
    bad: tl.tensor, steps: tl.tensor, size: tl.tensor, NEUTRAL: tl.constexpr, STEPS: tl.constexpr, SIZE: tl.constexpr,
) -> None:  # fmt: skip
    sample = tl.program_id(0).to(tl.int64)
    last = tl.zeros([STEPS], tl.int32)
    wrong = tl.zeros([STEPS], tl.int32)
    for first in range(0, steps, STEPS):
        step = first + tl.arange(0, STEPS)
        inside = step < steps
        row = sample * steps + step
        time = tl.load(times + row, mask=inside, other=0.0)
        wrong = tl.maximum(wrong, tl.where(tl.abs(time) < float("inf"), 0, 1))  # 1 for NaN
        held = tl.zeros([STEPS], tl.int32)
        for left in range(0, size, SIZE):
            column = left + tl.arange(0, SIZE)
            mask = inside[:, None] & (column < size)[None, :]
            x = tl.load(values + (row[:, None] * size + column[None, :]), mask=mask, other=0.0)
            held = tl.maximum(held, tl.max((x != 0).to(tl.int32), 1))
            wrong = tl.maximum(wrong, tl.max(tl.where(tl.abs(x) < float("inf"), 0, 1), 1))
        tl.store(filled + row, held != 0, mask=inside)
        last = tl.maximum(last, tl.where((held != 0) | (time != 0), step + 1, 0))
    end = tl.max(last, 0)
    for first in range(0, steps, STEPS):
        step = first + tl.arange(0, STEPS)
        inside = step < steps
        row = sample * steps + step
        is_real = step < end
        tl.store(real + row, is_real, mask=inside)
        for left in range(0, size, SIZE):
            column = left + tl.arange(0, SIZE)
            mask = inside[:, None] & (column < size)[None, :]
            at = row[:, None] * size + column[None, :]
            x = tl.load(values + at, mask=mask, other=0.0)
            neutral = tl.full([STEPS, SIZE], NEUTRAL, x.dtype)
            tl.store(baseline + at, tl.where(is_real[:, None], neutral, x), mask=mask)
    tl.store(ends + sample, tl.maximum(end, 1).to(tl.int64))
    tl.store(bad + sample, tl.max(wrong, 0) != 0)

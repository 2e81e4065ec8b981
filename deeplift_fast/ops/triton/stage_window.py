"""StageNet's stages in the window that each sample's convolution sees, and the window weighted by them: one kernel."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import exponential
from deeplift_fast.ops.triton.recurrent_cells import read


def window_tile(dtype: torch.dtype, window: int, chunk: int) -> tuple[int, int]:
    """Steps of a window and units that a program takes at a time, powers of two."""
    high = triton.next_power_of_2(window)
    return high, min(triton.next_power_of_2(chunk), max(4096 // (max(dtype.itemsize, 4) * high), 4))


def stage_window(
    h: Tensor,
    h0: Tensor,
    log_p: Tensor,
    log_p0: Tensor,
    places: Tensor,
    places0: Tensor,
    rows: Tensor,
    rows0: Tensor,
    real: Tensor,
    levels: int,
    hidden: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.stage_window`."""
    samples, window = real.shape
    local, mean = h.new_empty(2, samples, window, hidden), h.new_empty(2, samples, hidden)
    last, log_stage = torch.empty_like(mean), h.new_empty(2, samples, window)
    given = [x.contiguous() for x in (h, h0, log_p, log_p0, places, places0, rows, rows0, real)]
    if samples and window and hidden:
        chunk = hidden // levels
        high, wide = window_tile(h.dtype, window, chunk)
        with torch.cuda.device_of(h):
            _kernel[samples, 2, levels](
                *given, local, mean, last, log_stage, samples,
                window, hidden, chunk, h.shape[1], h.shape[1] // levels, levels,
                triton.next_power_of_2(levels), high, wide, num_warps=4,
            )  # fmt: skip
    return local, mean, last, log_stage


@triton.jit(do_not_specialize=("samples",))
def _kernel(
    h: tl.tensor,
    h0: tl.tensor,
    log_p: tl.tensor,
    log_p0: tl.tensor,
    places: tl.tensor,
    places0: tl.tensor,
    rows: tl.tensor,
    rows0: tl.tensor,
    real: tl.tensor,
    local: tl.tensor,
    mean: tl.tensor,
    last: tl.tensor,
    log_stage: tl.tensor,
    samples: tl.tensor,
    window: tl.tensor,
    hidden: tl.tensor,
    chunk: tl.tensor,  # units of a level that weights have
    units: tl.tensor,
    padded: tl.tensor,  # units of a level in h
    levels: tl.tensor,
    LEVELS: tl.constexpr,
    WINDOW: tl.constexpr,
    UNITS: tl.constexpr,
) -> None:
    """A program has one level of one sample in one stream."""
    if tl.program_id(1) == 0:
        _stream(
            h, log_p, places, rows, real, local, mean, last, log_stage, 0,
            window, hidden, chunk, units, padded, levels, LEVELS, WINDOW, UNITS,
        )  # fmt: skip
    else:
        _stream(
            h0, log_p0, places0, rows0, real, local, mean, last, log_stage, samples,
            window, hidden, chunk, units, padded, levels, LEVELS, WINDOW, UNITS,
        )  # fmt: skip


@triton.jit
def _stream(
    h: tl.tensor,
    log_p: tl.tensor,
    places: tl.tensor,
    rows: tl.tensor,
    real: tl.tensor,
    local: tl.tensor,
    mean: tl.tensor,
    last: tl.tensor,
    log_stage: tl.tensor,
    first: tl.tensor,  # where the stream's samples begin in what is written
    window: tl.tensor,
    hidden: tl.tensor,
    chunk: tl.tensor,
    units: tl.tensor,
    padded: tl.tensor,
    levels: tl.tensor,
    LEVELS: tl.constexpr,
    WINDOW: tl.constexpr,
    UNITS: tl.constexpr,
) -> None:
    sample, level = tl.program_id(0).to(tl.int64), tl.program_id(2)
    step, kind = tl.arange(0, WINDOW), tl.arange(0, LEVELS)[None, :]
    inside = step < window
    at, out = sample * window + step, (first + sample) * window + step
    there = inside & (tl.load(real + at, mask=inside, other=0) != 0)
    row = tl.load(rows + at, mask=there, other=0)[:, None]
    valid = there[:, None] & (kind < levels)
    p = tl.where(valid, exponential(read(log_p + row * 2 * levels + kind, valid))[0], 0.0)
    # The mean of the cumulative sums of p.
    distance = tl.where(there, 1.0 - tl.sum(p * (levels - kind), 1) / levels, 0.0)
    so_far = tl.sum(tl.where(step[:, None] <= step[None, :], distance[:, None], 0.0), 0)
    shifted = tl.where(inside, so_far - tl.max(tl.where(inside, so_far, float("-inf")), 0), 0.0)
    total = tl.sum(tl.where(inside, exponential(shifted)[0], 0.0), 0)
    log_of = shifted - tl.log(total)
    tl.store(log_stage + out, log_of, mask=inside & (level == 0))
    stage = tl.where(inside, exponential(log_of)[0], 0.0)[:, None]

    place = tl.load(places + at, mask=there, other=0) * units + level * padded
    to = out * hidden + level * chunk
    of_sample = (first + sample) * hidden + level * chunk
    for start in range(0, chunk, UNITS):
        unit = start + tl.arange(0, UNITS)
        some = unit < chunk
        x = read(h + place[:, None] + unit[None, :], there[:, None] & some[None, :])
        weighted = x * stage
        tl.store(local + to[:, None] + unit[None, :], weighted, mask=inside[:, None] & some[None, :])
        tl.store(mean + of_sample + unit, tl.sum(weighted, 0) / window, mask=some)
        at_end = tl.sum(tl.where((step == window - 1)[:, None], x, 0.0), 0)
        tl.store(last + of_sample + unit, at_end, mask=some)

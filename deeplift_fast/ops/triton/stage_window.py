"""StageNet's stages in each sample's window, the weighted states and their multipliers, one kernel per direction."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import exponential, log_mean, midpoint, softmax_back
from deeplift_fast.ops.triton.tiles import computed_in, dense, launch, read


def window_tile(dtype: torch.dtype, window: int, chunk: int) -> tuple[int, int]:
    """Steps of a window and units that a program takes at a time, powers of two."""
    high = triton.next_power_of_2(max(window, 1))
    return high, min(triton.next_power_of_2(max(chunk, 1)), max(4096 // (max(dtype.itemsize, 4) * high), 4))


def stage_window(
    h: Tensor, h0: Tensor, log_p: Tensor, log_p0: Tensor, places: Tensor, places0: Tensor, rows: Tensor, rows0: Tensor,
    real: Tensor, levels: int, hidden: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See :func:`deeplift_fast.ops.stage_window`."""
    samples, window = real.shape
    found = [h.new_empty(2, samples, *size) for size in ((window, hidden), (hidden,), (hidden,), (window,))]
    streams = dense(h, log_p, places, rows), dense(h0, log_p0, places0, rows0)
    chunk, units = hidden // levels, h.shape[1]
    sizes = samples, window, hidden, chunk, units, units // levels, levels, *window_tile(h.dtype, window, chunk)
    grid = samples if window and hidden else 0, 2, levels
    launch(_kernel, grid, *dense(real), *streams, tuple(found), *sizes)
    return found[0], found[1], found[2], found[3]


@triton.jit(do_not_specialize=("samples",))
def _kernel(
    real, stream, stream0, results, samples, window, hidden, chunk,  # units of a level that weights have
    units, padded,  # units of a level in h
    LEVELS: tl.constexpr, WINDOW: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """A program handles one level of one sample in one stream."""
    sizes = window, hidden, chunk, units, padded
    if tl.program_id(1) == 0:
        _stream(real, stream, results, 0, sizes, LEVELS, WINDOW, UNITS)
    else:
        _stream(real, stream0, results, samples, sizes, LEVELS, WINDOW, UNITS)


@triton.jit
def _stream(real, stream, results, first, sizes, LEVELS: tl.constexpr, WINDOW: tl.constexpr, UNITS: tl.constexpr):
    """`first` is the index of the stream's first sample in the results."""
    h, log_p, places, rows = stream
    local, mean, last, log_stage = results
    window, hidden, chunk, units, padded = sizes
    sample, level = tl.program_id(0).to(tl.int64), tl.program_id(2)
    step = tl.arange(0, WINDOW)
    inside = step < window
    at, out = sample * window + step, (first + sample) * window + step
    there = inside & (tl.load(real + at, mask=inside, other=0) != 0)
    of_step = log_p + tl.load(rows + at, mask=there, other=0) * 2 * LEVELS
    # The mean of the cumulative sums of p.
    mean_sum = exponential(read(of_step, there))[0]
    for kind in tl.static_range(1, LEVELS):
        mean_sum += exponential(read(of_step + kind, there))[0] * ((LEVELS - kind) / LEVELS)
    distance = tl.where(there, 1.0 - mean_sum, 0.0)
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


def stage_window_backward(
    m_local: Tensor, m_mean: Tensor, m_last: Tensor, h: Tensor, h0: Tensor, places: Tensor, places0: Tensor,
    rows: Tensor, real: Tensor, log_stage: Tensor, log_p: Tensor, levels: int, half: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See :func:`deeplift_fast.ops.stage_window_backward`."""
    (samples, window, hidden), total, units = m_local.shape, len(log_p), h.shape[1]
    zeros = h.new_zeros(h.numel() + total * levels)  # one launch
    m_h, m_master = zeros[: h.numel()].view(h.shape), zeros[h.numel() :].view(total, levels)
    given, chunk = dense(m_local, m_mean, m_last, h, h0, places, places0, rows, real, log_stage), hidden // levels
    sizes = samples, window, hidden, chunk, units, units // levels, half, levels, *window_tile(h.dtype, window, chunk)
    launch(_backward_kernel, (samples if window and hidden else 0,), *given, m_h, m_master, *sizes)
    return m_h, m_master


@triton.jit(do_not_specialize=("samples",))
def _backward_kernel(
    m_local, m_mean, m_last, h, h0, places, places0, rows, real, log_stage, m_h, m_master, samples, window, hidden,
    chunk,  # units of a level that weights have
    units, padded,  # units of a level in h
    HALF: tl.constexpr, LEVELS: tl.constexpr, WINDOW: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """A program handles a sample; no two windows share a row of h."""
    sample, step = tl.program_id(0).to(tl.int64), tl.arange(0, WINDOW)
    inside = step < window
    at = sample * window + step
    there = inside & (tl.load(real + at, mask=inside, other=0) != 0)
    log_a = read(log_stage + at, inside)
    log_b = read(log_stage + samples * window + at, inside)
    stage = midpoint(exponential(log_a)[0], exponential(log_b)[0], HALF)[:, None]
    share = tl.where(inside, log_mean(log_a, log_b, HALF), 0.0)
    place = (tl.load(places + at, mask=there, other=0) * units)[:, None]
    place0 = (tl.load(places0 + at, mask=there, other=0) * units)[:, None]
    at_end = (step == window - 1)[:, None]
    m_stage = tl.zeros([WINDOW], computed_in(h.dtype.element_ty))
    blocks = tl.cdiv(chunk, UNITS)
    for block in range(LEVELS * blocks):
        level = block // blocks
        unit = block % blocks * UNITS + tl.arange(0, UNITS)
        some = unit < chunk
        to = level * chunk + unit
        of_h = (level * padded + unit)[None, :]
        mask = there[:, None] & some[None, :]
        m = read(m_local + (at * hidden)[:, None] + to[None, :], mask)
        m += (read(m_mean + sample * hidden + to, some) / window)[None, :]
        x = read(h + place + of_h, mask)
        if HALF != 0:
            x = midpoint(x, read(h0 + place0 + of_h, mask), HALF)
        m_stage += tl.sum(tl.where(mask, m * x, 0.0), 1)
        m = m * stage + tl.where(at_end, read(m_last + sample * hidden + to, some)[None, :], 0.0)
        tl.store(m_h + place + of_h, m, mask=mask)
    g = tl.where(inside, softmax_back(m_stage, share), 0.0)
    # The gradient of a cumulative sum is the sum over later steps.
    m_distance = tl.sum(tl.where(step[:, None] >= step[None, :], g[:, None], 0.0), 0)
    of_step = m_master + tl.load(rows + at, mask=there, other=0) * LEVELS
    for kind in tl.static_range(LEVELS):
        tl.store(of_step + kind, -m_distance / LEVELS, mask=there)

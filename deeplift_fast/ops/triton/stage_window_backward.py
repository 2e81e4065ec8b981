"""Multipliers of StageNet's states and master gates, from those of its convolution's window, in one kernel."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import exponential, log_mean, midpoint, softmax_back
from deeplift_fast.ops.triton.recurrent_cells import read
from deeplift_fast.ops.triton.stage_window import window_tile


def stage_window_backward(
    m_local: Tensor,
    m_mean: Tensor,
    m_last: Tensor,
    h: Tensor,
    h0: Tensor,
    places: Tensor,
    places0: Tensor,
    rows: Tensor,
    real: Tensor,
    log_stage: Tensor,
    log_p: Tensor,
    levels: int,
    half: float,
) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.stage_window_backward`."""
    (samples, window, hidden), total = m_local.shape, len(log_p)
    zeros = h.new_zeros(h.numel() + total * levels)  # one launch
    m_h, m_master = zeros[: h.numel()].view(h.shape), zeros[h.numel() :].view(total, levels)
    given = (m_local, m_mean, m_last, h, h0, places, places0, rows, real, log_stage)
    if samples and window and hidden:
        chunk = hidden // levels
        high, wide = window_tile(h.dtype, window, chunk)
        with torch.cuda.device_of(h):
            _kernel[(samples,)](
                *(x.contiguous() for x in given), m_h, m_master,
                samples, window, hidden, chunk, h.shape[1], h.shape[1] // levels, levels,
                half, triton.next_power_of_2(levels), high, wide, num_warps=4,
            )  # fmt: skip
    return m_h, m_master


@triton.jit(do_not_specialize=("samples",))
def _kernel(
    m_local: tl.tensor,
    m_mean: tl.tensor,
    m_last: tl.tensor,
    h: tl.tensor,
    h0: tl.tensor,
    places: tl.tensor,
    places0: tl.tensor,
    rows: tl.tensor,
    real: tl.tensor,
    log_stage: tl.tensor,
    m_h: tl.tensor,
    m_master: tl.tensor,
    samples: tl.tensor,
    window: tl.tensor,
    hidden: tl.tensor,
    chunk: tl.tensor,  # units of a level that weights have
    units: tl.tensor,
    padded: tl.tensor,  # units of a level in h
    levels: tl.tensor,
    HALF: tl.constexpr,
    LEVELS: tl.constexpr,
    WINDOW: tl.constexpr,
    UNITS: tl.constexpr,
) -> None:
    """A program has a sample; each row of h is in the window of one sample at most."""
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
    dtype: tl.constexpr = tl.float64 if h.dtype.element_ty == tl.float64 else tl.float32
    m_stage = tl.zeros([WINDOW], dtype)
    blocks = tl.cdiv(chunk, UNITS)
    for block in range(levels * blocks):
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
    # The distances add up from step to step.
    m_distance = tl.sum(tl.where(step[:, None] >= step[None, :], g[:, None], 0.0), 0)
    kind = tl.arange(0, LEVELS)[None, :]
    to_rows = m_master + (tl.load(rows + at, mask=there, other=0) * levels)[:, None] + kind
    found = tl.broadcast_to((-m_distance / levels)[:, None], (WINDOW, LEVELS))
    tl.store(to_rows, found, mask=there[:, None] & (kind < levels))

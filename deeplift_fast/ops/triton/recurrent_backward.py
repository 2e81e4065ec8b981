"""Multipliers of recurrent layers on CUDA: one kernel and one matrix product of each step, backwards.

The multipliers of all inputs are one matrix product after the steps.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.cells import COEFFICIENTS, GATES
from deeplift_fast.ops.memory import adjoined
from deeplift_fast.ops.triton.activations import softmax_back
from deeplift_fast.ops.triton.recurrent import ALIGNED, cells_of, elements_of, tile
from deeplift_fast.ops.triton.recurrent_cells import read


def recurrent_backward(
    m_h: Tensor,
    m_master: Tensor,
    coefficients: Tensor,
    shares: Tensor,
    counts: Tensor,
    back_u: Tensor,
    back_h: Tensor,
    back_master_u: Tensor,
    back_master_h: Tensor,
    levels: int,
    cell: str,
    inputs: int,
) -> Tensor:
    """See :func:`deeplift_fast.ops.recurrent_backward`."""
    (rows, units), steps = m_h.shape, counts.tolist()
    lanes = back_u.shape[-1] // 4
    m_u = m_h.new_empty(rows, triton.cdiv(inputs, lanes) * lanes)
    if not rows or not units:
        return m_u.zero_()
    to_u, to_h = _back(back_u, back_master_u, units, m_u.shape[1]), _back(back_h, back_master_h, units, units)
    gates = GATES[cell][0] * units
    columns = gates + 2 * levels
    d = m_h.new_empty(rows, triton.cdiv(columns, ALIGNED) * ALIGNED)
    of_u = d[:, : len(to_u)]  # a GRU's gates of the input are the first three, those of the state the last three
    of_h = d[:, columns - len(to_h) : columns]
    carried = m_h.new_empty(steps[0], units)
    cells = cells_of(m_h, (steps[0], units), cell)
    m_h, m_master, coefficients, shares = (x.contiguous() for x in (m_h, m_master, coefficients, shares))
    last, later = rows, 0
    with torch.cuda.device_of(m_h):
        for count in reversed(steps):
            first = last - count
            if levels:
                step_back_stagenet(m_h, m_master, shares, carried, cells, coefficients, d, count, later, first)
            else:
                _step_back(m_h, carried, cells, coefficients, d, count, later, first, cell)
            if first:
                to = carried[:count]
                # What a GRU's state adds past the gates lies there already.
                torch.addmm(to, of_h[first:last], to_h, beta=int(cell == "gru"), out=to)
            last, later = first, count
        return torch.mm(of_u, to_u, out=m_u)


def step_back_stagenet(
    m_h: Tensor,
    m_master: Tensor,
    shares: Tensor,
    carried: Tensor,
    cells: Tensor,
    coefficients: Tensor,
    d: Tensor,
    count: int,
    later: int,
    first: int,
    layers: tuple[int, int, int] = (1, 1, 0),
) -> None:
    """Of `layers`: how many have the step, how many the one after it, and rows from one to the next."""
    going, further, stride = layers
    units, levels = m_h.shape[1], m_master.shape[1]
    by_level, chunk = triton.next_power_of_2(levels), units // levels
    wide = min(triton.next_power_of_2(chunk), max(elements_of(m_h.dtype) // by_level, 1))
    stagenet_backward_kernel[(count, going)](
        m_h, m_master, shares, carried, cells, coefficients, d,
        count, later, first, further, units, chunk, levels, d.shape[1], stride, by_level, wide, num_warps=4,
    )  # fmt: skip


def _step_back(
    m_h: Tensor,
    carried: Tensor,
    cells: Tensor,
    coefficients: Tensor,
    d: Tensor,
    count: int,
    later: int,
    first: int,
    cell: str,
) -> None:
    units = m_h.shape[1]
    high, wide = tile(elements_of(m_h.dtype), units)
    backward_kernel[triton.cdiv(count, high), triton.cdiv(units, wide)](
        m_h, carried, cells, coefficients, d,
        count, later, first, units, d.shape[1], cell, COEFFICIENTS[cell], high, wide, num_warps=4,
    )  # fmt: skip


def _back(back: Tensor, masters: Tensor, units: int, width: int) -> Tensor:
    """`[gates · units + masters, width]`; no copy of one panel that the masters follow in memory, if there are any."""
    across, panels, rows, wide = back.shape
    lanes = units // panels
    by_gate = back.reshape(across, panels, rows // lanes, lanes, wide).permute(2, 1, 3, 0, 4)
    flat = by_gate.reshape(rows * panels, across * wide)[:, :width]
    if not masters.shape[1]:
        return flat
    past = masters.transpose(0, 1).reshape(masters.shape[1], -1)[:, :width]
    both = adjoined(flat, past, 0)
    return torch.cat([flat, past]) if both is None else both


@triton.jit(do_not_specialize=("count", "later", "first"))
def backward_kernel(
    m_h: tl.tensor,
    carried: tl.tensor,  # multipliers of h from the step after, [samples, units]
    carried_c: tl.tensor,
    coefficients: tl.tensor,
    d: tl.tensor,  # multipliers of the pre-activations, [rows, width]
    count: tl.tensor,
    later: tl.tensor,  # samples that have a step after
    first: tl.tensor,
    units: tl.tensor,
    width: tl.tensor,
    CELL: tl.constexpr,
    COUNT: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
) -> None:
    """One step back of a cell other than StageNet's; a program has some rows and some units."""
    sample = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    unit = (tl.program_id(1) * UNITS + tl.arange(0, UNITS))[None, :]
    inside = (sample < count)[:, None] & (unit < units)
    follows = inside & (sample < later)[:, None]
    own, row = (sample * units)[:, None] + unit, first + sample
    k, to = coefficients + (row * COUNT * units)[:, None] + unit, d + (row * width)[:, None] + unit
    m = read(m_h + (row * units)[:, None] + unit, inside) + read(carried + own, follows)
    if CELL == "gru":
        for gate in tl.static_range(4):
            tl.store(to + gate * units, m * read(k + gate * units, inside), mask=inside)
        tl.store(carried + own, m * read(k + 4 * units, inside), mask=inside)
    elif CELL == "lstm":
        c = _four_gates_back(k, to, m, read(carried_c + own, follows), units, inside)
        tl.store(carried_c + own, c * read(k + 2 * units, inside), mask=inside)
    else:
        tl.store(to, m * read(k, inside), mask=inside)


@triton.jit(do_not_specialize=("count", "later", "first", "further", "stride"))
def stagenet_backward_kernel(
    m_h: tl.tensor,
    m_master: tl.tensor,
    shares: tl.tensor,
    carried: tl.tensor,
    carried_c: tl.tensor,
    coefficients: tl.tensor,
    d: tl.tensor,
    count: tl.tensor,
    later: tl.tensor,
    first: tl.tensor,
    further: tl.tensor,  # layers that have a step after
    units: tl.tensor,
    chunk: tl.tensor,
    levels: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,  # rows from one layer to the next
    LEVELS: tl.constexpr,
    UNITS: tl.constexpr,
) -> None:
    """One step back of StageNet's cell; a program has a row: its master gates need the sums over each level's units.

    Layers of one size may go back in lockstep: `count` samples of each.
    """
    sample, layer = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    row, level = layer * stride + first + sample, tl.arange(0, LEVELS).to(tl.int64)
    there, follows = level < levels, (sample < later) & (layer < further)
    k, to = coefficients + row * 8 * units, d + row * width
    dtype: tl.constexpr = tl.float64 if m_h.dtype.element_ty == tl.float64 else tl.float32
    forget, into = tl.zeros([LEVELS], dtype), tl.zeros([LEVELS], dtype)
    for start in range(0, chunk, UNITS):
        inner = start + tl.arange(0, UNITS)
        inside = there[:, None] & (inner < chunk)[None, :]
        unit = (level * chunk)[:, None] + inner[None, :]
        own = (layer * count + sample) * units + unit
        m = read(m_h + row * units + unit, inside) + read(carried + own, inside & follows)
        c = _four_gates_back(k + unit, to + unit, m, read(carried_c + own, inside & follows), units, inside)
        tl.store(carried_c + own, c * read(k + 2 * units + unit, inside), mask=inside)
        forget += tl.sum(c * read(k + 6 * units + unit, inside), 1)
        into += tl.sum(c * read(k + 7 * units + unit, inside), 1)
    forget += read(m_master + row * levels + level, there)
    # A gate sums its softmax up to, or from, its level on; here the other way around.
    up = level[None, :] <= level[:, None]
    g_forget = tl.sum(tl.where(up, forget[:, None], 0.0), 0)
    g_into = tl.sum(tl.where(up, into[None, :], 0.0), 1)
    share = shares + row * 2 * levels + level
    past = to + 4 * units + level
    tl.store(past, softmax_back(g_forget, read(share, there)), mask=there)
    tl.store(past + levels, softmax_back(g_into, read(share + levels, there)), mask=there)


@triton.jit
def _four_gates_back(
    k: tl.tensor, to: tl.tensor, m_h: tl.tensor, m_c: tl.tensor, units: tl.tensor, inside: tl.tensor
) -> tl.tensor:
    """Stores the multipliers of the pre-activations; returns that of c."""
    c = m_c + m_h * read(k + units, inside)
    tl.store(to, c * read(k + 3 * units, inside), mask=inside)
    tl.store(to + units, c * read(k + 4 * units, inside), mask=inside)
    tl.store(to + 2 * units, m_h * read(k, inside), mask=inside)
    tl.store(to + 3 * units, c * read(k + 5 * units, inside), mask=inside)
    return c

"""Recurrent layers on CUDA and their multipliers: at each step one matrix product and one kernel, in both directions.

The inputs are projected by one matrix product before the steps, or by two if the streams' inputs are not adjoined. One
matrix holds the states of both streams, the baselines before the samples and in reverse order, so that the remaining
sequences stay together as others end. In the backward op one matrix product after the steps gives the multipliers of
all inputs.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.adjoined import adjoined
from deeplift_fast.ops.cells import COEFFICIENTS, GATES
from deeplift_fast.ops.triton.activations import softmax_back
from deeplift_fast.ops.triton.recurrent_cells import forward_kernel, read

ALIGNED = 16  # columns: a row of them is a multiple of the widest load's 16 bytes, and suits matrix products


def elements_of(dtype: torch.dtype) -> int:
    """The elements of a program's tile: one load of 16 bytes for each of 128 threads."""
    return 2048 // dtype.itemsize


def tile(elements: int, units: int) -> tuple[int, int]:
    """Rows and units of a program, powers of two; rows are whole if they fit."""
    wide = min(triton.next_power_of_2(units), max(elements // 4, 1))
    return elements // wide, wide


def forward_tile(dtype: torch.dtype, units: int, cell: str) -> tuple[int, int]:
    """The tile of the forward kernel, which holds more numbers at a time.

    A thread loads 8 bytes instead of 16 if it would need more than 128 registers: in gated cells of half types (8
    numbers, 147 to 193 registers) and in StageNet's of float64 (2 numbers, 143 registers).
    """
    elements = elements_of(dtype)
    if cell not in ("rnn_tanh", "rnn_relu"):
        elements = min(elements, 512)
    return tile(elements // 2 if dtype == torch.float64 and cell == "stagenet" else elements, units)


def forward_options(dtype: torch.dtype, cell: str, slope: str, nvidia: bool) -> dict[str, Any]:
    """The options that the forward kernel is compiled with."""
    options: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": slope != "pyhealth"}  # PyHealth rounds y² by itself
    if nvidia and cell == "gru" and dtype == torch.float64:
        options["maxnreg"] = 128  # sm_100 would use 130; nothing is spilled
    return options


def recurrent(
    u: Tensor, u0: Tensor, where: Tensor, counts: Tensor, counts0: Tensor, weight_u: Tensor, weight_h: Tensor,
    bias: Tensor, master_u: Tensor, master_h: Tensor, master_bias: Tensor, coefficients: Tensor, levels: int,
    cell: str, slope: str, half: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See :func:`deeplift_fast.ops.recurrent`."""
    rows, rows0, units = len(u), len(u0), bias.shape[0] * bias.shape[2]
    h, h0 = u.new_empty(rows, units), u.new_empty(rows0, units)
    log_p, log_p0 = u.new_empty(rows, 2 * levels), u.new_empty(rows0, 2 * levels)
    steps, steps0 = counts.tolist(), counts0.tolist()
    if not rows or not units:
        return h, h0, log_p, log_p0
    width = min(master_bias.shape[0], triton.cdiv(2 * levels, ALIGNED) * ALIGNED)
    to_gates, to_gates0 = (_stacked(w, m[:, :width]) for w, m in ((weight_u, master_u), (weight_h, master_h)))
    projected, both = u.new_empty(rows + rows0, to_gates.shape[1]), adjoined(u, u0, 0)
    for given, out in ((u, projected[:rows]), (u0, projected[rows:])) if both is None else ((both, projected),):
        torch.mm(given, to_gates, out=out)
    samples, centre = steps[0] + steps0[0], steps0[0]
    product = u.new_empty(samples, to_gates0.shape[1])
    states = u.new_empty(2, samples, units)
    cells = cells_of(u, (2, samples, units), cell)
    chunk = units // max(levels, 1)
    high, wide = forward_tile(u.dtype, chunk, cell)
    first = first0 = 0
    kept = coefficients.contiguous()
    bias, master_bias, where = bias.permute(1, 0, 2).contiguous(), master_bias.contiguous(), where.contiguous()
    with torch.cuda.device_of(u):  # a launch uses the current device
        for t, (count, count0) in enumerate(zip(steps, steps0, strict=True)):
            old, new = t % 2, 1 - t % 2
            if t:
                going = states[old, centre - count0 : centre + count]
                torch.mm(going, to_gates0, out=product[: count + count0])
            grid = (triton.cdiv(count + count0, high), max(levels, 1) * triton.cdiv(chunk, wide))
            forward_kernel[grid](
                projected, product, bias, master_bias, where,
                states[old], cells[old], states[new], cells[new], h, h0, kept, log_p, log_p0,
                count, count0, centre, rows, first, first0, t, units, chunk, levels,
                projected.shape[1], product.shape[1], samples, rows, 0,
                cell, slope, half, COEFFICIENTS[cell], triton.next_power_of_2(max(levels, 1)), high, wide,
                **forward_options(u.dtype, cell, slope, torch.version.hip is None),
            )  # fmt: skip
            first, first0 = first + count, first0 + count0
    if kept is not coefficients:
        coefficients.copy_(kept)
    return h, h0, log_p, log_p0


def cells_of(like: Tensor, shape: tuple[int, ...], cell: str) -> Tensor:
    """An uninitialised tensor for the states c, in the dtype that the kernels compute in; empty for cells without c."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.empty(shape if cell in ("stagenet", "lstm") else (*shape[:-1], 0), dtype=dtype, device=like.device)


def _stacked(weight: Tensor, masters: Tensor) -> Tensor:
    """`[inputs, gates · units + masters]`; a view if there is one panel and any masters are adjoined to it."""
    panels, inputs, gates, lanes = weight.shape
    flat = weight.permute(1, 2, 0, 3).reshape(inputs, panels * gates * lanes)
    if not masters.shape[1]:
        return flat
    both = adjoined(flat, masters, 1)
    return torch.cat([flat, masters], 1) if both is None else both


def recurrent_backward(
    m_h: Tensor, m_master: Tensor, coefficients: Tensor, shares: Tensor, counts: Tensor, back_u: Tensor,
    back_h: Tensor, back_master_u: Tensor, back_master_h: Tensor, levels: int, cell: str, inputs: int,
) -> Tensor:  # fmt: skip
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
    of_u = d[:, : len(to_u)]  # the input has a GRU's first three gates, the state its last three
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
                # For a GRU, `to` already holds the part that skips the gates.
                torch.addmm(to, of_h[first:last], to_h, beta=int(cell == "gru"), out=to)
            last, later = first, count
        return torch.mm(of_u, to_u, out=m_u)


def step_back_stagenet(
    m_h: Tensor, m_master: Tensor, shares: Tensor, carried: Tensor, cells: Tensor, coefficients: Tensor, d: Tensor,
    count: int, later: int, first: int, layers: tuple[int, int, int] = (1, 1, 0),
) -> None:  # fmt: skip
    """One step back of StageNet's cell.

    `layers` holds the number of layers with this step, the number with the next one, and the rows between layers.
    """
    going, further, stride = layers
    units, levels = m_h.shape[1], m_master.shape[1]
    by_level, chunk = triton.next_power_of_2(levels), units // levels
    wide = min(triton.next_power_of_2(chunk), max(elements_of(m_h.dtype) // by_level, 1))
    stagenet_backward_kernel[(count, going)](
        m_h, m_master, shares, carried, cells, coefficients, d,
        count, later, first, further, units, chunk, levels, d.shape[1], stride, by_level, wide, num_warps=4,
    )  # fmt: skip


def _step_back(
    m_h: Tensor, carried: Tensor, cells: Tensor, coefficients: Tensor, d: Tensor, count: int, later: int, first: int,
    cell: str,
) -> None:  # fmt: skip
    units = m_h.shape[1]
    high, wide = tile(elements_of(m_h.dtype), units)
    backward_kernel[triton.cdiv(count, high), triton.cdiv(units, wide)](
        m_h, carried, cells, coefficients, d,
        count, later, first, units, d.shape[1], cell, COEFFICIENTS[cell], high, wide, num_warps=4,
    )  # fmt: skip


def _back(back: Tensor, masters: Tensor, units: int, width: int) -> Tensor:
    """`[gates · units + masters, width]`; a view if there is one panel and any masters are adjoined to it."""
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
    m_h: tl.tensor, carried: tl.tensor,  # multipliers of h from the step after, [samples, units]
    carried_c: tl.tensor, coefficients: tl.tensor, d: tl.tensor,  # multipliers of the pre-activations, [rows, width]
    count: tl.tensor, later: tl.tensor,  # samples that have a step after
    first: tl.tensor, units: tl.tensor, width: tl.tensor, CELL: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr,
    UNITS: tl.constexpr,
) -> None:  # fmt: skip
    """One step back of a cell other than StageNet's; a program handles some rows and some units."""
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
    m_h: tl.tensor, m_master: tl.tensor, shares: tl.tensor, carried: tl.tensor, carried_c: tl.tensor,
    coefficients: tl.tensor, d: tl.tensor, count: tl.tensor, later: tl.tensor, first: tl.tensor,
    further: tl.tensor,  # layers that have a step after
    units: tl.tensor, chunk: tl.tensor, levels: tl.tensor, width: tl.tensor,
    stride: tl.tensor,  # rows from one layer to the next
    LEVELS: tl.constexpr, UNITS: tl.constexpr,
) -> None:  # fmt: skip
    """One step back of StageNet's cell; a program handles a row, whose master gates need sums over each level's units.

    Layers of one size may go back in lockstep, with `count` samples each.
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
    # A gate sums its softmax up to its level, or from its level on; multipliers take the opposite direction.
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

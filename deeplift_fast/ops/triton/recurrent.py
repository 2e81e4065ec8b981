"""Recurrent layers on CUDA and their multipliers: at each step one kernel, in both directions.

The inputs are projected by one matrix product before the steps, or by two if the streams' inputs are not adjoined. In
the backward op one matrix product after the steps gives the multipliers of all inputs.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from deeplift_fast.ops.adjoined import adjoined
from deeplift_fast.ops.cells import COEFFICIENTS, GATES
from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.triton.recurrent_back import backward_kernel
from deeplift_fast.ops.triton.recurrent_cells import forward_kernel
from deeplift_fast.ops.triton.tiles import dense, products

MANY = 1024  # samples of all layers from which larger tiles, which read less, still fill a device
ALIGNED = 16  # columns: a row of them is a multiple of the widest load's 16 bytes, and suits matrix products


# `order`, `lengths`, and `column_of` in four bits each, as in `lockstep`, and the number of columns.
Turns = tuple[Tensor | None, Tensor | None, int, int]
IN_ORDER: Turns = (None, None, 0, 0)


def recurrent(
    u: Tensor, u0: Tensor, where: Tensor, counts: Tensor, counts0: Tensor, weight_u: Tensor, weight_h: Tensor,
    bias: Tensor, master_u: Tensor, master_h: Tensor, master_bias: Tensor, coefficients: Tensor, levels: int,
    cell: str, slope: str, half: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See :func:`deeplift_fast.ops.recurrent`."""
    rows, rows0 = len(u), len(u0)
    steps = [(count, count0, 1) for count, count0 in zip(counts.tolist(), counts0.tolist(), strict=True)]
    width = min(master_bias.shape[0], triton.cdiv(2 * levels, ALIGNED) * ALIGNED)
    to_gates, to_gates0 = (_stacked(w, m[:, :width]) for w, m in ((weight_u, master_u), (weight_h, master_h)))
    projected, both = u.new_empty(rows + rows0, to_gates.shape[1]), adjoined(u, u0, 0)
    for given, out in ((u, projected[:rows]), (u0, projected[rows:])) if both is None else ((both, projected),):
        torch.mm(given, to_gates, out=out)
    biases = bias.permute(1, 0, 2).contiguous().view(1, -1), master_bias.contiguous()[None]
    kinds = levels, cell, slope, half
    return steps_forward(projected, where, to_gates0[None], biases, coefficients, steps, kinds)


def steps_forward(
    projected: Tensor, where: Tensor, weight: Tensor, biases: tuple[Tensor, Tensor], coefficients: Tensor,
    steps: Sequence[tuple[int, int, int]], kinds: tuple[int, str, str, float], turns: Turns = IN_ORDER,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """All steps of layers of one size, from projected inputs of both streams; returns `(h, h0, log_p, log_p0)`.

    `weight` is `[layers, units, gates · units + masters]`; the biases of gates and masters are `[layers, …]`. `steps`
    holds for each step the samples and the baselines of a layer, and the number of layers.
    """
    (levels, cell, slope, half), (order, lengths, columns, across) = kinds, turns
    rows, rows0, units = len(coefficients), len(projected) - len(coefficients), coefficients.shape[2]
    h, h0 = projected.new_empty(rows, units), projected.new_empty(rows0, units)
    log_p, log_p0 = projected.new_empty(rows, 2 * levels), projected.new_empty(rows0, 2 * levels)
    if not rows or not units:
        return h, h0, log_p, log_p0
    (samples, centre, layers), (bias, master_bias) = steps[0], biases
    stride, chunk = sum(count for count, _, _ in steps), units // max(levels, 1)
    kept, (where,) = coefficients.contiguous(), dense(where)
    with_c = units if cell in ("stagenet", "lstm") else 0
    cells = projected.new_empty(2, layers, centre + samples, with_c, dtype=computed(projected.dtype))
    multiplied = products(projected.dtype, torch.version.hip is None)
    sizes = projected.dtype, cell, slope, levels
    kinds_of_tile = [forward_constants(*sizes, shared, samples * layers >= MANY) for shared in (False, True)]
    first = first0 = before = before0 = 0
    with torch.cuda.device_of(projected):  # a launch uses the current device
        for t, (count, count0, going) in enumerate(steps):
            ordered = lengths is not None
            shared = count0 == 1 and not ordered
            constants = kinds_of_tile[shared]
            pairs = constants["ROWS"] - 1 if shared else constants["ROWS"] // 2
            tiles = triton.cdiv(count, pairs) + (0 if shared or ordered else triton.cdiv(count0, pairs))
            forward_kernel[tiles, max(levels, 1) * triton.cdiv(chunk, constants["UNITS"]), going](
                projected, weight, bias, master_bias, where, order, lengths, cells[t % 2], cells[1 - t % 2], h, h0,
                kept, log_p, log_p0, count, count0, rows, first, first0, before, before0, t, columns, across,
                units if t else 0, units, chunk, levels, projected.shape[1], weight.stride(1), weight.stride(2),
                weight.stride(0), bias.stride(0), centre + samples, centre, stride, HALF=half, **constants,
                **multiplied,
            )  # fmt: skip
            before, before0, first, first0 = first, first0, first + count, first0 + count0
    if kept is not coefficients:
        coefficients.copy_(kept)
    return h, h0, log_p, log_p0


def forward_constants(
    dtype: torch.dtype, cell: str, slope: str, levels: int, shared: bool, many: bool
) -> dict[str, Any]:
    """The constants and options that the forward kernel is compiled with."""
    rows, block = (32, 16) if dtype == torch.float64 else (64, 16 if dtype == torch.float32 else 32)
    rows, warps = (128, 8) if many and not shared and rows == 64 else (rows, 8 if shared else 4)
    return {
        "CELL": cell, "SLOPE": slope, "GATES": GATES[cell][2], "COUNT": COEFFICIENTS[cell], "SHARED": shared,
        "LEVELS": max(triton.next_power_of_2(levels), 8), "ROWS": rows, "UNITS": 16, "BLOCK": block,
        "num_warps": warps, "num_stages": 3,
        "enable_fp_fusion": slope != "pyhealth",  # PyHealth rounds y² by itself
    }  # fmt: skip


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
    rows, units = m_h.shape
    lanes = back_u.shape[-1] // 4
    m_u = m_h.new_empty(rows, triton.cdiv(inputs, lanes) * lanes)
    if not rows or not units:
        return m_u.zero_()
    to_u, to_h = _back(back_u, back_master_u, units, m_u.shape[1]), _back(back_h, back_master_h, units, units)
    columns = GATES[cell][0] * units + 2 * levels
    d = m_h.new_empty(rows, triton.cdiv(columns, ALIGNED) * ALIGNED)
    given, steps = (m_h, m_master, coefficients, shares), [(count, 1) for count in counts.tolist()]
    steps_backward(given, to_h[None], d, steps, levels, cell)
    return torch.mm(d[:, : len(to_u)], to_u, out=m_u)  # a GRU's input has its first three gates


def steps_backward(
    given: tuple[Tensor, ...], weight: Tensor, d: Tensor, steps: Sequence[tuple[int, int]], levels: int, cell: str,
    turns: Turns = IN_ORDER,
) -> None:  # fmt: skip
    """All steps back of layers of one size: writes the multipliers of their pre-activations to `d`, `[rows, columns]`.

    `given` holds multipliers of states and of forget master gates, coefficients and shares; `weight` is `[layers, gates
    of the state · units + masters, units]`; `steps` holds for each step the samples of a layer, and the layers.
    """
    (m_h, m_master, coefficients, shares), (order, lengths, columns, across) = dense(*given), turns
    (samples, layers), units = steps[0], m_h.shape[1]
    chunk, known = units // max(levels, 1), weight.shape[1] - 2 * levels
    constants = backward_constants(m_h.dtype, cell, levels, samples * layers >= MANY)
    high, blocks = constants["ROWS"], max(levels, 1) * triton.cdiv(chunk, constants["UNITS"])
    kept, wide = (0 if cell.startswith("rnn") else units), computed(m_h.dtype)
    carried = m_h.new_empty(layers, samples, kept, dtype=wide)
    sums = m_h.new_empty(2, layers, 2, blocks if levels else 0, samples, dtype=wide)
    multiplied = products(m_h.dtype, torch.version.hip is None)
    first = stride = sum(count for count, _ in steps)
    later = further = 0
    # A last launch without samples finishes the master gates of the first step.
    launches = [*reversed(steps), (0, layers)] if levels else [*reversed(steps)]
    with torch.cuda.device_of(m_h):
        for t, (count, going) in enumerate(launches):
            first -= count
            backward_kernel[triton.cdiv(count or later, high), blocks if count else 1, going](
                m_h, m_master, shares, carried, sums[t % 2], sums[1 - t % 2], coefficients, d, weight,
                order, lengths, count, later, first, further, len(steps) - 1 - t, columns, across,
                known if t and count else 0, GATES[cell][0] * units - known, units, chunk, levels, d.shape[1],
                weight.stride(1), weight.stride(2), weight.stride(0), samples, stride, **constants, **multiplied,
            )  # fmt: skip
            later, further = count, going


def backward_constants(dtype: torch.dtype, cell: str, levels: int, many: bool) -> dict[str, Any]:
    """The constants and options that the backward kernel is compiled with."""
    rows, wide, block, warps = (16, 16, 16, 4) if dtype == torch.float64 else (64, 64 if many else 16, 32, 8)
    return {
        "CELL": cell, "COUNT": COEFFICIENTS[cell], "LEVELS": levels, "ROWS": rows, "UNITS": wide, "BLOCK": block,
        "MASTERS": max(triton.next_power_of_2(2 * levels), 16), "num_warps": warps, "num_stages": 3,
    }  # fmt: skip


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

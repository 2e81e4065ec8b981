"""Recurrent layers on CUDA: one matrix product and one kernel of each step.

The inputs' projection is one matrix product before the steps, or two where the streams' inputs lie apart. Both streams'
states lie in one matrix, the baselines before the samples and in reverse order: as sequences end, the rows that go on
stay together.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from deeplift_fast.ops.cells import COEFFICIENTS
from deeplift_fast.ops.memory import adjoined
from deeplift_fast.ops.triton.recurrent_cells import forward_kernel

ALIGNED = 16  # columns: a row of them is a multiple of the widest load's 16 bytes, and of what matrix products like


def elements_of(dtype: torch.dtype) -> int:
    """Of a program's tile: for each of 128 threads as many as the widest load, of 16 bytes, brings."""
    return 2048 // dtype.itemsize


def tile(elements: int, units: int) -> tuple[int, int]:
    """Rows and units of a program, powers of two: whole rows as far as they fit."""
    wide = min(triton.next_power_of_2(units), max(elements // 4, 1))
    return elements // wide, wide


def forward_tile(dtype: torch.dtype, units: int, cell: str) -> tuple[int, int]:
    """That of the forward kernel, which holds more numbers at a time.

    Where loads of 16 bytes would take more than 128 registers of a thread, or spill if held to that, they are of 8:
    those of gated cells in half types (8 numbers, 147 to 193 registers) and of StageNet's in float64 (2, 143).
    """
    elements = elements_of(dtype)
    if cell not in ("rnn_tanh", "rnn_relu"):
        elements = min(elements, 512)
    return tile(elements // 2 if dtype == torch.float64 and cell == "stagenet" else elements, units)


def forward_options(dtype: torch.dtype, cell: str, slope: str, nvidia: bool) -> dict[str, Any]:
    """How the forward kernel is compiled."""
    options: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": slope != "pyhealth"}  # PyHealth rounds y² by itself
    if nvidia and cell == "gru" and dtype == torch.float64:
        options["maxnreg"] = 128  # 130 for sm_100 if left alone; nothing is spilled
    return options


def recurrent(
    u: Tensor,
    u0: Tensor,
    where: Tensor,
    counts: Tensor,
    counts0: Tensor,
    weight_u: Tensor,
    weight_h: Tensor,
    bias: Tensor,
    master_u: Tensor,
    master_h: Tensor,
    master_bias: Tensor,
    coefficients: Tensor,
    levels: int,
    cell: str,
    slope: str,
    half: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
    with torch.cuda.device_of(u):  # a launch goes to the current device, which may not be the tensors'
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
    """Memory for what a cell carries besides h, in the dtype that the kernels compute in; empty where it does not."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.empty(shape if cell in ("stagenet", "lstm") else (*shape[:-1], 0), dtype=dtype, device=like.device)


def _stacked(weight: Tensor, masters: Tensor) -> Tensor:
    """`[inputs, gates · units + masters]`; no copy of one panel that the masters follow in memory, if there are any."""
    panels, inputs, gates, lanes = weight.shape
    flat = weight.permute(1, 2, 0, 3).reshape(inputs, panels * gates * lanes)
    if not masters.shape[1]:
        return flat
    both = adjoined(flat, masters, 1)
    return torch.cat([flat, masters], 1) if both is None else both

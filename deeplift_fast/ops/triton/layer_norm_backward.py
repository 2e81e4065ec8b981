"""Multipliers of a layer norm's argument as one Triton kernel: each row is read once, and written once.

The formulas are those of `naive/layer_norm.py`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import midpoint
from deeplift_fast.ops.triton.tiles import dense, tile, widened


def layer_norm_backward(
    m: Tensor,
    x: Tensor,
    x0: Tensor,
    where: Tensor,
    average: Tensor,
    average0: Tensor,
    scale: Tensor,
    scale0: Tensor,
    weight: Tensor,
    half: float,
) -> Tensor:
    """See :func:`deeplift_fast.ops.layer_norm_backward`; `where` is not checked."""
    given = dense(m, x, x0, where, average, average0, scale, scale0, weight)
    out = torch.empty_like(given[1])
    rows, size = out.shape
    if out.numel():
        high, wide, warps = tile(size, out.dtype, 2)
        with torch.cuda.device_of(out):
            _layer_norm_kernel[(triton.cdiv(rows, high),)](*given, out, rows, size, half, high, wide, num_warps=warps)
    return out


@triton.jit
def _layer_norm_kernel(
    m_pointer: tl.tensor,
    x_pointer: tl.tensor,
    x0_pointer: tl.tensor,
    where_pointer: tl.tensor,
    average_pointer: tl.tensor,
    average0_pointer: tl.tensor,
    scale_pointer: tl.tensor,
    scale0_pointer: tl.tensor,
    weight_pointer: tl.tensor,
    out_pointer: tl.tensor,
    rows: tl.tensor,
    size: tl.tensor,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    # int64: an int32 offset wraps at 2**31 elements.
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    real = row < rows
    inside = real[:, None] & (column < size)[None, :]
    place = row[:, None] * size + column[None, :]
    weight = widened(tl.load(weight_pointer + column, mask=column < size, other=0.0))
    m = widened(tl.load(m_pointer + place, mask=inside, other=0.0)) * weight[None, :]
    centred = widened(tl.load(x_pointer + place, mask=inside, other=0.0))
    average = widened(tl.load(average_pointer + row, mask=real, other=0.0))
    r = widened(tl.load(scale_pointer + row, mask=real, other=1.0))
    r0 = r
    if HALF != 0:
        facing = tl.load(where_pointer + row, mask=real, other=0)
        place0 = facing[:, None] * size + column[None, :]
        centred = midpoint(centred, widened(tl.load(x0_pointer + place0, mask=inside, other=0.0)), HALF)
        average = midpoint(average, widened(tl.load(average0_pointer + facing, mask=real, other=0.0)), HALF)
        r0 = widened(tl.load(scale0_pointer + facing, mask=real, other=1.0))
    centred = tl.where(inside, centred - average[:, None], 0.0)
    columns = tl.full([ROWS], size, m.dtype)  # a division by the integer itself would be float32's
    through = -(r * r0) * (r * r0) / (r + r0) * 2.0 / columns * tl.sum(m * centred, 1)
    found = m * midpoint(r, r0, HALF)[:, None] + centred * through[:, None]
    mean = tl.sum(found, 1) / columns
    tl.store(out_pointer + place, found - mean[:, None], mask=inside)

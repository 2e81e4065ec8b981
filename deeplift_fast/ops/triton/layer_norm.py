"""Multipliers of a layer norm's argument as one Triton kernel, which reads and writes each row once.

The formulas are those of `naive/layer_norm.py`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import midpoint
from deeplift_fast.ops.triton.tiles import dense, tile, widened


def layer_norm_backward(
    m: Tensor, x: Tensor, x0: Tensor, where: Tensor, average: Tensor, average0: Tensor, scale: Tensor, scale0: Tensor,
    weight: Tensor, half: float,
) -> Tensor:  # fmt: skip
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
    m_pointer: tl.tensor, x_pointer: tl.tensor, x0_pointer: tl.tensor, where_pointer: tl.tensor,
    average_pointer: tl.tensor, average0_pointer: tl.tensor, scale_pointer: tl.tensor, scale0_pointer: tl.tensor,
    weight_pointer: tl.tensor, out_pointer: tl.tensor, rows: tl.tensor, size: tl.tensor, HALF: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    # int64: an int32 offset wraps at 2**31 elements.
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    real = row < rows
    inside = real[:, None] & (column < size)[None, :]
    place = row[:, None] * size + column[None, :]
    weight = widened(tl.load(weight_pointer + column, mask=column < size, other=0.0))
    m = widened(tl.load(m_pointer + place, mask=inside, other=0.0)) * weight[None, :]
    average = widened(tl.load(average_pointer + row, mask=real, other=0.0))
    c = tl.where(inside, widened(tl.load(x_pointer + place, mask=inside, other=0.0)) - average[:, None], 0.0)
    r = widened(tl.load(scale_pointer + row, mask=real, other=1.0))
    c0, r0 = c, r
    if HALF != 0:
        facing = tl.load(where_pointer + row, mask=real, other=0)
        place0 = facing[:, None] * size + column[None, :]
        average0 = widened(tl.load(average0_pointer + facing, mask=real, other=0.0))
        c0 = tl.where(inside, widened(tl.load(x0_pointer + place0, mask=inside, other=0.0)) - average0[:, None], 0.0)
        r0 = widened(tl.load(scale0_pointer + facing, mask=real, other=1.0))
    c_mean, y_mean = midpoint(c, c0, HALF), midpoint(c * r[:, None], c0 * r0[:, None], HALF)
    share = 1.0 / tl.full([ROWS], size, m.dtype)  # a division by the integer itself would be in float32
    inverse = r * (r0 / midpoint(r0, r, HALF))
    through = tl.sum(m * y_mean, 1) * inverse * share
    found = (m - c_mean * through[:, None]) * inverse[:, None]
    mean = tl.sum(found, 1) * share
    tl.store(out_pointer + place, found - mean[:, None], mask=inside)

"""Multipliers of a layer norm's argument as one Triton kernel, which reads and writes each row once.

The formulas are those of `naive/layer_norm.py`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import midpoint
from deeplift_fast.ops.triton.tiles import dense, launch, read, rows_of, strip, tile


def layer_norm_backward(
    m: Tensor, x: Tensor, x0: Tensor, where: Tensor, average: Tensor, average0: Tensor, scale: Tensor, scale0: Tensor,
    weight: Tensor, half: float,
) -> Tensor:  # fmt: skip
    """See :func:`deeplift_fast.ops.layer_norm_backward`; `where` is not checked."""
    given = dense(m, x, x0, where, average, average0, scale, scale0, weight)
    out = torch.empty_like(given[1])
    rows, size = out.shape
    high, wide, warps = tile(size, out.dtype, 2)
    grid = (triton.cdiv(rows, high) if size else 0,)
    launch(_layer_norm_kernel, grid, *given, out, rows, size, half, high, wide, num_warps=warps)
    return out


@triton.jit
def _layer_norm_kernel(
    m, x, x0, where, average, average0, scale, scale0, weight, out, rows, size, HALF: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row, column = rows_of(ROWS), tl.arange(0, COLUMNS)
    real = row < rows
    place, inside = strip(row, real, 0, size, COLUMNS)
    g = read(m + place, inside) * read(weight + column, column < size)[None, :]
    c = tl.where(inside, read(x + place, inside) - read(average + row, real)[:, None], 0.0)
    r = read(scale + row, real, 1.0)
    c0, r0 = c, r
    if HALF != 0:
        facing = tl.load(where + row, mask=real, other=0)
        place0, _ = strip(facing, real, 0, size, COLUMNS)
        c0 = tl.where(inside, read(x0 + place0, inside) - read(average0 + facing, real)[:, None], 0.0)
        r0 = read(scale0 + facing, real, 1.0)
    c_mean, y_mean = midpoint(c, c0, HALF), midpoint(c * r[:, None], c0 * r0[:, None], HALF)
    share = 1.0 / tl.full([ROWS], size, g.dtype)  # a division by the integer itself would be in float32
    inverse = r * (r0 / midpoint(r0, r, HALF))
    through = tl.sum(g * y_mean, 1) * inverse * share
    found = (g - c_mean * through[:, None]) * inverse[:, None]
    mean = tl.sum(found, 1) * share
    tl.store(out + place, found - mean[:, None], mask=inside)

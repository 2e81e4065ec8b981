"""GELU at the input, and its secant slope or derivative, as one Triton kernel.

The formulas are those of `naive/gelu.py`, float32's fit of the normal distribution that of `csrc/gelu.cpp`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import exponential
from deeplift_fast.ops.triton.tiles import dense, launch, read, strip, strips

# erfc(z) = e^(−z²)·t·P(t) with t = 1/(1 + z/2). float32: P in powers of t, with an error of 4.3e-8 for z up to 10.
_FIT_32 = (
    0.2820864174, 0.2823753178, 0.2431036906, 0.202687173, -0.02662642339, 0.2780683118, -0.4872009462, 0.284575487,
    -0.05906907074,
)  # fmt: skip
# float64: P in powers of (t − 0.53125)/0.46875, with an error of 3e-16 for z up to 30, at which e^(−z²) is 0.
_FIT_64 = (
    0.5328152493450521, 0.3386720018295019, 0.1255894451132156, 0.012700322502831814, -0.00901783792743508,
    -0.0019048607334220895, 0.0011488066080979136, 0.00016070743779745183, -0.00019647948245204793,
    1.3312383235931954e-05, 3.054944289854102e-05, -1.1228722745562825e-05, -2.1541600812930632e-06,
    3.0040768350472086e-06, -7.355482119058859e-07, -3.2623537811338627e-07, 3.1043517261829575e-07,
    -7.903880015224949e-08, -3.679873777701697e-08, 4.357847215274994e-08, -1.0318836587101178e-08,
    -8.666836958783427e-09, 4.822223856158444e-09, 6.97174546958467e-10, -6.395719340859082e-10,
)  # fmt: skip


def gelu(x: Tensor, x0: Tensor, where: Tensor, secant: bool) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.gelu`; `where` is not checked."""
    x, x0, where = dense(x, x0, where)
    y, multiplier = torch.empty_like(x), torch.empty_like(x)
    rows, size = x.shape
    high, columns = strips(size, x.dtype, 1)
    across = triton.cdiv(size, columns)
    grid = (triton.cdiv(rows, high) * across,)
    launch(_gelu_kernel, grid, x, x0, where, y, multiplier, rows, size, across, secant, high, columns)
    return y, multiplier


@triton.jit
def _gelu_kernel(
    x, x0, where, y, multiplier, rows, size, across, SECANT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    program = tl.program_id(0)
    # int64: an int32 offset wraps at 2**31 elements.
    row, first = (program // across).to(tl.int64) * ROWS + tl.arange(0, ROWS), program % across * COLUMNS
    place, inside = strip(row, row < rows, first, size, COLUMNS)
    a = read(x + place, inside)
    bell = _bell(a)
    below = _cumulative(a, bell)
    if SECANT:
        facing = tl.load(where + row, mask=row < rows, other=0)
        b = read(x0 + strip(facing, row < rows, first, size, COLUMNS)[0], inside)
        slope = _slope(a, b, below, _cumulative(b, _bell(b)))
    else:
        slope = below + a * 0.3989422804014327 * bell
    tl.store(y + place, a * below, mask=inside)
    tl.store(multiplier + place, slope, mask=inside)


@triton.jit
def _bell(a):
    """e^(−a²/2)."""
    return exponential(-0.5 * a * a)[0]


@triton.jit
def _cumulative(a, bell):
    """The normal distribution's cumulative function, given e^(−a²/2)."""
    double: tl.constexpr = a.dtype == tl.float64
    degree: tl.constexpr = _degree(double)
    t = 1.0 / (1.0 + 0.3535533905932738 * tl.abs(a))
    variable = (t - 0.53125) * (1.0 / 0.46875) if double else t
    series = variable * _coefficient(degree, double) + _coefficient(degree - 1, double)
    for k in tl.static_range(degree - 2, -1, -1):
        series = series * variable + _coefficient(k, double)
    tail = 0.5 * bell * t * series
    return tl.where(a < 0, tail, 1.0 - tail)


@triton.constexpr_function
def _degree(double: bool) -> int:
    return len(_FIT_64 if double else _FIT_32) - 1


@triton.constexpr_function
def _coefficient(k: int, double: bool) -> float:
    return (_FIT_64 if double else _FIT_32)[k]


@triton.jit
def _slope(a, b, below, below0):
    """The secant slope; for close arguments by Gauss-Legendre quadrature of the density between them."""
    double: tl.constexpr = a.dtype == tl.float64
    delta = a - b
    middle = 0.5 * (a + b)
    half = 0.5 * delta
    near: tl.constexpr = 0.25 if double else 0.5
    if double:
        mean = 0.28444444444444444 * _bell(middle)
        mean += 0.23931433524968324 * _on_both_sides(middle, 0.5384693101056831 * half)
        mean += 0.11846344252809454 * _on_both_sides(middle, 0.906179845938664 * half)
    else:
        mean = 0.4444444444444444 * _bell(middle)
        mean += 0.2777777777777778 * _on_both_sides(middle, 0.7745966692414834 * half)
    rise = tl.where(tl.abs(delta) < near, 0.3989422804014327 * mean, (below - below0) / delta)
    return 0.5 * (below + below0) + middle * rise


@triton.jit
def _on_both_sides(middle, distance):
    return _bell(middle + distance) + _bell(middle - distance)

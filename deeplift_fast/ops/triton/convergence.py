"""Summation to delta of a batch as one Triton kernel; a program handles some samples and their sums."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.naive.convergence import LARGEST_FACTOR, RESCALE_EPS
from deeplift_fast.ops.specs import SAMPLES_AT_ONCE
from deeplift_fast.ops.triton.tiles import dense, launch, rows_of, widened


def convergence(
    totals: Tensor, output: Tensor, output0: Tensor, rescale: bool, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.convergence`."""
    totals, output, output0 = dense(totals, output, output0)
    features, batch = totals.shape
    parts = triton.cdiv(batch, SAMPLES_AT_ONCE)
    delta, fine = torch.empty_like(output), torch.empty_like(output, dtype=torch.bool)
    factor = torch.empty(batch if rescale else 0, dtype=computed(output.dtype), device=output.device)
    figures = torch.empty(parts, 3, dtype=torch.float64, device=output.device)
    tensors, rounding = (totals, output, output0, delta, factor, fine, figures), 1e3 * torch.finfo(output.dtype).eps
    limits = rescale, tolerance, rounding, RESCALE_EPS, LARGEST_FACTOR, SAMPLES_AT_ONCE
    launch(_convergence_kernel, (parts,), *tensors, features, batch, *limits)
    return delta, factor, fine, figures


@triton.jit
def _convergence_kernel(
    totals, output, output0, deltas, factors, fines, figures, features, batch, RESCALE: tl.constexpr,
    TOLERANCE: tl.constexpr, ROUNDING: tl.constexpr,  # of a number near 1
    SMALLEST: tl.constexpr,  # a smaller sum is not scaled
    LARGEST: tl.constexpr,  # a larger factor is not fine
    SAMPLES: tl.constexpr,
):  # fmt: skip
    sample = rows_of(SAMPLES)
    inside = sample < batch
    total = tl.load(totals + sample, mask=inside, other=0.0)
    for feature in range(1, features):
        total += tl.load(totals + (feature * batch + sample), mask=inside, other=0.0)
    a, b = tl.load(output + sample, mask=inside, other=0.0), tl.load(output0 + sample, mask=inside, other=0.0)
    difference = a.to(tl.float64) - b.to(tl.float64)
    delta = total - difference
    if a.dtype != tl.float64:
        delta = delta.to(tl.float32).to(a.dtype)
    tl.store(deltas + sample, delta, mask=inside)
    a, b, delta = widened(a), widened(b), widened(delta)
    change = tl.abs(a - b)
    if RESCALE:
        usable = tl.abs(total) > SMALLEST
        factor = tl.where(usable, difference / tl.where(usable, total, 1.0), 1.0)
        tl.store(factors + sample, factor, mask=inside)
        fine = usable & (factor >= 0) & (factor <= LARGEST)
    else:
        rounding = ROUNDING * tl.maximum(tl.maximum(tl.abs(a), tl.abs(b)), 1.0)
        fine = tl.abs(delta) <= tl.maximum(TOLERANCE * change, rounding)  # false for NaN
    tl.store(fines + sample, fine, mask=inside)
    sums = figures + tl.program_id(0).to(tl.int64) * 3
    tl.store(sums, tl.sum(tl.where(inside, delta.to(tl.float64), 0.0), 0))
    tl.store(sums + 1, ROUNDING * tl.sum(tl.where(inside, (1 + change).to(tl.float64), 0.0), 0))
    tl.store(sums + 2, tl.sum(tl.where(inside & (fine == 0), 1, 0), 0))

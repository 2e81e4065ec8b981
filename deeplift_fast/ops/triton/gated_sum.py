"""A gated value added to another, `σ(a)·b + c`, as one Triton kernel: six loads, four stores."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import activation, midpoint
from deeplift_fast.ops.triton.secant import BLOCK_BYTES
from deeplift_fast.ops.triton.tiles import dense, widened


def gated_sum(a: Tensor, b: Tensor, c: Tensor, variant: str, half: float) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.gated_sum`."""
    a, b, c = dense(a, b, c)
    y, multipliers = torch.empty_like(a), torch.empty_like(a)
    size, block = a.numel() // 2, BLOCK_BYTES // a.element_size()
    if size:
        with torch.cuda.device_of(a):
            _gate_kernel[(triton.cdiv(size, block),)](
                a, b, c, y, multipliers, size, variant, half, block, num_warps=4, enable_fp_fusion=variant != "pyhealth"
            )
    return y, multipliers


@triton.jit
def _gate_kernel(
    a_pointer: tl.tensor, b_pointer: tl.tensor, c_pointer: tl.tensor, y_pointer: tl.tensor,
    multipliers_pointer: tl.tensor, size: tl.tensor,  # of one stream
    VARIANT: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    # int64: an int32 offset wraps at 2**31 elements.
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside, at0 = at < size, size + at
    a, a0 = widened(tl.load(a_pointer + at, mask=inside)), widened(tl.load(a_pointer + at0, mask=inside))
    b, b0 = widened(tl.load(b_pointer + at, mask=inside)), widened(tl.load(b_pointer + at0, mask=inside))
    c, c0 = widened(tl.load(c_pointer + at, mask=inside)), widened(tl.load(c_pointer + at0, mask=inside))
    gate, gate0, slope = activation(a, a0, "sigmoid", VARIANT)
    tl.store(y_pointer + at, gate * b + c, mask=inside)
    tl.store(y_pointer + at0, gate0 * b0 + c0, mask=inside)
    tl.store(multipliers_pointer + at, slope * midpoint(b, b0, HALF), mask=inside)
    tl.store(multipliers_pointer + at0, midpoint(gate, gate0, HALF), mask=inside)

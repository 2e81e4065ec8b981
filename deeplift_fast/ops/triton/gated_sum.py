"""A gated value added to another, `σ(a)·b + c`, as one Triton kernel: six loads, four stores."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from deeplift_fast.ops.triton.activations import activation, midpoint
from deeplift_fast.ops.triton.secant import BLOCK_BYTES
from deeplift_fast.ops.triton.tiles import dense, launch, read, rows_of


def gated_sum(a: Tensor, b: Tensor, c: Tensor, variant: str, half: float) -> tuple[Tensor, Tensor]:
    """See :func:`deeplift_fast.ops.gated_sum`."""
    a, b, c = dense(a, b, c)
    y, multipliers = torch.empty_like(a), torch.empty_like(a)
    size, block = a.numel() // 2, BLOCK_BYTES // a.element_size()
    given = a, b, c, y, multipliers, size, variant, half, block
    launch(_gate_kernel, (triton.cdiv(size, block),), *given, enable_fp_fusion=variant != "pyhealth")
    return y, multipliers


@triton.jit
def _gate_kernel(
    a, b, c, y, multipliers, size, VARIANT: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    at = rows_of(BLOCK)
    inside, at0 = at < size, size + at  # `size` is that of one stream
    of_gate, of_gate0 = read(a + at, inside, None), read(a + at0, inside, None)
    x, x0 = read(b + at, inside, None), read(b + at0, inside, None)
    rest, rest0 = read(c + at, inside, None), read(c + at0, inside, None)
    gate, gate0, slope = activation(of_gate, of_gate0, "sigmoid", VARIANT)
    tl.store(y + at, gate * x + rest, mask=inside)
    tl.store(y + at0, gate0 * x0 + rest0, mask=inside)
    tl.store(multipliers + at, slope * midpoint(x, x0, HALF), mask=inside)
    tl.store(multipliers + at0, midpoint(gate, gate0, HALF), mask=inside)

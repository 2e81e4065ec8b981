"""The part of a matrix that one program handles, and functions that kernels share."""

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDEST = 16  # bytes that a thread loads or stores at a time
THREADS = 128  # of a program; more for long rows


def tile(columns: int, dtype: torch.dtype, accesses: int) -> tuple[int, int, int]:
    """Rows, columns and warps of a program's tile of whole rows, each a power of two.

    Args:
        columns: the columns of the matrix.
        dtype: the dtype of its numbers.
        accesses: the loads of 16 bytes that each thread makes; more for long rows.
    """
    wide = triton.next_power_of_2(max(columns, 1))
    size = accesses * THREADS * WIDEST // dtype.itemsize
    return max(size // wide, 1), wide, min(max(wide // size, 1), 8) * THREADS // 32


def strips(columns: int, dtype: torch.dtype, accesses: int) -> tuple[int, int]:
    """The rows of a program, and the columns that it handles at a time."""
    size = accesses * THREADS * WIDEST // dtype.itemsize
    wide = min(triton.next_power_of_2(max(columns, 1)), size)
    return size // wide, wide


def dense(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, or contiguous copies of them."""
    return tuple(each if each.is_contiguous() else each.contiguous() for each in tensors)


@triton.jit
def widened(numbers: tl.tensor) -> tl.tensor:
    """The numbers in the dtype that kernels compute in."""
    return numbers if numbers.dtype == tl.float64 else numbers.to(tl.float32)


@triton.jit
def block_of(
    program: tl.tensor, ends: tl.tensor, parts: tl.tensor, halvings: tl.tensor, times: tl.tensor, SIZE: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """The part of a program, and the number of its block in it, int64; the last blocks of a part may be empty.

    Part i has `times · (ends[i + 1] − ends[i])` members in blocks of `SIZE`. Its first program is
    `⌊times · ends[i] / SIZE⌋ + i`, so `⌊times · ends[parts] / SIZE⌋ + parts` programs suffice, whatever the parts are.
    """
    low = program.to(tl.int64) * 0
    high = low + parts
    for _ in range(halvings):
        middle = (low + high) // 2
        right = tl.load(ends + middle) * times // SIZE + middle <= program
        low = tl.where(right, middle, low)
        high = tl.where(right, high, middle)
    return low, program - (tl.load(ends + low) * times // SIZE + low)

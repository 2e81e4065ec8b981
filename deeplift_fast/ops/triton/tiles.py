"""The part of a matrix that one program handles, and functions that kernels share."""

from typing import Any

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


def launch(kernel: Any, grid: tuple[int, ...], *given: Any, num_warps: int = 4, **options: Any) -> None:
    """Launch a kernel on its first tensor's device, which need not be the current one; an empty grid launches none."""
    if all(grid):
        with torch.cuda.device_of(given[0]):
            kernel[grid](*given, num_warps=num_warps, **options)


def products(dtype: torch.dtype, nvidia: bool) -> dict[str, Any]:
    """How numbers are multiplied: float32 with its own accuracy, by three products of TF32 numbers if there are such.

    With a bound on registers above 128, ptxas does not spill some to stay below 128 and run more programs.
    """
    precision = "tf32x3" if dtype == torch.float32 and nvidia else "ieee"
    return {"PRECISION": precision} | ({"maxnreg": 255} if nvidia else {})


@triton.constexpr_function
def computed_in(dtype: Any) -> Any:
    """The dtype that kernels compute in."""
    return tl.float64 if dtype == tl.float64 else tl.float32


@triton.jit
def widened(numbers):
    """The numbers in the dtype that kernels compute in."""
    return numbers if numbers.dtype == tl.float64 else numbers.to(tl.float32)


@triton.jit
def read(pointer, mask, OTHER: tl.constexpr = 0.0):
    """Numbers in the dtype that kernels compute in; outside of the mask `OTHER`, or any number for `None`."""
    return widened(tl.load(pointer, mask=mask, other=OTHER))


@triton.jit
def rows_of(SIZE: tl.constexpr):
    """The rows of a program; int64, since an int32 offset wraps at 2**31 numbers."""
    return tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)


@triton.jit
def strip(row, real, first, size, COLUMNS: tl.constexpr):
    """The offsets of some columns of rows, `size` numbers each, and whether there is such a number."""
    column = first + tl.arange(0, COLUMNS)
    return row[:, None] * size + column[None, :], real[:, None] & (column < size)[None, :]


@triton.jit
def block_of(program, ends, parts, halvings, times, SIZE: tl.constexpr):
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

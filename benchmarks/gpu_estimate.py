"""The time of one step of StageNet's cell on an H100, on paper: for the table in `docs/gpu.md`.

A step is one kernel in each direction. Its product in "tf32x3" is three products in TF32 on tensor cores. Forward, the
rows of a batch and one row of the baseline that they share are multiplied with the weights of the states, and eight
coefficients are written for each unit. Backward, they are read, and the multipliers of the pre-activations go back to
the states.
"""

import math
from collections.abc import Sequence

UNITS, LEVELS, COEFFICIENTS = 384, 3, 8
TF32, FLOAT32 = 495e12, 67e12  # flops per second of an H100 SXM, dense on tensor cores and outside of them
REACHED = (0.5, 0.6)  # of TF32's peak, by kernels of Triton
REACHED_FLOAT32 = (0.6, 0.85)  # of float32's peak, by large products of cuBLAS
BYTES = 3.35e12  # per second
PROCESSORS = 132
LAUNCH = 1.5e-6  # seconds from one kernel of a CUDA graph to the next one
KERNEL = 2e-6  # the least time of a kernel
MASTERS = 16  # columns for the master gates in each tile of the forward kernel
FORWARD = (64, 64)  # rows and columns of a tile: sixteen units with four gates
BACK = ((64, 16), (64, 64))  # for few samples and for many


def columns() -> int:
    """The gates of all units, and the master gates of all levels."""
    return 4 * UNITS + 2 * LEVELS


def flops(batch: int, shared: bool = True) -> int:
    """Of a step's product in one direction; forward, with one row of a shared baseline or as many as samples.

    Args:
        batch: samples.
        shared: `True` counts one more row, `False` twice the rows.
    """
    return 2 * (batch + 1 if shared else 2 * batch) * UNITS * columns()


def bytes_moved(batch: int) -> int:
    """Of a step in one direction, in float32: the same number forward and back.

    Forward reads four projected gates and writes the coefficients and the state; back reads the coefficients and the
    state's multiplier and writes those of four gates. States and weights of 2 MB stay in the L2 cache.
    """
    return 4 * batch * UNITS * (4 + COEFFICIENTS + 1)


def even(batch: int, reached: float) -> float:
    """Seconds of a step in both directions if all processors shared the work evenly, and no byte had to be awaited."""
    return 2 * LAUNCH + 2 * max(3 * flops(batch) / (reached * TF32), bytes_moved(batch) / BYTES)


def tiled(batch: int, back: bool, reached: float = sum(REACHED) / 2) -> float:
    """Seconds of a step in one direction in whole tiles; back, in the better of both kinds of tile.

    A tile is one program, and a processor works at the speed of its share of the peak. The time is that of the
    processor with the most tiles.
    """
    share = reached * TF32 / PROCESSORS
    found = []
    for high, wide in BACK if back else (FORWARD,):
        if back:  # all gates are summed over; a tile gives some of the states' multipliers
            tiles, of_tile = math.ceil(batch / high) * math.ceil(UNITS / wide), 2 * high * wide * columns()
        else:  # one row of a tile is the baseline's
            rows, units = math.ceil(batch / (high - 1)), math.ceil(UNITS / (wide // 4))
            tiles, of_tile = rows * units, 2 * high * (wide + MASTERS) * UNITS
        found.append(math.ceil(tiles / PROCESSORS) * 3 * of_tile / share)
    return LAUNCH + max(min(found), bytes_moved(batch) / BYTES)


def apart(batch: int, reached: float) -> float:
    """Seconds of a step in both directions if product and cell are kernels of their own, in float32.

    The kernels of the cell also read the products of both streams, the baseline's projected gates and the states'
    multipliers.
    """
    products = (flops(batch, shared=False) + flops(batch)) / (reached * FLOAT32)
    moved = 2 * bytes_moved(batch) + 4 * batch * (2 * columns() + 5 * UNITS)
    return products + max(2 * KERNEL, moved / BYTES)


def working(lengths: Sequence[int], high: int, in_order: bool = True) -> float:
    """The share of programs of all steps with a sample that has not ended.

    Args:
        lengths: the steps of each sample.
        high: the samples of a program.
        in_order: whether they are sorted by length.
    """
    lengths = sorted(lengths) if in_order else lengths
    longest = [max(lengths[first : first + high]) for first in range(0, len(lengths), high)]
    return sum(longest) / (len(longest) * max(lengths))

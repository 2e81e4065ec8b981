"""What a GPU can do at most, by memory, arithmetic and launches: a model on paper, for `docs/gpu.md`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Gpu:
    """A GPU and the process that feeds it.

    Attributes:
        name: its name.
        bandwidth: of its memory, bytes/s.
        flops: float32 outside tensor cores, 1/s; PyTorch leaves TF32 off by default.
        processors: streaming multiprocessors.
        gap: seconds that the smallest kernel takes from one to the next, in a CUDA graph as in a stream.
        torch_launch: seconds of the host for an operation of torch.
        triton_launch: seconds of the host for a Triton kernel, whose launcher sees to thirty arguments in Python.
        call: seconds of the host for a call's checks and baselines, whatever its size.
        host: bytes/s between the host's ordinary memory and the GPU.
    """

    name: str
    bandwidth: float
    flops: float
    processors: int
    gap: float
    torch_launch: float
    triton_launch: float
    call: float
    host: float


H100 = Gpu("H100 SXM", 3.35e12, 67e12, 132, 2e-6, 5e-6, 15e-6, 1e-3, 12e9)

# Rows and columns of a tile of a matrix product, and the share of a processor's arithmetic that it reaches.
TILES = ((128, 128, 0.85), (128, 64, 0.75), (64, 64, 0.6))
SPLITS = (1, 2, 4, 8)  # of the inner dimension, each summed into the result


def product_seconds(gpu: Gpu, rows: int, inner: int, columns: int) -> float:
    """A float32 matrix product, `[rows, inner] @ [inner, columns]`: by the better of tiles, in waves, or by memory."""
    best = math.inf
    for high, wide, share in TILES:
        for split in SPLITS:
            tiles = math.ceil(rows / high) * math.ceil(columns / wide) * split
            waves = math.ceil(tiles / gpu.processors)
            of_a_tile = 2 * high * wide * math.ceil(inner / split) / (share * gpu.flops / gpu.processors)
            results = rows * columns * (1 if split == 1 else 2 * split)
            moved = FLOAT * (rows * inner + inner * columns + results)
            best = min(best, max(waves * of_a_tile, moved / gpu.bandwidth))
    return best


def product_rate(gpu: Gpu, rows: int, inner: int, columns: int) -> float:
    """Its flops per second."""
    return 2 * rows * inner * columns / product_seconds(gpu, rows, inner, columns)


@dataclass(frozen=True)
class Work:
    """Kernels of one kind.

    Attributes:
        what: they do.
        times: how many there are.
        seconds: of one on the GPU, without the gap to the next.
        triton: whether they are Triton's.
        products: flops of one, of matrix products.
    """

    what: str
    times: int
    seconds: float
    triton: bool = False
    products: int = 0


def on_device(gpu: Gpu, work: Iterable[Work]) -> float:
    """Seconds of kernels one after the other: what a CUDA graph takes."""
    return sum(each.times * max(each.seconds, gpu.gap) for each in work)


def on_host(gpu: Gpu, work: Iterable[Work]) -> float:
    """Seconds that the host needs to launch them."""
    return sum(each.times * (gpu.triton_launch if each.triton else gpu.torch_launch) for each in work)


def eager(gpu: Gpu, work: list[Work]) -> float:
    """Seconds of a call without a graph: the host launches ahead, and the slower of both decides."""
    return gpu.call + max(on_device(gpu, work), on_host(gpu, work))


def in_a_graph(gpu: Gpu, work: list[Work]) -> float:
    """Seconds of a call whose kernels are one CUDA graph."""
    return gpu.call + on_device(gpu, work)

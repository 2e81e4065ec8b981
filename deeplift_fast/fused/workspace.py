"""Memory that calls hand on to one another: fresh memory costs as much to zero as the kernels need to fill it.

On the CPU alone. PyTorch's allocator does the same for a GPU, and keeps the streams apart.
"""

import math
import threading

import torch
from torch import Tensor

from deeplift_fast import ops

LARGEST = 512 * 2**20  # bytes of one buffer that is kept; a larger one is given back to the system
_KEPT = 4
_CPU = torch.device("cpu")

_lock = threading.Lock()
_free: list[Tensor] = []


def take(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device = _CPU) -> Tensor:
    """A contiguous tensor of a shape, of whatever content."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    with _lock:
        fitting = [i for i, buffer in enumerate(_free) if len(buffer) >= size]
        buffer = _free.pop(min(fitting, key=lambda i: len(_free[i]))) if fitting else None
    if buffer is None:
        buffer = torch.empty(max(size, 64), dtype=torch.uint8, device=device)
    return buffer[:size].view(dtype).reshape(shape)


def give(tensor: Tensor) -> None:
    """Hand back what :func:`take` gave, which nobody may use any more."""
    if tensor.device.type != "cpu":
        return
    buffer = tensor.new_empty(0).set_(tensor.untyped_storage()).view(torch.uint8)
    if len(buffer) > LARGEST:
        return
    with _lock:
        _free.append(buffer)
        _free.sort(key=len)
        del _free[:-_KEPT]


def clear() -> None:
    """Give all memory back to the system, that of the kernels' results too."""
    with _lock:
        _free.clear()
    ops.release_memory()

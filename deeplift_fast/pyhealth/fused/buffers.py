"""Memory that calls reuse."""

import math
import threading
from collections.abc import Iterable

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.core import constants

LARGEST = 512 * 2**20  # bytes of the largest buffer that is kept
_KEPT = 4
_CPU = torch.device("cpu")

_lock = threading.Lock()
_free: list[Tensor] = []


def take(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device = _CPU) -> Tensor:
    """A contiguous tensor with undefined content."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    with _lock:
        place = next((i for i, buffer in enumerate(_free) if buffer.numel() >= size), None)  # the smallest that fits
        buffer = None if place is None else _free.pop(place)
    if buffer is None:
        # An eighth more serves slightly larger batches too: fresh pages are slow, and untouched ones take no memory.
        room = max(size, min(size + size // 8, LARGEST), 64)
        buffer = torch.empty(room, dtype=torch.uint8, device=device)
    return buffer[:size].view(dtype).reshape(shape)


def give(tensor: Tensor) -> None:
    """Hand back a tensor from :func:`take`; nobody may use it afterwards."""
    if tensor.device.type != "cpu":
        return
    buffer = tensor.new_empty(0).set_(tensor.untyped_storage()).view(torch.uint8)
    if buffer.numel() > LARGEST:
        return
    with _lock:
        _free.append(buffer)
        _free.sort(key=Tensor.numel)
        del _free[:-_KEPT]


def clear() -> None:
    """Return all kept memory to the system, including constants and the memory of the kernels' results."""
    with _lock:
        _free.clear()
    constants.clear()
    ops.release_memory()


def wait_for(weights: Iterable[Tensor]) -> None:
    """Wait until weights made on the current CUDA stream are ready for every stream."""
    for device in {weight.device for weight in weights if weight.is_cuda}:
        torch.cuda.current_stream(device).synchronize()

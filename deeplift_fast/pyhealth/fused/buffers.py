"""Memory that calls reuse, constant tensors, and checks for changed weights."""

import functools
import math
import threading
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from deeplift_fast import ops

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
        fitting = [i for i, buffer in enumerate(_free) if len(buffer) >= size]
        buffer = _free.pop(min(fitting, key=lambda i: len(_free[i]))) if fitting else None
    if buffer is None:
        buffer = torch.empty(max(size, 64), dtype=torch.uint8, device=device)
    return buffer[:size].view(dtype).reshape(shape)


def give(tensor: Tensor) -> None:
    """Hand back a tensor from :func:`take`; nobody may use it afterwards."""
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
    """Return all kept memory to the system, including that of the kernels' results."""
    with _lock:
        _free.clear()
    ops.release_memory()


def ramp(size: int, step: int, device: torch.device, first: int = 0) -> Tensor:
    """`first, first + step, …`, int64 `[size]`; the tensor is shared, so nobody may write to it."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():  # a graph has memory of its own
        return torch.arange(first, first + size * step, step, device=device)
    return _kept(size, step, device, first, torch.cuda.current_stream(device).cuda_stream)


@functools.lru_cache(256)
def _kept(size: int, step: int, device: torch.device, first: int, stream: int) -> Tensor:
    """One tensor per CUDA stream, so that no stream waits for another one."""
    return torch.arange(first, first + size * step, step, device=device)


def ramps(size: int, firsts: tuple[int, ...], device: torch.device) -> Tensor:
    """`first, first + 1, …` for each of `firsts`, int64 `[firsts, size]`; shared as :func:`ramp`."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.stack([torch.arange(first, first + size, device=device) for first in firsts])
    return _kept_ramps(size, firsts, device, torch.cuda.current_stream(device).cuda_stream)


@functools.lru_cache(256)
def _kept_ramps(size: int, firsts: tuple[int, ...], device: torch.device, stream: int) -> Tensor:
    return torch.stack([torch.arange(first, first + size, device=device) for first in firsts])


def wait_for(weights: Iterable[Tensor]) -> None:
    """Wait until weights made on the current CUDA stream are ready for every stream."""
    for device in {weight.device for weight in weights if weight.is_cuda}:
        torch.cuda.current_stream(device).synchronize()


class Watched:
    """Detects changed weights, also changes that PyTorch does not count (`weight.data.mul_(2)`).

    Args:
        modules: the modules with the weights; `None` is skipped.
    """

    def __init__(self, modules: Iterable[nn.Module | None]) -> None:
        weights = [weight for module in modules if module is not None for weight in module.parameters()]
        # Empty weights have no sum. A GPU's weights need a read-back, so only counted changes are seen there.
        self._weights = [weight for weight in weights if weight.numel() and weight.device.type == "cpu"]
        with torch.no_grad():
            self._factors = [_factors(weight[0].numel(), weight) for weight in self._weights]
            self._sums = self._summed()

    def is_outdated(self) -> bool:
        """Whether a weight has changed since this object was made."""
        with torch.no_grad():
            return not all(map(torch.equal, self._sums, self._summed()))

    def _summed(self) -> list[Tensor]:
        """A sum of each weight's rows, with a factor per column: one fast pass over memory."""
        return [
            weight.flatten(1) @ f if weight.dim() > 1 else weight * f
            for weight, f in zip(self._weights, self._factors, strict=True)
        ]


def _factors(count: int, like: Tensor) -> Tensor:
    return torch.linspace(0.5, 1.5, count, dtype=like.dtype, device=like.device).sin_()

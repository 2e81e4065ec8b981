"""Tensors that calls hand on to one another, and weights that something was packed from."""

import functools
import math
import threading
from collections.abc import Iterable

import torch
from torch import Tensor, nn

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


def ramp(size: int, step: int, device: torch.device, first: int = 0) -> Tensor:
    """`first, first + step, …`, int64 `[size]`. It is shared: nobody may write to it."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():  # a graph's memory is its own
        return torch.arange(first, first + size * step, step, device=device)
    return _kept(size, step, device, first, torch.cuda.current_stream(device).cuda_stream)


@functools.lru_cache(256)
def _kept(size: int, step: int, device: torch.device, first: int, stream: int) -> Tensor:
    """One for each stream: another one would have to wait for it."""
    return torch.arange(first, first + size * step, step, device=device)


def ramps(size: int, firsts: tuple[int, ...], device: torch.device) -> Tensor:
    """`first, first + 1, …` of each first number, int64 `[firsts, size]`; shared as :func:`ramp`."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.stack([torch.arange(first, first + size, device=device) for first in firsts])
    return _kept_ramps(size, firsts, device, torch.cuda.current_stream(device).cuda_stream)


@functools.lru_cache(256)
def _kept_ramps(size: int, firsts: tuple[int, ...], device: torch.device, stream: int) -> Tensor:
    return torch.stack([torch.arange(first, first + size, device=device) for first in firsts])


class Watched:
    """Tells whether weights have changed, also where PyTorch keeps no count (`weight.data.mul_(2)`).

    Args:
        modules: whose weights to watch.
    """

    def __init__(self, modules: Iterable[nn.Module | None]) -> None:
        weights = [weight for module in modules if module is not None for weight in module.parameters()]
        # A weight may be empty. On a GPU a look would take a read-back, so only counted changes are seen there.
        self._weights = [weight for weight in weights if weight.numel() and weight.device.type == "cpu"]
        with torch.no_grad():
            self._factors = [_factors(weight[0].numel(), weight) for weight in self._weights]
            self._sums = self._summed()

    def is_outdated(self) -> bool:
        """Whether a weight is another one than when this was made."""
        with torch.no_grad():
            return not all(map(torch.equal, self._sums, self._summed()))

    def _summed(self) -> list[Tensor]:
        """The rows of each weight, summed up with other factors for each column: one quick pass over memory."""
        return [
            weight.flatten(1) @ f if weight.dim() > 1 else weight * f
            for weight, f in zip(self._weights, self._factors, strict=True)
        ]


def _factors(count: int, like: Tensor) -> Tensor:
    return torch.linspace(0.5, 1.5, count, dtype=like.dtype, device=like.device).sin_()

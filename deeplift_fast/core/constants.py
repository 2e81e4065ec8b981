"""Constant tensors on a GPU, kept from call to call."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

LIMIT = 64 * 2**20  # bytes of all kept constants

_lock = threading.Lock()
_kept: OrderedDict[Hashable, Tensor] = OrderedDict()  # the one used last is at the end


def ramp(size: int, step: int, device: torch.device, first: int = 0) -> Tensor:
    """`first, first + step, …`, int64 `[size]`; the tensor is shared, so nobody may write to it."""
    return _constant((size, step, first), device, lambda: torch.arange(first, first + size * step, step, device=device))


def ramps(size: int, firsts: tuple[int, ...], device: torch.device) -> Tensor:
    """`first, first + 1, …` for each of `firsts`, int64 `[firsts, size]`; shared as :func:`ramp`."""
    return _constant(
        (size, firsts),
        device,
        lambda: torch.stack([torch.arange(first, first + size, device=device) for first in firsts]),
    )


def number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number as a tensor without dimensions: `torch.where` makes one from a Python number with a launch."""
    return _constant((value, dtype), device, lambda: torch.full((), value, dtype=dtype, device=device))


def clear() -> None:
    """Drop all kept constants."""
    with _lock:
        _kept.clear()


def _constant(numbers: Hashable, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
    """The tensor of `make`, kept if it is on a GPU: the least recently used ones make room."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():  # a graph has memory of its own
        return make()
    # One tensor per CUDA stream, so that no stream waits for another one.
    key = numbers, device, torch.cuda.current_stream(device).cuda_stream
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    found = make()
    if found.nbytes > LIMIT:
        return found
    with _lock:
        _kept[key] = found
        held = sum(each.nbytes for each in _kept.values())
        while held > LIMIT:
            held -= _kept.popitem(last=False)[1].nbytes
    return found

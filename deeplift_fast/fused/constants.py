"""Index tensors that depend on sizes alone: made once, as each would be a kernel launch."""

import functools

import torch
from torch import Tensor


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

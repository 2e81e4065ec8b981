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

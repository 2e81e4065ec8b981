"""Index tensors that depend on sizes alone: made once, as each would be a kernel launch."""

import functools

import torch
from torch import Tensor


def ramp(size: int, step: int, device: torch.device) -> Tensor:
    """`0, step, …`, int64 `[size]`. It is shared: nobody may write to it."""
    if device.type != "cuda":
        return torch.arange(0, size * step, step, device=device)
    if torch.cuda.is_current_stream_capturing():  # a graph's memory is its own
        return torch.arange(0, size * step, step, device=device)
    return _kept(size, step, device, torch.cuda.current_stream(device).cuda_stream)


@functools.lru_cache(256)
def _kept(size: int, step: int, device: torch.device, stream: int) -> Tensor:
    """One for each stream: another one would have to wait for it."""
    return torch.arange(0, size * step, step, device=device)

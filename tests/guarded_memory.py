"""Memory that shows a kernel's writes outside of its tensors, and what it leaves unwritten."""

import contextlib
import math

import pytest
import torch

GUARD, SENTINEL = 64, 7.0


def guarded(tensor):
    """A copy between numbers that are NaN: reading them shows in results."""
    return _between(tensor.shape, tensor.dtype, math.nan)[1].copy_(tensor)


@contextlib.contextmanager
def checked_memory():
    """All memory that PyTorch hands out is NaN, between numbers that must be as before at the end."""
    buffers = []

    def allocate(shape, dtype):
        buffer, inside = _between(shape, dtype, SENTINEL)
        if dtype.is_floating_point:  # the interpreter makes others of its own
            buffers.append((buffer, inside.numel()))
        return inside

    def empty(*shape, dtype=torch.float32, device=None):
        return allocate(_flat(shape), dtype)

    def new_empty(self, *shape, dtype=None, device=None):
        return allocate(_flat(shape), dtype or self.dtype)

    def empty_like(tensor):
        return allocate(tensor.shape, tensor.dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", empty)
        patch.setattr(torch.Tensor, "new_empty", new_empty)
        patch.setattr(torch, "empty_like", empty_like)
        yield
    for buffer, size in buffers:
        assert (buffer[:GUARD] == SENTINEL).all()
        assert (buffer[GUARD + size :] == SENTINEL).all()


def _flat(shape):
    return tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape


def _between(shape, dtype, around):
    buffer = torch.full((math.prod(shape) + 2 * GUARD,), around if dtype.is_floating_point else 0, dtype=dtype)
    inside = buffer[GUARD : GUARD + math.prod(shape)]
    if dtype.is_floating_point:
        inside.fill_(math.nan)
    return buffer, inside.view(shape)

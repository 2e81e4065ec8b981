"""The distinct rows of a tensor that repeats along some dimensions."""

import torch
from torch import Tensor


def distinct_rows(x: Tensor, lead: int) -> tuple[Tensor, Tensor]:
    """A tensor's rows, without those that a stride of 0 repeats.

    Args:
        x: `[*shape, *row]`.
        lead: the number of dimensions of `shape`.

    Returns:
        The rows, `[rows0, size]`, contiguous; and the row of each place of `shape`, int64 `[places]`.
    """
    shape, strides = x.shape[:lead], x.stride()
    sizes = [1 if strides[dim] == 0 and size > 1 else size for dim, size in enumerate(shape)]
    once = x.as_strided([*sizes, *x.shape[lead:]], strides, x.storage_offset()) if tuple(sizes) != shape else x
    count = torch.Size(sizes).numel()
    where = torch.arange(count, device=x.device)
    if once is not x:
        where = where.reshape(sizes).expand(shape).reshape(-1)
    return once.reshape(count, x.shape[lead:].numel()).contiguous(), where

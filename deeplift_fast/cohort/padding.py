"""Padding of ragged columns, vectorised."""

import math

import numpy as np
import torch
from torch import Tensor


def ranges(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers `begin, …, begin + count - 1` of one range after another, int64.

    Args:
        begins: int64 `[ranges]`.
        counts: int64 `[ranges]`.
    """
    before = np.cumsum(counts) - counts
    return np.repeat(begins - before, counts) + np.arange(int(counts.sum()))


def padded(flat: np.ndarray, lengths: np.ndarray, which: np.ndarray) -> Tensor:
    """Some of the samples of a ragged column as PyHealth's loader collates them.

    PyTorch allocates the memory: the last bits of products depend on alignment, and NumPy's alignment varies.

    Args:
        flat: the values of one sample after another, `[sum of lengths, …]`.
        lengths: int64 `[samples]`, the first dimension of each.
        which: places of the samples, int64 `[chosen]`.

    Returns:
        `[chosen, longest, …]`, of `flat`'s dtype, padded with 0 at the end.
    """
    chosen = lengths[which]
    longest = int(chosen.max(initial=0))
    found = torch.zeros((len(which), longest, *flat.shape[1:]), dtype=_DTYPES[flat.dtype], device="cpu")
    source = ranges(np.cumsum(lengths)[which] - chosen, chosen)
    real = np.arange(longest) < chosen[:, None]
    given, target, width = flat, found.numpy(), math.prod(flat.shape[1:])
    if flat.ndim > 1 and width:  # a step is moved as one item, which is three times as fast
        step = np.dtype((np.void, flat.itemsize * width))
        given = np.ascontiguousarray(flat).reshape(len(flat), width).view(step)[:, 0]
        target = target.reshape(len(which), longest, width).view(step)[..., 0]
    target[real] = given[source]
    return found


_DTYPES = {torch.empty(0, dtype=kind, device="cpu").numpy().dtype: kind for kind in (
    torch.float16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.uint16, torch.uint32, torch.uint64,
)}  # fmt: skip
"""The dtypes that NumPy and PyTorch share."""

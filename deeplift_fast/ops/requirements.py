"""What tensors an op accepts: the checks that all ops share."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LANES = {torch.float32: 16, torch.float64: 8}  # units of a panel that the CPU's kernels want


def computed(dtype: torch.dtype) -> torch.dtype:
    """What an op computes in: float32 for the half types."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def require_alike(op: str, x: Tensor, x0: Tensor, names: tuple[str, str]) -> None:
    """Raise unless they have one shape, an accepted dtype and one device."""
    name, name0 = names
    for each, value in ((name, x), (name0, x0)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{op}: {each} is a {type(value).__name__}; accepted: a tensor")
    if x.shape != x0.shape:
        raise ValueError(
            f"{op}: {name} has shape {tuple(x.shape)} and {name0} {tuple(x0.shape)}; they must be equal "
            "(nothing is broadcast: expand the smaller one first)"
        )
    if x.dtype != x0.dtype:
        raise TypeError(f"{op}: {name} is {x.dtype} and {name0} {x0.dtype}; convert one to the other's dtype")
    if x.dtype not in DTYPES:
        raise TypeError(f"{op}: {name} is {x.dtype}; accepted: {', '.join(str(d) for d in DTYPES)}")
    if x.device != x0.device:
        raise ValueError(f"{op}: {name} is on {x.device} and {name0} on {x0.device}; move one to the other's device")


def require_float(op: str, tensor: Tensor, name: str) -> bool:
    """Whether the device wants what is contiguous: the CPU; another one copies, and takes the half types too."""
    require_tensor(f"{op}: {name}", tensor)
    on_cpu = tensor.device.type == "cpu"
    accepted = tuple(LANES) if on_cpu else DTYPES
    if tensor.dtype not in accepted:
        raise TypeError(f"{op}: {name} is {tensor.dtype}; accepted: {', '.join(map(str, accepted))}")
    return on_cpu


def require_tensor(what: str, value: Any) -> None:
    """Raise `TypeError` unless it is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{what} is a {type(value).__name__}; accepted: a tensor")


def require_many(what: str, tensors: Sequence[Tensor], count: int) -> None:
    """Raise `ValueError` unless there are so many."""
    if len(tensors) != count:
        raise ValueError(f"{what} holds {len(tensors)} tensors; accepted: {count}")


def require_dimensions(op: str, tensors: Mapping[str, tuple[Tensor, int]]) -> None:
    """Raise unless each is a tensor of so many dimensions."""
    for name, (tensor, dimensions) in tensors.items():
        require_tensor(f"{op}: {name}", tensor)
        if tensor.dim() != dimensions:
            raise ValueError(f"{op}: {name} has shape {tuple(tensor.shape)}; accepted: {dimensions} dimension(s)")


def require(
    what: str,
    tensors: Sequence[Tensor],
    shapes: Sequence[tuple[int, ...]],
    dtype: torch.dtype,
    dense: bool = True,
    beside: Tensor | None = None,
) -> None:
    """Raise unless tensors have these shapes and dtype, and are contiguous.

    Beside another tensor they must be on its device, and contiguous only if that is the CPU.
    """
    for tensor, shape in zip(tensors, shapes, strict=True):
        if not isinstance(tensor, Tensor):
            require_tensor(f"{what}: one", tensor)
        if tensor.shape != shape:
            raise ValueError(f"{what}: a tensor has shape {tuple(tensor.shape)}; accepted: {shape}")
        if tensor.dtype != dtype:
            raise TypeError(f"{what}: a tensor is {tensor.dtype}; accepted: {dtype}")
        if beside is not None and tensor.device != beside.device:
            raise ValueError(
                f"{what}: a tensor is on {tensor.device}; move it to {beside.device}, where the others are"
            )
        if (dense if beside is None else tensor.device.type == "cpu") and not tensor.is_contiguous():
            raise ValueError(f"{what}: a tensor of shape {shape} is not contiguous")


def require_within(what: str, index: Tensor, size: int) -> None:
    """Raise `IndexError` unless every number of `index` is one of 0 to `size − 1`; indexing itself takes −1."""
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
        raise IndexError(f"{what} holds numbers outside 0 to {size - 1}")


def require_ends(what: str, ends: Tensor, total: int) -> None:
    """Raise `ValueError` unless `ends` rises from 0 to `total`."""
    found = ends.tolist()
    if not found or found[0] != 0 or found[-1] != total or found != sorted(found):
        raise ValueError(f"{what} must rise from 0 to {total}")

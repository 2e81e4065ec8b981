"""Tensors that no table, and no batch of padded samples, can be made of."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_PLAIN = {
    torch.float16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.uint16, torch.uint32, torch.uint64,
}  # fmt: skip


@dataclass(frozen=True)
class Unusable:
    """What stands for a sample's tensor that cannot be used.

    Attributes:
        reason: what is odd about it, as in "feature 'a' is …".
    """

    reason: str


def has_plain_memory(tensor: Tensor) -> bool:
    """Whether a tensor's values lie in memory, one after the other: it is not sparse, nested, quantized or on meta."""
    return not (
        tensor.layout is not torch.strided or tensor.is_nested or tensor.device.type == "meta" or tensor.is_quantized
    )


def oddity(tensor: Tensor) -> str | None:
    """What is odd about a tensor, or `None`: NumPy has no such thing."""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout is not torch.strided:
        return f"a sparse tensor ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.device.type == "meta":
        return "on the meta device, without values"
    if tensor.is_quantized or tensor.dtype not in _PLAIN:
        return f"{str(tensor.dtype).removeprefix('torch.')}, which tables cannot hold (convert it with .float())"
    return None


def usable(value: Any) -> Any:
    """A sample's field as it is, or :class:`Unusable` where it is an odd tensor or holds one."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, Tensor) and (reason := oddity(part)) is not None:
            return Unusable(reason)
    return value

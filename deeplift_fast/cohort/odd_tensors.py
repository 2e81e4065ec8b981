"""Tensors that fit neither into a table nor into a padded batch."""

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
    """A placeholder for a sample's tensor that cannot be used.

    Attributes:
        reason: its oddity, to complete "feature 'a' is …".
    """

    reason: str


def has_plain_memory(tensor: Tensor) -> bool:
    """Whether a tensor's values lie in memory: it is neither sparse, nested, quantized nor on the meta device."""
    return not (
        tensor.layout is not torch.strided or tensor.is_nested or tensor.device.type == "meta" or tensor.is_quantized
    )


def oddity(tensor: Tensor) -> str | None:
    """The reason why NumPy cannot hold a tensor, or `None`."""
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
    """A sample's field, or :class:`Unusable` if it is or contains an odd tensor."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, Tensor) and (reason := oddity(part)) is not None:
            return Unusable(reason)
    return value

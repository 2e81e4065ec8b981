"""The check that a tensor is plain: dense, with numbers, of a dtype that has arithmetic."""

import torch
from torch import Tensor


def require_plain(what: str, tensor: Tensor) -> None:
    """Raise unless a tensor, called `what` in the message, is plain.

    Raises:
        TypeError: for nested, sparse, quantized, conjugated, negated or 8-bit floating-point tensors.
        ValueError: for tensors on `meta`.
    """
    kind, remedy = _unusual(tensor)
    if kind:
        raise TypeError(f"{what} is {kind}; accepted: a dense tensor of plain numbers, as in {remedy}")
    if tensor.is_meta:
        raise ValueError(f"{what} is on meta, which holds no numbers; accepted: a tensor on the model's device")


def _unusual(tensor: Tensor) -> tuple[str, str]:
    """The kind of an unusual tensor, and the call that makes a plain one of it; empty texts for a plain tensor."""
    if tensor.is_nested:
        return "a nested tensor", "torch.nested.to_padded_tensor(tensor, 0)"
    if tensor.layout is not torch.strided:
        return f"a tensor of layout {tensor.layout}", "tensor.to_dense()"
    if tensor.is_quantized:
        return f"a quantized tensor ({tensor.dtype})", "tensor.dequantize()"
    if tensor.is_conj():
        return f"conjugated and complex ({tensor.dtype})", "tensor.real"
    if tensor.is_neg():
        return "a view with its sign bit set, as the imaginary part of a conjugated tensor has", "tensor.resolve_neg()"
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
        return str(tensor.dtype), "tensor.float()"
    return "", ""

"""Where tensors lie in memory."""

from torch import Tensor


def adjoined(a: Tensor, b: Tensor, dim: int) -> Tensor | None:
    """Both along a dimension without a copy, where `b` follows `a` in one memory; else `None`."""
    follows = b.storage_offset() == a.storage_offset() + a.shape[dim] * a.stride(dim)
    memory, other = (each.untyped_storage()._cdata for each in (a, b))
    if not follows or a.stride() != b.stride() or memory != other:
        return None
    shape = [size + (b.shape[dim] if i == dim else 0) for i, size in enumerate(a.shape)]
    return a.as_strided(shape, a.stride())

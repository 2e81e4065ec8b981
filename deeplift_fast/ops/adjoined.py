"""Two neighbouring tensors as one, without a copy."""

from torch import Tensor


def adjoined(a: Tensor, b: Tensor, dim: int) -> Tensor | None:
    """One view of `a` and `b` along a dimension if `b` follows `a` in the same storage; else `None`."""
    follows = b.storage_offset() == a.storage_offset() + a.shape[dim] * a.stride(dim)
    storage, other = (each.untyped_storage()._cdata for each in (a, b))
    if not follows or a.stride() != b.stride() or storage != other:
        return None
    shape = [size + (b.shape[dim] if i == dim else 0) for i, size in enumerate(a.shape)]
    return a.as_strided(shape, a.stride())

"""Plain torch implementations: the fallback on every device, and the oracle of the kernels' tests."""

from deeplift_fast.ops.naive.secant import secant

__all__ = ["secant"]

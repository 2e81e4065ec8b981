"""Plain torch implementations: the fallback on every device, and the oracle of the kernels' tests."""

from deeplift_fast.ops.naive.recurrent import recurrent, recurrent_backward
from deeplift_fast.ops.naive.secant import secant
from deeplift_fast.ops.naive.token_contributions import token_contributions

__all__ = ["recurrent", "recurrent_backward", "secant", "token_contributions"]

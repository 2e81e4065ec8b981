"""Numbers in, numbers out: the arithmetic of the rules, with one implementation per backend."""

import torch
from torch import Tensor

from deeplift_fast.ops import arguments
from deeplift_fast.ops.registry import Backend, BackendWarning, backend_for, backends
from deeplift_fast.ops.schema import NAMESPACE, SCHEMAS

__all__ = ["NAMESPACE", "SCHEMAS", "Backend", "BackendWarning", "backend_for", "backends", "secant"]

_secant = getattr(torch.ops, NAMESPACE).secant.default


def secant(x: Tensor, x0: Tensor, function: str, variant: str = "rescale") -> tuple[Tensor, Tensor, Tensor]:
    """An activation at the input and at the baseline, and its secant multiplier, in one pass over memory.

    Args:
        x: the pre-activation at the input; any shape and strides; float32, float64, float16 or bfloat16 (the
            half types compute in float32).
        x0: the pre-activation at the baseline, with the shape, dtype and device of `x`.
        function: `"relu"`, `"sigmoid"` or `"tanh"`.
        variant: `"rescale"` for `(f(x) − f(x0)) / (x − x0)`, the Rescale rule of Shrikumar et al. 2017,
            "Learning Important Features Through Propagating Activation Differences", eq. 13, without
            cancellation and with the derivative `f'(x)` where `x = x0`; or `"pyhealth"` for PyHealth 2.1's
            `scale · derivative`, with its eps of 1e-7.

    Returns:
        `(f(x), f(x0), multiplier)`, each with the shape, dtype and memory layout of an elementwise result of `x`.
        They carry no gradient: :mod:`deeplift_fast.rules` is what backpropagates multipliers. NaN in either input
        gives a NaN multiplier; ±inf gives the limit.

    Raises:
        ValueError: if shapes or devices differ, or `function` or `variant` is unknown.
        TypeError: if dtypes differ or are not floating point.
    """
    arguments.check_secant(x, x0, function, variant)
    return _secant(x, x0, function, variant)

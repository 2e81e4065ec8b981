"""What an op accepts: the checks that its Python implementations share."""

import torch
from torch import Tensor

FUNCTIONS = ("relu", "sigmoid", "tanh")
VARIANTS = ("rescale", "pyhealth")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_secant(x: Tensor, x0: Tensor, function: str, variant: str) -> None:
    """Raise `ValueError` or `TypeError` unless :func:`deeplift_fast.ops.secant` accepts the arguments."""
    if function not in FUNCTIONS:
        raise ValueError(f"secant: function is {function!r}; accepted: {', '.join(FUNCTIONS)}")
    if variant not in VARIANTS:
        raise ValueError(f"secant: variant is {variant!r}; accepted: {', '.join(VARIANTS)}")
    for name, value in (("x", x), ("x0", x0)):
        if not isinstance(value, Tensor):
            raise TypeError(f"secant: {name} is a {type(value).__name__}; accepted: a tensor")
    if x.shape != x0.shape:
        raise ValueError(
            f"secant: x has shape {tuple(x.shape)} and x0 {tuple(x0.shape)}; they must be equal "
            "(nothing is broadcast: expand the smaller one first)"
        )
    if x.dtype != x0.dtype:
        raise TypeError(f"secant: x is {x.dtype} and x0 {x0.dtype}; convert one to the other's dtype")
    if x.dtype not in DTYPES:
        raise TypeError(f"secant: x is {x.dtype}; accepted: {', '.join(str(d) for d in DTYPES)}")
    if x.device != x0.device:
        raise ValueError(f"secant: x is on {x.device} and x0 on {x0.device}; move one to the other's device")

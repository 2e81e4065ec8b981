"""Baselines of a module's inputs, and the check for finite values."""

import math
from collections.abc import Hashable
from numbers import Real

import torch
from torch import Tensor

from deeplift_fast.core.questions import NOW, Questions
from deeplift_fast.errors import ArgumentTypeError, ArgumentValueError


def resolve(name: Hashable, x: Tensor, baseline: Tensor | Real | None) -> Tensor:
    """A baseline with the shape, dtype and device of the input.

    Args:
        name: the input's name in error messages.
        x: the input, `[batch, …]`, floating point.
        baseline: `None` for zeros, a number, or a tensor of the dtype of `x` or of integers. Its shape is that of `x`
            or of one sample, `[…]` or `[1, …]`.

    Returns:
        The baseline, `[batch, …]`.

    Raises:
        ArgumentTypeError: if it is none of these, or its floating-point dtype differs from that of `x`.
        ArgumentValueError: if its shape or device does not fit.
        ValueError: if it holds NaN or inf.
    """
    if baseline is None:
        return torch.zeros_like(x)
    if isinstance(baseline, Real):
        baseline = torch.full_like(x, float(baseline))
    if not isinstance(baseline, Tensor):
        raise ArgumentTypeError(
            f"the baseline of input {name!r} is a {type(baseline).__name__}; accepted: None, a number, or a tensor"
        )
    if baseline.device != x.device:
        raise ArgumentValueError(
            f"the baseline of input {name!r} is on {baseline.device}, the input on {x.device}; move it there"
        )
    if not baseline.is_floating_point() and not baseline.is_complex():
        baseline = baseline.to(x.dtype)
    if baseline.dtype != x.dtype:
        raise ArgumentTypeError(f"the baseline of input {name!r} is {baseline.dtype}, the input {x.dtype}; convert one")
    if baseline.shape not in (x.shape, x.shape[1:], (1, *x.shape[1:])):
        raise ArgumentValueError(
            f"the baseline of input {name!r} has shape {tuple(baseline.shape)}; accepted: that of the input, "
            f"{tuple(x.shape)}, or that of one sample, {tuple(x.shape[1:])}"
        )
    require_finite(f"the baseline of input {name!r}", baseline)
    baseline = baseline.detach()
    return baseline if baseline.shape == x.shape else baseline.expand(x.shape)


def require_finite(what: str, values: Tensor, questions: Questions = NOW) -> None:
    """Raise `ValueError` if a tensor, called `what` in the message, holds NaN or inf.

    The error is raised as soon as `questions` is answered.
    """
    if not values.is_floating_point() or values.device.type == "meta":
        return
    # One sum is much cheaper than a check of each value. It can overflow, so only a finite sum settles the question.
    questions.total(values.detach(), lambda total: None if math.isfinite(total) else require_each_finite(what, values))


def require_each_finite(what: str, values: Tensor) -> None:
    """Raise `ValueError` if a tensor, called `what` in the message, holds NaN or inf; this waits for its device."""
    bad = values.numel() - int(torch.isfinite(values).sum())
    if bad:
        raise ValueError(
            f"{what} holds {bad} value(s) that are NaN or inf; attribution needs finite values: "
            "impute or drop them first"
        )

"""ReLU, sigmoid and tanh with the Rescale rule, for code that runs both streams itself."""

from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.rules.secant import SecantRule


def relu(x: Tensor, x0: Tensor, variant: str = "rescale") -> Tensor:
    """`torch.relu(x)`, whose backward multiplies by `(relu(x) − relu(x0)) / (x − x0)`.

    The multiplier is 1 where both arguments are positive and 0 where neither is. Otherwise it is `1 / (1 + |b|/a)`,
    where `a` is the positive argument and `b` the other.

    Args:
        x: the argument at the input, of any shape; float32 or float64, also float16 or bfloat16.
        x0: the argument at the baseline, of the same shape, dtype and device. It gets no gradient.
        variant: `"rescale"` for the exact slope (Shrikumar et al. 2017, eq. 13) without an epsilon, and the derivative
            at `x = x0`; or `"pyhealth"` for PyHealth 2.1's `scale · derivative`, with its eps of 1e-7.

    Returns:
        `relu(x)`, of the shape, dtype and strides of `torch.relu(x)`.

    Raises:
        ValueError: if the shapes differ (nothing is broadcast), or `variant` is unknown.
        TypeError: if the dtypes differ or are not supported, or an argument is no tensor.

    Example:
        >>> x = torch.tensor([-1.0], requires_grad=True)
        >>> relu(x, torch.tensor([2.0])).sum().backward()
        >>> x.grad  # (0 - 2) / (-1 - 2)
        tensor([0.6667])
    """
    return _ruled(x, x0, "relu", variant)


def sigmoid(x: Tensor, x0: Tensor, variant: str = "rescale") -> Tensor:
    """`torch.sigmoid(x)`, whose backward multiplies by `(σ(x) − σ(x0)) / (x − x0)`.

    Its form does not cancel: `σ(a) − σ(b) = sinh(Δ/2) · sech(a/2) · sech(b/2) / 2` with `Δ = a − b`.

    Args:
        x: as for :func:`relu`.
        x0: likewise.
        variant: likewise.

    Returns:
        `sigmoid(x)`, as for :func:`relu`.

    Raises:
        ValueError, TypeError: as :func:`relu`.

    Example:
        >>> x = torch.tensor([1.0], requires_grad=True)
        >>> sigmoid(x, torch.tensor([-1.0])).sum().backward()
        >>> x.grad  # (0.7311 - 0.2689) / (1 + 1)
        tensor([0.2311])
    """
    return _ruled(x, x0, "sigmoid", variant)


def tanh(x: Tensor, x0: Tensor, variant: str = "rescale") -> Tensor:
    """`torch.tanh(x)`, whose backward multiplies by `(tanh x − tanh x0) / (x − x0)`.

    Its form does not cancel: `tanh a − tanh b = sinh Δ · sech a · sech b` with `Δ = a − b`.

    Args:
        x: as for :func:`relu`.
        x0: likewise.
        variant: likewise.

    Returns:
        `tanh(x)`, as for :func:`relu`.

    Raises:
        ValueError, TypeError: as :func:`relu`.

    Example:
        >>> x = torch.tensor([12.0], requires_grad=True)
        >>> tanh(x, torch.tensor([0.0])).sum().backward()
        >>> x.grad  # (1 - 0) / (12 - 0)
        tensor([0.0833])
    """
    return _ruled(x, x0, "tanh", variant)


def _ruled(x: Tensor, x0: Tensor, function: str, variant: str) -> Tensor:
    if torch._C._functorch.peek_interpreter_stack() is None:
        return SecantRule.apply(x, x0, function, variant)
    return _Transformed.apply(x, x0, function, variant)[0]


class _Transformed(torch.autograd.Function):
    """The same for the transforms of `torch.func`, which take no Function that saves tensors in its forward pass."""

    @staticmethod
    def forward(x: Tensor, x0: Tensor, function: str, variant: str) -> tuple[Tensor, Tensor]:
        """The activation, and its multiplier."""
        y, _, multiplier = ops.secant(x, x0, function, variant)
        return y, multiplier

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the multiplier."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        """The incoming multiplier times this activation's own."""
        (multiplier,) = ctx.saved_tensors
        return gradient * multiplier, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, x0: Tensor, function: str, variant: str) -> Any:
        """All samples of `torch.vmap` in one call."""
        pairs = zip((x, x0), in_dims[:2], strict=True)
        given = [t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0) for t, dim in pairs]
        return _Transformed.apply(*given, function, variant), (0, 0)

"""A linear layer of a few rows, in plain torch."""

import torch.nn.functional as F
from torch import Tensor


def few_rows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer `x · weightᵀ + bias` of a few rows: reading the weights costs more than the arithmetic.

    Args:
        x: the rows.
        weight: the weights.
        bias: the bias.

    Returns:
        The layer's output.
    """
    return F.linear(x, weight, bias)


def few_rows_backward(m: Tensor, weight: Tensor) -> Tensor:
    """The multipliers of :func:`few_rows`'s rows: a linear layer's ordinary gradient is exact.

    Args:
        m: the multipliers of the output.
        weight: the weights.

    Returns:
        The multipliers of the rows.
    """
    return m @ weight

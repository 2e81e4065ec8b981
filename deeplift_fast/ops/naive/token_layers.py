"""The mean of embeddings and two layers in both streams, in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplift_fast.ops.checks import computed
from deeplift_fast.ops.naive.secant import secant
from deeplift_fast.ops.naive.token_contributions import token_contributions


def token_layers(
    table: Tensor,
    tokens: Tensor,
    baseline: Tensor,
    real: Tensor,
    weight: Tensor,
    bias: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    begin: float,
    end: float,
    function: str,
    variant: str,
) -> tuple[Tensor, Tensor]:
    """The mean of a sample's embeddings, a linear layer, an activation and a linear layer, in both streams.

    Args:
        table: the embeddings.
        tokens: the tokens at the input.
        baseline: the tokens at the baseline.
        real: the tokens that count: a mean is the sum of all embeddings by their number, in both streams.
        weight: the weights of the first layer.
        bias: its bias.
        weight2: the weights of the second layer.
        bias2: its bias.
        begin: the point of the line from the baseline's mean (0) to the input's (1) that is the baseline.
        end: the point that is the input.
        function: the activation.
        variant: as for :func:`deeplift_fast.ops.secant`.

    Returns:
        `(out, slope)`: the result at the input and then at the baseline, and the multipliers of the activation.

    Raises:
        RuntimeError, IndexError: if a token has no embedding.
    """
    wide = computed(table.dtype)
    x, x0 = (table.to(wide)[each].sum(1) / real.sum(1, keepdim=True) for each in (tokens, baseline))
    ends = torch.cat([torch.lerp(x0, x, end), torch.lerp(x0, x, begin)])
    inner, inner0 = F.linear(ends, weight.to(wide), bias.to(wide)).chunk(2)
    y, y0, slope = secant(inner, inner0, function, variant)
    out = F.linear(torch.cat([y, y0]), weight2.to(wide), bias2.to(wide))
    return out.to(table.dtype), slope.to(table.dtype)


def token_layers_backward(
    m: Tensor,
    weight2: Tensor,
    slope: Tensor,
    weight: Tensor,
    table: Tensor,
    tokens: Tensor,
    baseline: Tensor,
    real: Tensor,
) -> Tensor:
    """The way back of :func:`token_layers`: contributions of the tokens, of the whole line from baseline to input.

    Args:
        m: the multipliers of `out`; one row serves all samples.
        weight2: as for :func:`token_layers`.
        slope: its result.
        weight: as for :func:`token_layers`.
        table: likewise.
        tokens: likewise.
        baseline: likewise.
        real: likewise.

    Returns:
        The contribution of each token.

    Raises:
        RuntimeError, IndexError: if a token has no embedding.
    """
    wide = computed(table.dtype)
    pooled = (m.to(wide) @ weight2.to(wide) * slope.to(wide)) @ weight.to(wide) / real.sum(1, keepdim=True)
    return token_contributions(table.to(wide), tokens, baseline, pooled).to(table.dtype)

"""Contributions of pooled tokens in plain torch, one slot at a time."""

import torch
from torch import Tensor

from deeplift_fast.ops.checks import computed


def token_contributions(weight: Tensor, tokens: Tensor, baseline: Tensor, multipliers: Tensor) -> Tensor:
    """Contributions of tokens whose embeddings are summed: `(E[token] − E[baseline])·m`.

    Args:
        weight: the embeddings.
        tokens: the tokens at the input.
        baseline: the tokens at the baseline.
        multipliers: multipliers of each row's sum of embeddings.

    Returns:
        The contribution of each token.

    Raises:
        RuntimeError, IndexError: if a token has no embedding.
    """
    wide = computed(weight.dtype)
    embeddings, m = weight.to(wide), multipliers.to(wide)
    columns = [
        ((embeddings[tokens[:, slot]] - embeddings[baseline[:, slot]]) * m).sum(-1).to(weight.dtype)
        for slot in range(tokens.shape[1])
    ]
    return torch.stack(columns, 1) if columns else multipliers.new_zeros(tokens.shape)

"""Contributions of pooled tokens in plain torch, one slot at a time."""

import torch
from torch import Tensor


def token_contributions(weight: Tensor, tokens: Tensor, baseline: Tensor, multipliers: Tensor) -> Tensor:
    """See :func:`deeplift_fast.ops.token_contributions`."""
    columns = [
        ((weight[tokens[:, slot]] - weight[baseline[:, slot]]) * multipliers).sum(-1) for slot in range(tokens.shape[1])
    ]
    return torch.stack(columns, 1) if columns else multipliers.new_zeros(tokens.shape)

"""Contributions of pooled tokens in plain torch, one slot at a time."""

import torch
from torch import Tensor

from deeplift_fast.ops.requirements import computed


def token_contributions(weight: Tensor, tokens: Tensor, baseline: Tensor, multipliers: Tensor) -> Tensor:
    """See :func:`deeplift_fast.ops.token_contributions`."""
    wide = computed(weight.dtype)
    table, m = weight.to(wide), multipliers.to(wide)
    columns = [
        ((table[tokens[:, slot]] - table[baseline[:, slot]]) * m).sum(-1).to(weight.dtype)
        for slot in range(tokens.shape[1])
    ]
    return torch.stack(columns, 1) if columns else multipliers.new_zeros(tokens.shape)

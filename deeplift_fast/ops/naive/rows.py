"""Rows of pooled tokens, or of continuous values, with their times, in plain torch."""

import torch
from torch import Tensor
from torch.nn.functional import embedding, embedding_bag


def token_rows(weight: Tensor, tokens: Tensor, baseline: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of each step's embeddings, with the step's time as one more column, at the input and at the baseline.

    Args:
        weight: the embeddings, one or more.
        tokens: the tokens at the input. A token without an embedding counts as the nearest one that has one.
        baseline: the tokens at the baseline, likewise.
        times: the time of each step.

    Returns:
        `(rows, both)`: the rows, step by step, and the tokens in that order.
    """
    both = torch.stack([tokens, baseline]).transpose(1, 2).clamp(0, len(weight) - 1).contiguous()
    flat = both.flatten(0, 2)
    sums = embedding(flat[:, 0], weight) if flat.shape[1] == 1 else embedding_bag(flat, weight, mode="sum")
    time = times.T[None, :, :, None].expand(2, -1, -1, 1)
    return torch.cat([sums.view(*both.shape[:3], weight.shape[1]), time], -1), both


def value_rows(values: Tensor, baseline: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Each step's values, with the step's time as one more column, at the input and at the baseline.

    Args:
        values: the values at the input.
        baseline: the values at the baseline.
        times: the time of each step.

    Returns:
        `(rows, difference)`: the rows, step by step, and the values minus those at the baseline in that order.
    """
    both = torch.stack([values, baseline]).transpose(1, 2)
    time = times.T[None, :, :, None].expand(2, -1, -1, 1)
    return torch.cat([both, time], -1), (both[0] - both[1]).contiguous()

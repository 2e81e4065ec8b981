"""Batches of tokens and of values with padding, and with numbers that are not finite."""

import math

import torch


def tokens_of(batch, steps, width, seed):
    """Times, of which some are NaN or infinite, and tokens, of which many are 0."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 3, (batch, steps, width), generator=draw) * torch.randint(
        -2, 5, (batch, 1, 1), generator=draw
    )
    return times_of(batch, steps, draw), tokens


def values_of(batch, steps, width, seed, dtype=torch.float64):
    """Values and times, of which many are 0 and some NaN or infinite."""
    draw = torch.Generator().manual_seed(seed)
    of = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.0, 1.5, -2.0, math.nan, math.inf], dtype=dtype)
    return of[torch.randint(0, len(of), (batch, steps, width), generator=draw)], times_of(batch, steps, draw).to(dtype)


def times_of(batch, steps, draw):
    of = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, -1.0, math.nan, -math.inf], dtype=torch.float64)
    return of[torch.randint(0, len(of), (batch, steps), generator=draw)]

"""What a batch of tokens tells of itself, in plain torch."""

import torch
from torch import Tensor


def token_survey(times: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The real tokens of a batch, their baseline, each sample's steps, and what checks ask for.

    Token 0 is padding and token 1 is the unknown token.

    Args:
        times: the time of each step.
        tokens: the tokens.

    Returns:
        `(real, unknown, held, ends, bounds, bad)`: whether a token is real; 1 there and 0 elsewhere; whether a step has
        a real token; the number of such steps, at least 1; the smallest and the largest token; whether a time is NaN or
        infinite.

    Raises:
        ValueError: if a sample has no token.
    """
    real = tokens != 0
    held = real.any(-1)
    bounds = torch.stack(tokens.flatten(1).aminmax(dim=1), 1)
    return real, real.long(), held, held.sum(1).clamp(min=1), bounds, ~times.isfinite().all(1)

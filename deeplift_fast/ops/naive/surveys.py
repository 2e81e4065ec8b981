"""What a batch of tokens or of continuous values tells of itself, in plain torch."""

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


def value_survey(values: Tensor, times: Tensor, neutral: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The real steps of a batch of values, their baseline, each sample's steps, and what checks ask for.

    A step is padding if neither it nor a later step of its sample has a value or a time other than 0.

    Args:
        values: the values.
        times: the time of each step.
        neutral: the baseline of a value.

    Returns:
        `(filled, real, baseline, ends, bad)`: whether a step has a value other than 0; whether it is real; `neutral` in
        real steps and the values elsewhere; the number of real steps, at least 1; whether a value or a time is NaN or
        infinite.

    Raises:
        ValueError: if a sample has no step.
    """
    filled = values.any(-1)
    place = torch.arange(1, values.shape[1] + 1, device=values.device)
    ends = (filled.logical_or(times) * place).amax(1)
    real = place <= ends[:, None]
    bad = ~(values.isfinite().flatten(1).all(1) & times.isfinite().all(1))
    return filled, real, torch.where(real[..., None], neutral, values), ends.clamp(min=1), bad

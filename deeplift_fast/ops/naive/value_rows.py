"""Rows of continuous values with their times, in plain torch."""

import torch
from torch import Tensor


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

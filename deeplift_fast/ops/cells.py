"""Recurrent cells in numbers, and how the layers of `lockstep` share rows."""

from collections.abc import Sequence

import torch

SLOPES = {
    "stagenet": ("secant", "pyhealth"),
    "lstm": ("secant", "derivative"),
    "gru": ("secant", "derivative"),
    "rnn_tanh": ("secant", "derivative"),
    "rnn_relu": ("secant", "derivative"),
}
# Of the layer, of its input and of its state.
GATES = {"stagenet": (4, 4, 4), "lstm": (4, 4, 4), "gru": (4, 3, 3), "rnn_tanh": (1, 1, 1), "rnn_relu": (1, 1, 1)}
COEFFICIENTS = {"stagenet": 8, "lstm": 6, "gru": 5, "rnn_tanh": 1, "rnn_relu": 1}  # that the way back needs, by unit
LANES = {torch.float32: 16, torch.float64: 8}  # units of a panel, as the CPU's kernels want them


def going_at(step: int, steps: Sequence[int]) -> int:
    """How many layers of :func:`deeplift_fast.ops.lockstep` have a step."""
    return sum(step < each for each in steps)


def rows_per_sample(steps: Sequence[int]) -> int:
    """Of :func:`deeplift_fast.ops.lockstep`: each layer but the last has as many rows as the first."""
    return (len(steps) - 1) * steps[0] + steps[-1]

"""Numbers of gates, coefficients and lanes of recurrent cells, and the rows and layers of `lockstep`."""

from collections.abc import Sequence

import torch

SLOPES = {
    "stagenet": ("secant", "pyhealth"),
    "lstm": ("secant", "derivative"),
    "gru": ("secant", "derivative"),
    "rnn_tanh": ("secant", "derivative"),
    "rnn_relu": ("secant", "derivative"),
}
# Gates of the layer, of its input and of its state.
GATES = {"stagenet": (4, 4, 4), "lstm": (4, 4, 4), "gru": (4, 3, 3), "rnn_tanh": (1, 1, 1), "rnn_relu": (1, 1, 1)}
COEFFICIENTS = {"stagenet": 8, "lstm": 6, "gru": 5, "rnn_tanh": 1, "rnn_relu": 1}  # per unit, for the backward op
MOST_LAYERS = 16  # of `lockstep`, if samples end at different steps: four bits of an int64 for each
LANES = {torch.float32: 16, torch.float64: 8}  # units of a panel of the CPU's kernels


def going_at(step: int, steps: Sequence[int]) -> int:
    """The number of layers of :func:`deeplift_fast.ops.lockstep` that have a step."""
    return sum(step < each for each in steps)


def rows_per_sample(steps: Sequence[int]) -> int:
    """The rows per sample in :func:`deeplift_fast.ops.lockstep`: all layers but the last are as long as the first."""
    return (len(steps) - 1) * steps[0] + steps[-1]

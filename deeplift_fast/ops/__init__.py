"""Numbers in, numbers out: the arithmetic of the rules, with one implementation per backend."""

from collections.abc import Sequence

import torch
from torch import Tensor

from deeplift_fast.ops import arguments
from deeplift_fast.ops.registry import Backend, BackendWarning, backend_for, backends
from deeplift_fast.ops.schema import NAMESPACE, SCHEMAS

__all__ = [
    "NAMESPACE",
    "SCHEMAS",
    "Backend",
    "BackendWarning",
    "backend_for",
    "backends",
    "recurrent",
    "recurrent_backward",
    "secant",
    "token_contributions",
]

_secant = getattr(torch.ops, NAMESPACE).secant.default
_recurrent = getattr(torch.ops, NAMESPACE).recurrent.default
_recurrent_backward = getattr(torch.ops, NAMESPACE).recurrent_backward.default
_token_contributions = getattr(torch.ops, NAMESPACE).token_contributions.default


def secant(x: Tensor, x0: Tensor, function: str, variant: str = "rescale") -> tuple[Tensor, Tensor, Tensor]:
    """An activation at the input and at the baseline, and its secant multiplier, in one pass over memory.

    Args:
        x: the pre-activation at the input; any shape and strides; float32, float64, float16 or bfloat16 (the
            half types compute in float32).
        x0: the pre-activation at the baseline, with the shape, dtype and device of `x`.
        function: `"relu"`, `"sigmoid"` or `"tanh"`.
        variant: `"rescale"` for `(f(x) − f(x0)) / (x − x0)`, the Rescale rule of Shrikumar et al. 2017,
            "Learning Important Features Through Propagating Activation Differences", eq. 13, without
            cancellation and with the derivative `f'(x)` where `x = x0`; or `"pyhealth"` for PyHealth 2.1's
            `scale · derivative`, with its eps of 1e-7.

    Returns:
        `(f(x), f(x0), multiplier)`, each with the shape, dtype and memory layout of an elementwise result of `x`.
        They carry no gradient: :mod:`deeplift_fast.rules` is what backpropagates multipliers. NaN in either input
        gives a NaN multiplier; ±inf gives the limit.

    Raises:
        ValueError: if shapes or devices differ, or `function` or `variant` is unknown.
        TypeError: if dtypes differ or are not floating point.
    """
    arguments.check_secant(x, x0, function, variant)
    return _secant(x, x0, function, variant)


def recurrent(
    u: Tensor,
    u0: Tensor,
    where: Tensor,
    counts: Tensor,
    counts0: Tensor,
    weights: Sequence[Tensor],
    coefficients: Tensor,
    levels: int,
    cell: str,
    slope: str,
    half: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A recurrent layer over ragged sequences at the input and at the baseline, from zero states.

    Rows are ordered by step, then by sample; samples by falling length (as in PyTorch's `PackedSequence`). Units come
    in panels of `lanes` (16 in float32, 8 in float64), padded by units whose weights are 0.

    Args:
        u: inputs at the input, `[rows, inputs]`, float32 or float64.
        u0: inputs of the baseline's distinct sequences, `[rows0, inputs]`.
        where: the baseline's sequence of each sample, int64 `[samples]`; at least as long as the sample.
        counts: samples at each step, int64 `[steps]`, falling.
        counts0: the baseline's sequences at each step, int64 `[steps]`.
        weights: `weight_u [panels, inputs, gates of the input, lanes]`, `weight_h [panels, units, gates of the state,
            lanes]`, `bias [panels, gates, lanes]`, and of StageNet's master gates `master_u [inputs, width]`,
            `master_h [units, width]`, `master_bias [width]` with the forget gates of all levels, then the input gates.
            Gates are forget, input, output, new (`"stagenet"`, `"lstm"`); new of the input, reset, update, new of the
            state (`"gru"`); or one (`"rnn_tanh"`, `"rnn_relu"`).
        coefficients: written to, for :func:`recurrent_backward`: `[rows, k, units]` with `k` 8 (`"stagenet"`), 6
            (`"lstm"`), 5 (`"gru"`) or 1.
        levels: StageNet's levels, of equally many panels each; 0 for other cells.
        cell: as above.
        slope: an activation's multiplier: `"secant"` (eq. 13 of Shrikumar et al. 2017), `"derivative"` (all but
            StageNet) or `"pyhealth"` (StageNet).
        half: 0.5 for the midpoint rule of products, 0 for their gradient.

    Returns:
        `(h, h0, log_p, log_p0)`: states `[rows, units]` and `[rows0, units]`, and the logarithms of the softmax below
        the master gates, `[rows, 2·levels]` and `[rows0, 2·levels]`.

    Raises:
        ValueError: if shapes do not fit, or `cell` or `slope` is unknown.
        TypeError: for other dtypes.
    """
    arguments.check_recurrent(u, u0, where, counts, counts0, weights, coefficients, levels, cell, slope)
    return _recurrent(u, u0, where, counts, counts0, *weights, coefficients, levels, cell, slope, half)


def recurrent_backward(
    m_h: Tensor,
    m_master: Tensor,
    coefficients: Tensor,
    shares: Tensor,
    counts: Tensor,
    weights: Sequence[Tensor],
    levels: int,
    cell: str,
    inputs: int,
) -> Tensor:
    """Multipliers of a recurrent layer's inputs, from those of its states at every step.

    Args:
        m_h: multipliers of the states, `[rows, units]`.
        m_master: multipliers of StageNet's forget master gates, `[rows, levels]`.
        coefficients: from :func:`recurrent`.
        shares: the logarithmic means of the master gates' probabilities in the two streams (eq. of the log-mean rule),
            or the probabilities at the input, `[rows, 2·levels]`.
        counts: as for :func:`recurrent`.
        weights: `back_u` and `back_h`, `[panels of 4·lanes columns, panels·gates·lanes, 4·lanes]`, and of the master
            gates `back_master_u` and `back_master_h`, `[panels of columns, 2·levels, 4·lanes]`.
        levels: as for :func:`recurrent`.
        cell: as for :func:`recurrent`.
        inputs: how many of the inputs have multipliers: the first ones.

    Returns:
        `[rows, inputs, rounded up to a multiple of the lanes]`.

    Raises:
        ValueError, TypeError: as :func:`recurrent`.
    """
    arguments.check_recurrent_backward(m_h, m_master, coefficients, shares, counts, weights, levels, cell, inputs)
    return _recurrent_backward(m_h, m_master, coefficients, shares, counts, *weights, levels, cell, inputs)


def token_contributions(weight: Tensor, tokens: Tensor, baseline: Tensor, multipliers: Tensor) -> Tensor:
    """Contributions of tokens whose embeddings are summed: `(E[token] − E[baseline])·m`.

    Args:
        weight: the embedding table, `[vocabulary, dim]`, float32 or float64.
        tokens: int64 `[rows, slots]`.
        baseline: int64 `[rows, slots]`.
        multipliers: of each row's sum, `[rows, dim]`.

    Returns:
        `[rows, slots]`.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: for other dtypes.
    """
    arguments.check_token_contributions(weight, tokens, baseline, multipliers)
    return _token_contributions(weight, tokens, baseline, multipliers)

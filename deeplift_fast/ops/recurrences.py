"""Recurrent layers, and what StageNet makes of their states, as public ops; conventions as in the package."""

from collections.abc import Sequence

from torch import Tensor

from deeplift_fast.ops import recurrent_arguments
from deeplift_fast.ops.registry import overload

_recurrent = overload("recurrent")
_recurrent_backward = overload("recurrent_backward")
_lockstep = overload("lockstep")
_lockstep_backward = overload("lockstep_backward")
_stage_window = overload("stage_window")
_stage_window_backward = overload("stage_window_backward")


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
    in panels of `lanes`, padded by units whose weights are 0: on the CPU 16 in float32, 8 in float64; on CUDA any
    number, and all units in one panel make the weights plain matrices.

    Args:
        u: inputs at the input, `[rows, inputs]`, float32 or float64; on CUDA float16 or bfloat16 too, which compute in
            float32 between matrix products.
        u0: inputs of the baseline's distinct sequences, `[rows0, inputs]`.
        where: the baseline's sequence of each sample, int64 `[samples]`; at least as long as the sample.
        counts: samples at each step, int64 `[steps]`, falling. On the CPU, whatever the other tensors' device: from
            another one, reading it waits for the device.
        counts0: the baseline's sequences at each step, int64 `[steps]`.
        weights: `weight_u [panels, inputs, gates of the input, lanes]`, `weight_h [panels, units, gates of the state,
            lanes]`, `bias [panels, gates, lanes]`, and of StageNet's master gates `master_u [inputs, width]`,
            `master_h [units, width]`, `master_bias [width]` with the forget gates of all levels, then the input gates.
            Gates are forget, input, output, new (`"stagenet"`, `"lstm"`); new of the input, reset, update, new of the
            state (`"gru"`); or one (`"rnn_tanh"`, `"rnn_relu"`).
        coefficients: written to, for :func:`recurrent_backward`: `[rows, k, units]` with `k` 8 (`"stagenet"`), 6
            (`"lstm"`), 5 (`"gru"`) or 1.
        levels: StageNet's levels, of equally many units each, one after the other; 0 for other cells.
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

    Numbers on CUDA are not checked, as that would wait for the device: `where` must name sequences that exist.
    """
    recurrent_arguments.check_recurrent(u, u0, where, counts, counts0, weights, coefficients, levels, cell, slope)
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
        weights: `back_u` and `back_h`, `[panels of columns, panels, gates·lanes, wide]`, and of the master gates
            `back_master_u` and `back_master_h`, `[panels of columns, 2·levels, wide]`; on the CPU 4·lanes wide, on CUDA
            any multiple of 4.
        levels: as for :func:`recurrent`.
        cell: as for :func:`recurrent`.
        inputs: how many of the inputs have multipliers: the first ones.

    Returns:
        `[rows, inputs, rounded up to a multiple of a quarter of back_u's panels of columns]`.

    Raises:
        ValueError, TypeError: as :func:`recurrent`.
    """
    recurrent_arguments.check_recurrent_backward(
        m_h, m_master, coefficients, shares, counts, weights, levels, cell, inputs
    )
    return _recurrent_backward(m_h, m_master, coefficients, shares, counts, *weights, levels, cell, inputs)


def lockstep(
    projected: Tensor,
    where: Tensor,
    steps: Sequence[int],
    weight: Tensor,
    bias: Tensor,
    coefficients: Tensor,
    levels: int,
    slope: str,
    half: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """StageNet's cell in several layers of one size, which on CUDA take each step together; as :func:`recurrent`.

    All samples of a layer have as many steps. A layer's rows are ordered by step, then by sample; those of layer i
    begin at `i · samples · steps[0]`. Rows between the layers are not written.

    Args:
        projected: inputs times weights, of all rows at the input and then at the baseline, `[2·rows, columns]`; float32
            or float64, on CUDA float16 or bfloat16 too. Columns are the forget, input, output and new gates of all
            units, the forget master gates of all levels and the input master gates, and any others, which are ignored.
        where: the baseline of each sample, int64 `[samples]`.
        steps: of each layer, falling, 1 or more.
        weight: of the states, `[layers, units, columns]`.
        bias: `[layers, columns]`.
        coefficients: written to, for :func:`lockstep_backward`: `[rows, 8, units]`.
        levels: as for :func:`recurrent`.
        slope: likewise.
        half: likewise.

    Returns:
        `(h, h0, log_p, log_p0)` of all rows, as from :func:`recurrent`.

    Raises:
        ValueError: if shapes do not fit, or `slope` is unknown.
        TypeError: for other dtypes.
    """
    recurrent_arguments.check_lockstep(projected, where, steps, weight, bias, coefficients, levels, slope)
    return _lockstep(projected, where, steps, weight, bias, coefficients, levels, slope, half)


def lockstep_backward(
    m_h: Tensor,
    m_master: Tensor,
    coefficients: Tensor,
    shares: Tensor,
    steps: Sequence[int],
    weight: Tensor,
    levels: int,
) -> Tensor:
    """Multipliers of the pre-activations of :func:`lockstep`, which are those of `projected` at the input.

    Args:
        m_h: multipliers of the states, `[rows, units]`.
        m_master: multipliers of the forget master gates, `[rows, levels]`.
        coefficients: from :func:`lockstep`.
        shares: as for :func:`recurrent_backward`.
        steps: as for :func:`lockstep`.
        weight: likewise.
        levels: likewise.

    Returns:
        `[rows, columns]`; of whatever content in rows that are no layer's and in columns past the gates.

    Raises:
        ValueError, TypeError: as :func:`lockstep`.
    """
    recurrent_arguments.check_lockstep_backward(m_h, m_master, coefficients, shares, steps, weight, levels)
    return _lockstep_backward(m_h, m_master, coefficients, shares, steps, weight, levels)


def stage_window(
    h: tuple[Tensor, Tensor],
    log_p: tuple[Tensor, Tensor],
    places: tuple[Tensor, Tensor],
    rows: tuple[Tensor, Tensor],
    real: Tensor,
    levels: int,
    hidden: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """StageNet's states in the window that each sample's convolution sees, weighted by its stages, in both streams.

    A step's distance is one less the mean of its forget master gates; the stages are the softmax over the window of the
    distances' cumulative sum (Gao et al. 2020, "StageNet: Stage-Aware Neural Networks for Health Risk Prediction").
    Where a sample is shorter than the window, states and distances are 0.

    Args:
        h: states at the input and at the baseline, `[…, units]`, as :func:`recurrent` gives them: level by level, with
            padding after a level's units; float32 or float64, on CUDA float16 or bfloat16 too.
        log_p: from :func:`recurrent`, `[rows, 2·levels]` and `[rows0, 2·levels]`.
        places: where in `h` each window's states stand, int64 `[samples, window]`; anywhere where nothing is real.
        rows: where in `log_p`, likewise.
        real: whether the sample has such a step, bool `[samples, window]`.
        levels: StageNet's levels.
        hidden: units without padding.

    Returns:
        `(local, mean, last, log_stage)`, of the input and then of the baseline: states times stages, `[2, samples,
        window, hidden]`; their mean over the window, `[2, samples, hidden]`; the states at its end, `[2, samples,
        hidden]`; and the stages' logarithms, `[2, samples, window]`.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: for other dtypes.

    On CUDA nothing checks that `places` and `rows` lie inside.
    """
    recurrent_arguments.check_stage_window(h, log_p, places, rows, real, levels, hidden)
    return _stage_window(*h, *log_p, *places, *rows, real, levels, hidden)


def stage_window_backward(
    m_local: Tensor,
    m_mean: Tensor,
    m_last: Tensor,
    h: tuple[Tensor, Tensor],
    places: tuple[Tensor, Tensor],
    rows: Tensor,
    real: Tensor,
    log_stage: Tensor,
    log_p: Tensor,
    levels: int,
    half: float,
) -> tuple[Tensor, Tensor]:
    """Multipliers of :func:`stage_window`'s states and of the forget master gates at the input.

    Args:
        m_local: multipliers of `local`, `[samples, window, hidden]`.
        m_mean: multipliers of `mean`, `[samples, hidden]`.
        m_last: multipliers of `last`, `[samples, hidden]`.
        h: as for :func:`stage_window`.
        places: as there; at the input a row is in one window at most.
        rows: those of the input.
        real: as there.
        log_stage: from there.
        log_p: as there, at the input: its rows are those that have multipliers.
        levels: as there.
        half: 0.5 for the midpoint and log-mean rules, 0 for the gradient at the input.

    Returns:
        `(m_h, m_master)`, of the shape of `h` at the input and `[rows, levels]`; 0 outside the windows.

    Raises:
        ValueError, TypeError: as :func:`stage_window`.
    """
    recurrent_arguments.check_stage_window_backward(
        m_local, m_mean, m_last, h, places, rows, real, log_stage, log_p, levels
    )
    return _stage_window_backward(m_local, m_mean, m_last, *h, *places, rows, real, log_stage, log_p, levels, half)

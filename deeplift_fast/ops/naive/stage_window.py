"""StageNet's stages in the window of steps that each sample's convolution sees, in plain torch.

A step's distance is 1 minus the mean of its forget master gates, which are cumulative sums of p. The stages of a window
are the softmax of the distances' cumulative sum. They follow the log-mean rule, `s∘g − s·(sᵀg)/Σs`, with s the
logarithmic means of the two streams' stages, or the stages at the input.
"""

import torch
from torch import Tensor

from deeplift_fast.ops.naive.log_mean_softmax import log_mean, softmax_back


def stage_window(
    h: Tensor, h0: Tensor, log_p: Tensor, log_p0: Tensor, places: Tensor, places0: Tensor, rows: Tensor, rows0: Tensor,
    real: Tensor, levels: int, hidden: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """StageNet's states in the window that each sample's convolution sees, weighted by its stages, in both streams.

    A step's distance is 1 minus the mean of its forget master gates. The stages are the softmax over the window of the
    distances' cumulative sum (Gao et al. 2020, "StageNet: Stage-Aware Neural Networks for Health Risk Prediction").
    Steps that a sample does not have count with states and distances of 0.

    Args:
        h, h0: states at the input and at the baseline, from :func:`deeplift_fast.ops.recurrent`: level by level, with
            padding after a level's units.
        log_p, log_p0: results of :func:`deeplift_fast.ops.recurrent`.
        places, places0: the rows of `h` and `h0` with each window's states; ignored for steps that are not real.
        rows, rows0: the same for `log_p` and `log_p0`. On CUDA places and rows are not checked.
        real: whether the sample has this step.
        levels: StageNet's levels.
        hidden: units without padding.

    Returns:
        `(local, mean, last, log_stage)`, at the input and then at the baseline: states times stages, their mean over
        the window, the states at its end, and the stages' logarithms.

    Raises:
        RuntimeError, IndexError: if places or rows are out of range.
    """
    samples, window = real.shape
    local, mean = h.new_empty(2, samples, window, hidden), h.new_empty(2, samples, hidden)
    last, log_stage = torch.empty_like(mean), h.new_empty(2, samples, window)
    for stream, (states, log, place, row) in enumerate(((h, log_p, places, rows), (h0, log_p0, places0, rows0))):
        p = log[row.where(real, 0)][..., :levels].exp()
        distance = torch.where(real, 1 - p.cumsum(-1).mean(-1), 0.0)
        log_stage[stream] = torch.log_softmax(distance.cumsum(-1), -1)
        seen = _window(states, place, real, levels, hidden)
        torch.mul(seen, log_stage[stream].exp().unsqueeze(-1), out=local[stream])
        mean[stream], last[stream] = local[stream].mean(1), seen[:, -1]
    return local, mean, last, log_stage


def stage_window_backward(
    m_local: Tensor, m_mean: Tensor, m_last: Tensor, h: Tensor, h0: Tensor, places: Tensor, places0: Tensor,
    rows: Tensor, real: Tensor, log_stage: Tensor, log_p: Tensor, levels: int, half: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Multipliers of :func:`stage_window`'s states and of the forget master gates at the input.

    Args:
        m_local, m_mean, m_last: multipliers of the results of :func:`stage_window`.
        h, h0: as for :func:`stage_window`.
        places, places0: as for :func:`stage_window`; at the input no two windows share a row.
        rows: as for :func:`stage_window`, at the input.
        real: as for :func:`stage_window`.
        log_stage: from :func:`stage_window`.
        log_p: as for :func:`stage_window`, at the input; it gives the number of rows of `m_master`.
        levels: as for :func:`stage_window`.
        half: 0.5 for the midpoint and log-mean rules, 0 for the gradient at the input.

    Returns:
        `(m_h, m_master)`; 0 outside of the windows.

    Raises:
        RuntimeError, IndexError: as :func:`stage_window`.
    """
    (_, window, hidden), wide = m_local.shape, h.shape[1] // levels
    seen = _window(h, places, real, levels, hidden)
    stage = share = log_stage[0].exp()
    if half:
        seen = torch.lerp(seen, _window(h0, places0, real, levels, hidden), half)
        stage, share = torch.lerp(stage, log_stage[1].exp(), half), log_mean(*log_stage)
    m = m_local + (m_mean / window).unsqueeze(1)
    g = softmax_back((m * seen).sum(-1), share, -1)
    m_distance = g.flip(-1).cumsum(-1).flip(-1)
    m = m * stage.unsqueeze(-1)
    m[:, -1] += m_last
    m_h, m_master, m = torch.zeros_like(h), h.new_zeros(len(log_p), levels), m[real]
    if wide * levels != hidden:
        m = torch.nn.functional.pad(m.unflatten(-1, (levels, -1)), (0, wide - hidden // levels)).flatten(-2)
    m_h[places[real]] = m
    m_master[rows[real]] = (m_distance[real] / -levels).unsqueeze(-1).expand(-1, levels)
    return m_h, m_master


def _window(h: Tensor, places: Tensor, real: Tensor, levels: int, hidden: int) -> Tensor:
    """States without each level's padding, `[samples, window, hidden]`."""
    found = h[places.where(real, 0)]
    if h.shape[1] != hidden:
        found = found.unflatten(-1, (levels, -1))[..., : hidden // levels].flatten(-2)
    return torch.where(real.unsqueeze(-1), found, 0.0)

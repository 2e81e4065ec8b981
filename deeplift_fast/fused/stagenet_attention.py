"""StageNetAttentionLayer: StageNet's cell, attention over its states, and the convolution where a sample ends.

The chain of operations is that of PyHealth 2.1's `StageNetAttentionLayer.forward`. Attention is needed only in the rows
that the convolution of each sample's last step sees.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from deeplift_fast.fused.attention import Spans, folded
from deeplift_fast.fused.pair import Arithmetic, Back, Pair, layer_norm
from deeplift_fast.fused.ragged import Ragged
from deeplift_fast.fused.recurrent import States
from deeplift_fast.fused.stagenet import Prepared, Windows, distances, masters_back, staged


def needed(mask: Tensor, ends: Tensor, window: int) -> Tensor:
    """Steps that a sample's output depends on, int64 `[samples]`.

    A step that is masked looks at all steps alike, so a window with such a step needs every state.

    Args:
        mask: `[samples, steps]`.
        ends: one past the step that is kept, `[samples]`.
        window: the steps that the convolution sees.
    """
    step, real = torch.arange(mask.shape[1]), mask.bool()
    seen = (step < ends[:, None]) & (step >= ends[:, None] - window)
    last = torch.where(real, step + 1, 0).amax(1).maximum(ends)
    return torch.where((seen & ~real).any(1), mask.shape[1], last)


def finish(
    layer: Prepared, steps: Ragged, ends: Tensor, mask: Tensor, states: States, arithmetic: Arithmetic
) -> tuple[Pair, Callable]:
    """The last output of a `StageNetAttentionLayer`; arguments as for :func:`deeplift_fast.fused.stagenet.finish`."""
    windows, slots = Windows.of(steps, ends, states, layer.module.conv_size), layer.cell.slots
    h, h0 = states.h.x[:, slots], states.h.facing()[:, slots]
    seen, seen_back = _attended(layer, steps, Pair(h, h0), windows, mask.bool(), arithmetic)
    out, out_back = staged(layer, seen, distances(windows, states, layer.cell.levels), arithmetic)

    def back(m: Tensor) -> tuple[Tensor, Tensor]:
        m_window, m_distance = out_back(m)
        m_window[:, -1] += m
        m_h = torch.zeros_like(states.h.x)
        m_h[:, slots] = seen_back(m_window)
        return m_h, masters_back(m_distance, windows, states, layer.cell.levels)

    return Pair(out.x + seen.x[:, -1], out.x0 + seen.x0[:, -1]), back


def _attended(
    layer: Prepared, steps: Ragged, h: Pair, windows: Windows, mask: Tensor, arithmetic: Arithmetic
) -> tuple[Pair, Back]:
    """`norm(h + attention(h))` in the windows, `[samples, window, hidden]`; 0 before the first step."""
    real, shown = windows.real, windows.rows.x.flatten()
    spans = _spans(steps, windows, mask)
    queries = h.map(lambda x: x[shown])
    added, added_back = folded(layer.module.mha, queries, h, spans, spans, torch.arange(len(windows.step)), arithmetic)
    total = Pair(added.x + queries.x, added.x0 + queries.x0)
    normal, norm_back = layer_norm(total, layer.module.attn_norm, arithmetic)

    def back(m: Tensor) -> Tensor:
        m_total = norm_back((m * real).flatten(0, 1))
        m_queries, m_h = added_back(m_total)
        there = real.flatten()
        m_h[shown[there]] += (m_total + m_queries)[there]  # each row is in one window at most
        return m_h

    return normal.map(lambda x: x.unflatten(0, windows.step.shape) * real), back


def _spans(steps: Ragged, windows: Windows, mask: Tensor) -> Spans:
    """Each sample's window as queries, its steps as rows.

    Positions past a sample's steps are masked, unless a query of it looks at all alike: then there are none.
    """
    samples, size = windows.step.shape
    starts = torch.cat([steps.lengths.new_zeros(1), steps.lengths.cumsum(0)])
    sample = torch.repeat_interleave(torch.arange(samples), steps.lengths)
    step = torch.arange(len(sample)) - starts[sample]
    looks = mask.gather(1, windows.step).flatten()
    return Spans(steps.rows(sample, step), starts, torch.arange(samples + 1) * size, looks, mask[sample, step])

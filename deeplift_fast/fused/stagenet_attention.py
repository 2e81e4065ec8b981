"""StageNetAttentionLayer: StageNet's cell, attention over its states, and the convolution where a sample ends.

The chain of operations is that of PyHealth 2.1's `StageNetAttentionLayer.forward`. Attention is needed only in the rows
that the convolution of each sample's last step sees.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from deeplift_fast.fused.attention import folded
from deeplift_fast.fused.pair import Arithmetic, Back, Pair, layer_norm
from deeplift_fast.fused.ragged import Ragged
from deeplift_fast.fused.recurrent import States
from deeplift_fast.fused.stagenet import Prepared, Windows, distances, masters_back, staged


def finish(layer: Prepared, steps: Ragged, states: States, arithmetic: Arithmetic) -> tuple[Pair, Callable]:
    """The last output of a `StageNetAttentionLayer`, in the order of `steps`."""
    windows, slots = Windows.of(steps, states, layer.module.conv_size), layer.cell.slots
    h, h0 = states.h.x[:, slots], states.h.facing()[:, slots]
    seen, seen_back = _attended(layer, steps, Pair(h, h0), windows, arithmetic)
    out, out_back = staged(layer, seen, distances(windows, states, layer.cell.levels), arithmetic)

    def back(m: Tensor) -> tuple[Tensor, Tensor]:
        m_window, m_distance = out_back(m)
        m_window[:, -1] += m
        m_h = torch.zeros_like(states.h.x)
        m_h[:, slots] = seen_back(m_window)
        return m_h, masters_back(m_distance, windows, states, layer.cell.levels)

    return Pair(out.x + seen.x[:, -1], out.x0 + seen.x0[:, -1]), back


def _attended(
    layer: Prepared, steps: Ragged, h: Pair, windows: Windows, arithmetic: Arithmetic
) -> tuple[Pair, Back]:
    """`norm(h + attention(h))` in the windows, `[samples, window, hidden]`; 0 before the first step."""
    real, seen = windows.real, windows.rows.x
    step = torch.arange(len(steps.counts))
    there = step < steps.lengths[:, None]
    at = torch.where(there, steps.offsets[step] + torch.arange(len(there))[:, None], 0)
    queries, rows = h.map(lambda x: x[seen]), h.map(lambda x: x[at])
    added, added_back = folded(layer.module.mha, queries, rows, Pair(there, there), arithmetic)
    total = Pair(added.x + queries.x, added.x0 + queries.x0)
    normal, norm_back = layer_norm(total, layer.module.attn_norm, arithmetic)

    def back(m: Tensor) -> Tensor:
        m_total = norm_back(m * real)
        m_queries, m_rows = added_back(m_total)
        m_h = m_rows[steps.place, steps.step]
        shown = real.squeeze(-1)
        m_h[seen[shown]] += (m_total + m_queries)[shown]  # each row is in one window at most
        return m_h

    return normal.map(lambda x: x * real), back

"""StageNetAttentionLayer: StageNet's cell, attention over its states, and the convolution where a sample ends.

The chain of operations is that of PyHealth 2.1's `StageNetAttentionLayer.forward`. Attention is needed only in the rows
that the convolution of each sample's last step sees.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from deeplift_fast.fused.pair import Arithmetic, Back, Pair, layer_norm, linear, softmax
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
    attention, norm = layer.module.mha, layer.module.attn_norm
    heads, size = attention.h, attention.d_k
    w_q, w_k, w_v = (each.weight for each in attention.linear_layers)
    samples, longest = len(steps.order), len(steps.counts)
    real, seen = windows.real, windows.rows.x
    step = torch.arange(longest)
    at = steps.offsets[step] + torch.arange(samples)[:, None]
    there = step < steps.lengths[:, None]
    at = torch.where(there, at, 0)

    keys, _ = linear(h, torch.cat([w_k, w_v]))
    queries, _ = linear(h.map(lambda x: x[seen]), w_q)

    def by_head(x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return tuple(p.transpose(1, 2) for p in x.unflatten(-1, (parts, heads, size)).unbind(2))

    q = queries.map(lambda x: by_head(x, 1)[0])
    k, v = (Pair(a, b) for a, b in zip(by_head(keys.x[at], 2), by_head(keys.x0[at], 2), strict=True))
    scale, hidden_keys = size**-0.5, ~there[:, None, None]
    scores = Pair(*(((a @ b.mT) * scale).masked_fill(hidden_keys, -1e9) for a, b in ((q.x, k.x), (q.x0, k.x0))))
    weights, softmax_back = softmax(scores, arithmetic)
    mixed = Pair(weights.x @ v.x, weights.x0 @ v.x0).map(lambda x: x.transpose(1, 2).flatten(2))
    added, out_back = linear(mixed, attention.output_linear.weight)
    total = Pair(added.x + h.x[seen], added.x0 + h.x0[seen])
    normal, norm_back = layer_norm(total, norm, arithmetic)
    p_mean, q_mean, k_mean, v_mean = (pair.mean(arithmetic.half) for pair in (weights, q, k, v))

    def back(m: Tensor) -> Tensor:
        m_total = norm_back(m * real)
        m_mixed = out_back(m_total).unflatten(-1, (heads, size)).transpose(1, 2)
        m_scores = softmax_back(m_mixed @ v_mean.mT).masked_fill(hidden_keys, 0) * scale
        m_keys = torch.stack([m_scores.mT @ q_mean, p_mean.mT @ m_mixed], 2).permute(0, 3, 2, 1, 4).flatten(2)
        m_q = (m_scores @ k_mean).transpose(1, 2).flatten(2) @ w_q
        m_h = m_keys[steps.place, steps.step] @ torch.cat([w_k, w_v])
        shown = real.squeeze(-1)
        m_h[seen[shown]] += (m_total + m_q)[shown]  # each row is in one window
        return m_h

    return normal.map(lambda x: x * real), back

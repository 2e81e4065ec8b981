"""StageNetAttentionLayer: StageNet's cell, attention over its states, and the convolution where a sample ends.

The chain of operations is that of PyHealth 2.1's `StageNetAttentionLayer.forward`. Attention is needed only in the rows
that the convolution of each sample's last step sees.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplift_fast.pyhealth.fused.attention import Spans, folded
from deeplift_fast.pyhealth.fused.buffers import ramp
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Back, Pair, layer_norm
from deeplift_fast.pyhealth.fused.recurrent import States
from deeplift_fast.pyhealth.fused.sequences import Ragged
from deeplift_fast.pyhealth.fused.stagenet_layer import Prepared, Windows, staged


def needed(mask: Tensor, ends: Tensor, window: int) -> Tensor:
    """Steps that a sample's output depends on, int64 `[samples]`.

    A step that is masked looks at all steps alike, so a window with such a step needs every state.

    Args:
        mask: `[samples, steps]`.
        ends: one past the step that is kept, `[samples]`.
        window: the steps that the convolution sees.
    """
    step, real = ramp(mask.shape[1], 1, mask.device), mask.bool()
    seen = (step < ends[:, None]) & (step >= ends[:, None] - window)
    last = torch.where(real, step + 1, 0).amax(1).maximum(ends)
    return torch.where((seen & ~real).any(1), mask.shape[1], last)


def finish(
    layer: Prepared, steps: Ragged, ends: Tensor, mask: Tensor, states: States, arithmetic: Arithmetic
) -> tuple[Pair, Callable]:
    """The last output of a `StageNetAttentionLayer`.

    Arguments as for :func:`deeplift_fast.pyhealth.fused.stagenet_layer.finish`.
    """
    windows, cell = Windows.of(steps, ends, states, layer.module.conv_size), layer.cell
    h = states.h.map(cell.unpadded)
    seen, seen_back = _attended(layer, steps, h, windows, mask.bool(), arithmetic)
    place = ramp(windows.rows.x.numel(), 1, mask.device).view(windows.rows.x.shape)
    flat = seen.map(lambda x: x.flatten(0, 1))
    out, out_back = staged(layer.tail, flat, Pair(place, place), windows, states.log_p, arithmetic)

    def back(m: Tensor) -> tuple[Tensor, Tensor]:
        m_seen, m_master = out_back(m)
        return cell.padded(seen_back(m_seen.reshape(seen.x.shape))), m_master

    return out, back


def _attended(
    layer: Prepared, steps: Ragged, h: Pair, windows: Windows, mask: Tensor, arithmetic: Arithmetic
) -> tuple[Pair, Back]:
    """`norm(h + attention(h))` in the windows, `[samples, window, hidden]`; 0 before the first step."""
    real = windows.real.squeeze(-1)
    if steps.static:
        shown = shown0 = windows.rows.x.clamp(min=0).flatten()
        spans = spans0 = _all_spans(windows, shown, mask)
    else:
        shown, shown0 = windows.rows.x[real], windows.rows.x0[real]
        spans = _spans(steps, windows, mask)
        spans0 = replace(spans, index=h.facing_rows[spans.index])
    queries = Pair(h.x.index_select(0, shown), h.x0.index_select(0, shown0))
    samples = ramp(len(real), 1, real.device)
    added, added_back = folded(layer.module.mha, queries, h, (spans, spans0), samples, arithmetic)
    normal, norm_back = layer_norm(added.plus(queries), layer.module.attn_norm, arithmetic)

    def lined_up(x: Tensor) -> Tensor:
        if steps.static:
            return x.reshape(-1, *real.shape[1:], x.shape[1]) * windows.real
        return x.new_zeros(*real.shape, x.shape[1]).masked_scatter_(real.unsqueeze(-1), x)

    def back(m: Tensor) -> Tensor:
        m_total = norm_back((m * windows.real).flatten(0, 1) if steps.static else m[real])
        m_queries, m_h = added_back(m_total)
        m_queries.add_(m_total)
        return m_h.index_add_(0, shown, m_queries)

    return normal.apart().map(lined_up), back


def _all_spans(windows: Windows, shown: Tensor, mask: Tensor) -> Spans:
    """Every step of each sample's window as queries, and all of its steps as rows; `shown` are the queries' rows.

    What is before a window's first step asks too, and is not read.
    """
    (samples, steps), size, device = mask.shape, windows.rows.x.shape[1], mask.device
    index = ramp(samples * steps, 1, device).view(steps, samples).T.reshape(-1)
    starts, queries = (ramp(samples + 1, each, device) for each in (steps, size))
    looks = mask.T.take(shown)
    return Spans(index, starts, queries, looks, mask.flatten(), samples * steps * size)


def _spans(steps: Ragged, windows: Windows, mask: Tensor) -> Spans:
    """The real steps of each sample's window as queries, its steps as rows.

    Positions past a sample's steps are masked, unless a query of it looks at all alike: then there are none.
    """
    real = windows.real.squeeze(-1)
    asking = real.sum(1)
    starts, queries = (F.pad(counts.cumsum(0), (1, 0)) for counts in (steps.lengths, asking))
    sample = torch.repeat_interleave(torch.arange(len(real), device=real.device), steps.lengths)
    step = torch.arange(len(sample), device=sample.device) - starts[sample]
    looks = mask.gather(1, steps.step[windows.rows.x])[real]
    pairs = int((steps.lengths * asking).sum())
    return Spans(steps.rows(sample, step), starts, queries, looks, mask[sample, step], pairs)

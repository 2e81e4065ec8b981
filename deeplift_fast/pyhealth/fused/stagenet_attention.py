"""StageNetAttentionLayer: StageNet's cell, attention over its states, and the convolution over the last steps.

The operations and their order are those of `StageNetAttentionLayer.forward` in PyHealth 2.1. Attention is computed only
for the steps that the convolution at the end of each sample sees.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, override

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplift_fast.core.constants import ramp
from deeplift_fast.pyhealth.fused.attention import Spans, folded
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Back, Pair, layer_norm
from deeplift_fast.pyhealth.fused.recurrent import States
from deeplift_fast.pyhealth.fused.sequences import Steps
from deeplift_fast.pyhealth.fused.stagenet_layer import Prepared, Windows, staged


def needed(mask: Tensor, ends: Tensor, window: int) -> Tensor:
    """The number of first steps that a sample's output depends on, int64 `[samples]`.

    A masked step attends to all steps equally, so a window with such a step needs every state.

    Args:
        mask: the mask of steps, `[samples, steps]`.
        ends: one past the step that is kept, `[samples]`.
        window: the number of steps that the convolution sees.
    """
    step, real = ramp(mask.shape[1], 1, mask.device), mask.bool()
    seen = (step < ends[:, None]) & (step >= ends[:, None] - window)
    last = torch.where(real, step + 1, 0).amax(1).maximum(ends)
    return torch.where((seen & ~real).any(1), mask.shape[1], last)


def finish(
    layer: Prepared, steps: Steps, ends: Tensor, mask: Tensor, states: States, arithmetic: Arithmetic
) -> tuple[Pair, Callable]:
    """The last output of a `StageNetAttentionLayer`.

    Arguments as for :func:`deeplift_fast.pyhealth.fused.stagenet_layer.finish`.
    """
    windows, cell = Windows.of(steps, ends, states.h, layer.module.conv_size), layer.cell
    h, mask = states.h.map(cell.unpadded), mask.bool()
    queries = _AllQueries(windows, mask) if arithmetic.static else _RealQueries(steps, h, windows, mask)
    seen, seen_back = _attended(layer, h, queries, arithmetic)
    place = ramp(windows.rows.x.numel(), 1, mask.device).view(windows.rows.x.shape)
    flat = seen.map(lambda x: x.flatten(0, 1))
    out, out_back = staged(layer.tail, flat, Pair(place, place), windows, states.log_p, arithmetic)

    def back(m: Tensor) -> tuple[Tensor, Tensor]:
        m_seen, m_master = out_back(m)
        return cell.padded(seen_back(m_seen.reshape(seen.x.shape))), m_master

    return out, back


class _Queries(Protocol):
    """The window steps whose attention is computed.

    Attributes:
        rows: their states' rows, int64 `[queries]` in both streams.
        spans: the queries and the states of each sample, at the input and at the baseline.
    """

    rows: Pair
    spans: tuple[Spans, Spans]

    def spread(self, x: Tensor) -> Tensor:
        """`[queries, hidden]` to `[samples, window, hidden]`; 0 before the first step."""
        ...

    def taken(self, m: Tensor) -> Tensor:
        """The transpose of :meth:`spread`."""
        ...


class _RealQueries(_Queries):
    """The real steps of each window.

    No query attends to a step without a row: :func:`needed` keeps every row where a query attends to all steps.
    """

    def __init__(self, steps: Steps, h: Pair, windows: Windows, mask: Tensor) -> None:
        self._real = windows.real.squeeze(-1)
        self.rows = windows.rows.map(lambda rows: rows[self._real])
        asking = self._real.sum(1)
        starts, queries = (F.pad(counts.cumsum(0), (1, 0)) for counts in (steps.lengths, asking))
        sample = torch.repeat_interleave(torch.arange(len(asking), device=asking.device), steps.lengths)
        step = torch.arange(len(sample), device=sample.device) - starts[sample]
        looks = mask.gather(1, steps.step[windows.rows.x])[self._real]
        spans = Spans(steps.rows(sample, step), starts, queries, looks, mask[sample, step])
        self.spans = spans, replace(spans, index=h.facing_rows[spans.index])

    @override
    def spread(self, x: Tensor) -> Tensor:
        return x.new_zeros(*self._real.shape, x.shape[1]).masked_scatter_(self._real.unsqueeze(-1), x)

    @override
    def taken(self, m: Tensor) -> Tensor:
        return m[self._real]


class _AllQueries(_Queries):
    """Every step of each window; results before a sample's first step are cleared."""

    def __init__(self, windows: Windows, mask: Tensor) -> None:
        self._real = windows.real
        rows = windows.rows.x.clamp(min=0).flatten()
        self.rows = Pair(rows, rows)
        (samples, steps), size, device = mask.shape, windows.rows.x.shape[1], mask.device
        index = ramp(samples * steps, 1, device).view(steps, samples).T.reshape(-1)
        starts, queries = (ramp(samples + 1, each, device) for each in (steps, size))
        spans = Spans(index, starts, queries, mask.T.take(rows), mask.flatten())
        self.spans = spans, spans

    @override
    def spread(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self._real.shape[1:-1], x.shape[1]) * self._real

    @override
    def taken(self, m: Tensor) -> Tensor:
        return (m * self._real).flatten(0, 1)


def _attended(layer: Prepared, h: Pair, queries: _Queries, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """`norm(h + attention(h))` in the windows, `[samples, window, hidden]`; 0 before the first step."""
    rows = queries.rows
    asking = Pair(h.x.index_select(0, rows.x), h.x0.index_select(0, rows.x0))
    samples = ramp(len(queries.spans[0].starts) - 1, 1, h.x.device)
    added, added_back = folded(layer.module.mha, asking, h, queries.spans, samples, arithmetic)
    normal, norm_back = layer_norm(added.plus(asking), layer.module.attn_norm, arithmetic)

    def back(m: Tensor) -> Tensor:
        m_total = norm_back(queries.taken(m))
        m_queries, m_h = added_back(m_total)
        m_queries.add_(m_total)
        return m_h.index_add_(0, rows.x, m_queries)

    return normal.apart().map(queries.spread), back

"""Multi-head attention over each sample's rows. The projections are applied to the queries, not to the rows.

    score = (W_q a)·(W_k b)·scale = (W_kᵀ W_q a)·b·scale,      Σ p W_v b = W_v Σ p b

Linear maps pass multipliers through exactly, so the multipliers equal those in the order of the model's own code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Pair

Back = Callable[[Tensor], tuple[Tensor, Tensor]]
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spans:
    """The rows and queries of each sample in one stream; see :func:`deeplift_fast.ops.attention`.

    Attributes:
        index: the rows, sample by sample, int64 `[all]`.
        starts: the first position of each sample in `index`, and the end, int64 `[samples + 1]`.
        queries: the first query of each sample, and the end, int64 `[samples + 1]`.
        looks: whether a query is at a real position, bool `[queries]`; in PyHealth others attend to all rows equally.
        seen: whether a row is real, bool `[all]`.
    """

    index: Tensor
    starts: Tensor
    queries: Tensor
    looks: Tensor
    seen: Tensor

    def attention(self, asked: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """:func:`deeplift_fast.ops.attention` of one stream."""
        return ops.unchecked.attention(asked, rows, self.index, self.starts, self.queries, self.looks, self.seen)


@dataclass(frozen=True)
class _Maps:
    """The projections, for rows without projection, and their transposes.

    Attributes:
        ask: the queries, `[queries, width]`, to `[heads, queries, width]`, scaled.
        ask_back: the transpose of `ask`.
        answer: weighted sums of rows, `[heads, queries, width]`, to `[queries, width]`.
        answer_back: the transpose of `answer`.
    """

    ask: Map
    ask_back: Map
    answer: Map
    answer_back: Map

    @staticmethod
    def of(attention: Any, queries: int) -> "_Maps":
        """From a `MultiHeadedAttention`; `queries` is their number in both streams and on the way back."""
        heads, size = attention.h, attention.d_k
        scale = size**-0.5
        w_q, w_k, w_v, w_out = (layer.weight for layer in (*attention.linear_layers, attention.output_linear))
        if heads == 1 and queries > size:  # one product of two matrices saves a product per query
            asking, answering = (w_q.T @ w_k).mul_(scale), w_v.T @ w_out.T
            return _Maps(
                lambda a: (a @ asking)[None],
                lambda m: m[0] @ asking.T,
                lambda c: c[0] @ answering,
                lambda m: (m @ answering.T)[None],
            )
        keys, values = (w.unflatten(0, (heads, size)) for w in (w_k, w_v))
        return _Maps(
            lambda a: _to_heads(F.linear(a, w_q).mul_(scale), keys),
            lambda m: _from_heads(m, keys).mul_(scale) @ w_q,
            lambda c: F.linear(_from_heads(c, values), w_out),
            lambda m: _to_heads(m @ w_out, values),
        )


def folded(
    attention: Any, queries: Pair, rows: Pair, spans: tuple[Spans, Spans], where: Tensor, arithmetic: Arithmetic
) -> tuple[Pair, Back]:
    """PyHealth's `MultiHeadedAttention`.

    Args:
        attention: the module; it has no biases.
        queries: `[queries, width]` in both streams.
        rows: keys and values, `[rows, width]`.
        spans: the queries and rows of each sample, at the input and at the baseline.
        where: the baseline's sample of each sample, int64 `[samples]`.
        arithmetic: the rule set.

    Returns:
        `[queries, width]`, and `back` to the multipliers of the queries and of the rows.
    """
    maps = _Maps.of(attention, 2 * len(queries.x) + len(queries.x0))
    asked = queries.apart().map(maps.ask)
    at, at0 = spans
    mixed, log_sums = at.attention(asked.x, rows.x)
    mixed0, log_sums0 = at0.attention(asked.x0, rows.x0)
    out = Pair(mixed, mixed0, queries.where).map(maps.answer)

    def back(m: Tensor) -> tuple[Tensor, Tensor]:
        m_asked, m_rows = ops.unchecked.attention_backward(
            maps.answer_back(m),
            asked.x, asked.x0, rows.x, rows.x0, at.index, at0.index, at.starts, at0.starts,
            at.queries, at0.queries, where, at.looks, at0.looks, at.seen, at0.seen, log_sums, log_sums0,
            arithmetic.half,
        )  # fmt: skip
        return maps.ask_back(m_asked), m_rows

    return out, back


def _to_heads(x: Tensor, weight: Tensor) -> Tensor:
    """`[queries, heads · size]` by `[heads, size, width]`: `[heads, queries, width]`."""
    return torch.bmm(x.unflatten(1, weight.shape[:2]).transpose(0, 1), weight)


def _from_heads(x: Tensor, weight: Tensor) -> Tensor:
    """The transpose: `[heads, queries, width]` to `[queries, heads · size]`."""
    return torch.bmm(x, weight.mT).transpose(0, 1).flatten(1)

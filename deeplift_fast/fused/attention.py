"""Multi-head attention over each sample's own rows, which are not projected: the weights meet the queries instead.

    score = (W_q a)·(W_k b)·scale = (W_kᵀ W_q a)·b·scale,      Σ p W_v b = W_v Σ p b

Linear maps pass multipliers through exactly, so every rule gives what it gives in the order of the model's own code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.fused.pair import Arithmetic, Pair

Back = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Spans:
    """Which rows and queries are whose, in one stream; see :func:`deeplift_fast.ops.attention`.

    Attributes:
        index: each sample's rows, int64 `[all]`.
        starts: where each sample begins in `index`, and the end, int64 `[samples + 1]`.
        queries: where each sample's queries begin, and the end, int64 `[samples + 1]`.
        looks: whether a query is one of a real position, bool `[queries]`; PyHealth lets others look at all alike.
        seen: whether a row is real, bool `[all]`.
        pairs: of a row and a query of one sample, in all.
    """

    index: Tensor
    starts: Tensor
    queries: Tensor
    looks: Tensor
    seen: Tensor
    pairs: int

    def attention(self, asked: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """:func:`deeplift_fast.ops.attention` of one stream."""
        return ops.attention(asked, rows, self.index, self.starts, self.queries, self.looks, self.seen, self.pairs)


def folded(
    attention: Any, queries: Pair, rows: Pair, spans: Spans, spans0: Spans, where: Tensor, arithmetic: Arithmetic
) -> tuple[Pair, Back]:
    """PyHealth's `MultiHeadedAttention`.

    Args:
        attention: the module; it has no biases.
        queries: `[queries, width]` in both streams.
        rows: keys and values, `[rows, width]`.
        spans: which are whose at the input.
        spans0: at the baseline.
        where: the baseline's sample of each sample, int64 `[samples]`.
        arithmetic: the rule set.

    Returns:
        `[queries, width]`, and `back` to the multipliers of the queries and of the rows.
    """
    heads, size = attention.h, attention.d_k
    w_q, w_k, w_v = (layer.weight for layer in attention.linear_layers)
    by_head = [w.unflatten(0, (heads, size)) for w in (w_k, w_v)]
    scale, w_out = size**-0.5, attention.output_linear.weight
    asked = queries.apart().map(lambda a: _to_heads(F.linear(a, w_q).mul_(scale), by_head[0]))
    mixed, log_p = spans.attention(asked.x, rows.x)
    mixed0, log_p0 = spans0.attention(asked.x0, rows.x0)
    out = Pair(mixed, mixed0, queries.where).map(lambda c: F.linear(_from_heads(c, by_head[1]), w_out))

    def back(m: Tensor) -> tuple[Tensor, Tensor]:
        m_asked, m_rows = ops.attention_backward(
            _to_heads(m @ w_out, by_head[1]),
            (asked.x, asked.x0), (rows.x, rows.x0), (spans.index, spans0.index), (spans.starts, spans0.starts),
            (spans.queries, spans0.queries), where, spans.looks, (log_p, log_p0), arithmetic.half,
        )  # fmt: skip
        return _from_heads(m_asked, by_head[0]).mul_(scale) @ w_q, m_rows

    return out, back


def _to_heads(x: Tensor, weight: Tensor) -> Tensor:
    """`[queries, heads · size]` by `[heads, size, width]`: `[heads, queries, width]`."""
    if len(weight) == 1:
        return (x @ weight[0]).unsqueeze(0)
    return torch.bmm(x.unflatten(1, weight.shape[:2]).transpose(0, 1), weight)


def _from_heads(x: Tensor, weight: Tensor) -> Tensor:
    """The transpose: `[heads, queries, width]` to `[queries, heads · size]`."""
    if len(weight) == 1:
        return x[0] @ weight[0].T
    return torch.bmm(x, weight.mT).transpose(0, 1).flatten(1)

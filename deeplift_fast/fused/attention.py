"""Multi-head attention of a few queries over many rows, which are not projected: the weights meet the queries instead.

    score = (W_q a)·(W_k b)·scale = (W_kᵀ W_q a)·b·scale,      Σ p W_v b = W_v Σ p b

Linear maps pass multipliers through exactly, so every rule gives what it gives in the order of the model's own code.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplift_fast.fused.pair import Arithmetic, Pair, softmax

MASKED = -1e9  # PyHealth's logit of a masked position
Back = Callable[[Tensor], tuple[Tensor, Tensor]]


def folded(attention: Any, queries: Pair, rows: Pair, allowed: Pair, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """PyHealth's `MultiHeadedAttention`.

    Args:
        attention: the module; it has no biases.
        queries: `[samples, queries, width]` in both streams.
        rows: keys and values, `[samples, positions, width]`.
        allowed: which positions each query (or all) may look at, bool `[samples, queries or 1, positions]` in both
            streams.
        arithmetic: the rule set.

    Returns:
        `[samples, queries, width]`, and `back` to the multipliers of the queries and of the rows.
    """
    heads, size = attention.h, attention.d_k
    w_q, w_k, w_v = (layer.weight for layer in attention.linear_layers)
    by_head = [w.unflatten(0, (heads, size)) for w in (w_k, w_v)]
    count, scale, w_out = queries.x.shape[1], size**-0.5, attention.output_linear.weight
    allowed = allowed.map(lambda each: each.repeat(1, heads, 1) if each.shape[1] > 1 else each)
    asked = queries.map(lambda a: _to_heads(F.linear(a, w_q).mul_(scale), by_head[0]))
    at_input = _scores(asked.x, rows.x, allowed.x)
    scores = Pair(at_input, _scores(asked.x0, rows.x0, allowed.x0), rows.where)
    weights, softmax_back = softmax(scores, arithmetic)
    mixed = Pair(weights.x @ rows.x, weights.x0 @ rows.x0, rows.where)
    out = mixed.map(lambda c: F.linear(_from_heads(c, by_head[1], count), w_out))
    p_mean, b_mean, a_mean = (pair.mean(arithmetic.half) for pair in (weights, rows, asked))
    forbidden = ~allowed.x

    def back(m: Tensor) -> tuple[Tensor, Tensor]:
        m_mixed = _to_heads(m @ w_out, by_head[1])
        m_scores = softmax_back(m_mixed @ b_mean.mT).masked_fill_(forbidden, 0)
        m_queries = _from_heads(m_scores @ b_mean, by_head[0], count).mul_(scale) @ w_q
        m_rows = torch.baddbmm(p_mean.mT @ m_mixed, m_scores.mT, a_mean)
        return m_queries, m_rows

    return out, back


def _scores(asked: Tensor, rows: Tensor, allowed: Tensor) -> Tensor:
    return (asked @ rows.mT).masked_fill_(~allowed, MASKED)


def _to_heads(x: Tensor, weight: Tensor) -> Tensor:
    """`[samples, queries, heads · size]` by `[heads, size, width]`: `[samples, heads · queries, width]`."""
    heads, size, width = weight.shape
    parts = x.reshape(-1, heads, size).transpose(0, 1)
    found = torch.bmm(parts, weight).unflatten(1, x.shape[:2])  # [heads, samples, queries, width]
    return found.transpose(0, 1).reshape(x.shape[0], heads * x.shape[1], width)


def _from_heads(x: Tensor, weight: Tensor, count: int) -> Tensor:
    """The transpose: `[samples, heads · queries, width]` to `[samples, queries, heads · size]`."""
    heads, size, width = weight.shape
    parts = x.unflatten(1, (heads, count)).transpose(0, 1).reshape(heads, -1, width)
    found = torch.bmm(parts, weight.mT)  # [heads, samples · queries, size]
    return found.transpose(0, 1).reshape(x.shape[0], count, heads * size)

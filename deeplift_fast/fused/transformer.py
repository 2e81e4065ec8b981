"""PyHealth's `TransformerLayer`: every row of its layers but the last, of which the model keeps row 0 alone.

Vaswani et al. 2017, "Attention Is All You Need"; the chain of operations is that of PyHealth 2.1's `TransformerBlock`.
Real rows lie one after the other; only attention lines them up by sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.fused.attention import MASKED, folded
from deeplift_fast.fused.pair import Arithmetic, Back, Pair, elementwise, layer_norm, linear, softmax


@dataclass(frozen=True)
class Lines:
    """Which rows are whose, in one stream.

    Attributes:
        index: the row at each position, int64 `[samples, positions]`; any row where there is none.
        allowed: which positions each sample's row 0 may look at, `[samples, positions]`.
        kept: whether a row is real, `[rows, 1]`; PyHealth clears the feed-forward output of the others.
        sample: each row's sample, `[rows]`.
        position: each row's position, `[rows]`.
    """

    index: Tensor
    allowed: Tensor
    kept: Tensor
    sample: Tensor
    position: Tensor

    @staticmethod
    def of(mask: Tensor) -> "Lines":
        """From the mask of real positions, bool `[samples, positions]`.

        A sample whose first position is masked looks at every position alike, so all of its positions are rows.
        """
        rows = mask | ~mask[:, :1]
        sample, position = rows.nonzero(as_tuple=True)
        index = torch.zeros(mask.shape, dtype=torch.int64)
        index[sample, position] = torch.arange(len(sample))
        return Lines(index, mask & mask[:, :1], mask[sample, position].unsqueeze(-1), sample, position)

    @property
    def first(self) -> Tensor:
        """Each sample's row 0."""
        return self.index[:, 0]


@dataclass(frozen=True)
class Both:
    """The lines of both streams.

    Attributes:
        lines: at the input.
        lines0: at the baseline.
        kept: the samples that the baseline's lines are those of.
        where: the baseline's line of each sample; `None` where each has its own.
        facing: the baseline's row of each row; `None` likewise.
    """

    lines: Lines
    lines0: Lines
    kept: Tensor
    where: Tensor | None
    facing: Tensor | None

    @staticmethod
    def of(mask: Tensor, baseline: Tensor, share: bool) -> "Both":
        """From the mask and the baseline `[samples, positions, …]`, of which equal samples are kept once if `share`."""
        lines = Lines.of(mask)
        everything = torch.arange(len(mask))
        if share and len(mask) > 1 and bool(mask[:, 0].all()):
            real = mask.reshape(*mask.shape, *[1] * (baseline.dim() - 2))
            kept, where = _distinct(torch.cat([torch.where(real, baseline, 0).flatten(1), mask], 1))
            if len(kept) < len(mask):
                lines0 = Lines.of(mask[kept])
                facing = lines0.index[where[lines.sample], lines.position]
                return Both(lines, lines0, kept, where, facing)
        return Both(lines, lines, everything, None, None)

    def rows(self, x: Tensor, x0: Tensor) -> Pair:
        """A value of every row."""
        return Pair(x, x0, self.facing)

    def samples(self, x: Tensor, x0: Tensor) -> Pair:
        """A value of every sample."""
        return Pair(x, x0, self.where)

    def firsts(self, pair: Pair) -> Pair:
        """Each sample's row 0."""
        return self.samples(pair.x[self.lines.first], pair.x0[self.lines0.first])


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The first of each kind of row, and each row's kind; told apart by a projection, and compared exactly."""
    everything = torch.arange(len(rows))
    weights = torch.linspace(0.5, 1.5, rows.shape[1], dtype=torch.float64).sin_()
    _, where = torch.unique(rows.double() @ weights, return_inverse=True)
    kept = torch.full((int(where.max()) + 1,), len(rows)).scatter_reduce(0, where, everything, "amin")
    return (kept, where) if torch.equal(rows, rows[kept[where]]) else (everything, everything)


def run(blocks: Any, x: Pair, both: Both, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """Row 0 of a `TransformerLayer`'s output, `[samples, width]`.

    Args:
        blocks: its `TransformerBlock`s.
        x: the real rows in both streams.
        both: which rows are whose.
        arithmetic: the rule set.
    """
    backs: list[Callable[[Tensor], Tensor]] = []
    for index, block in enumerate(blocks):
        last = index == len(blocks) - 1
        x, back = _attention_of_first(block, x, both, arithmetic) if last else _attention(block, x, both, arithmetic)
        backs.append(back)
        lines, lines0 = both.lines, both.lines0
        kept, kept0 = (lines.kept[lines.first], lines0.kept[lines0.first]) if last else (lines.kept, lines0.kept)
        x, back = _feed_forward(block, x, kept, kept0, arithmetic)
        backs.append(back)

    def all_back(m: Tensor) -> Tensor:
        for back in reversed(backs):
            m = back(m)
        return m

    return x, all_back


def _feed_forward(block: Any, x: Pair, kept: Tensor, kept0: Tensor, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """`x + w2(gelu(w1(norm(x))))`, the second part 0 in rows that are not real."""
    layer = block.feed_forward
    y, norm_back = layer_norm(x, block.output_sublayer.norm, arithmetic)
    y, first_back = linear(y, layer.w_1.weight, layer.w_1.bias)
    y, gelu_back = elementwise(y, layer.activation, arithmetic)
    y, second_back = linear(y, layer.w_2.weight, layer.w_2.bias)
    out = Pair(x.x + y.x * kept, x.x0 + y.x0 * kept0, x.where)
    return out, lambda m: m + norm_back(first_back(gelu_back(second_back(m * kept))))


def _attention_of_first(block: Any, x: Pair, both: Both, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """Row 0 of `x + attention(norm(x))`. Its query goes through the keys' weights, so that rows are not projected."""
    n, norm_back = layer_norm(x, block.input_sublayer.norm, arithmetic)
    lines, lines0 = both.lines, both.lines0
    out, first = both.firsts(x), both.firsts(n).map(lambda f: f.unsqueeze(1))
    padded = both.samples(n.x[lines.index], n.x0[lines0.index])
    allowed = both.samples(lines.allowed.unsqueeze(1), lines0.allowed.unsqueeze(1))
    added, added_back = folded(block.attention, first, padded, allowed, arithmetic)

    def back(m: Tensor) -> Tensor:
        m_first, of_rows = added_back(m.unsqueeze(1))
        m_n = of_rows[lines.sample, lines.position]
        m_n[lines.first] += m_first.squeeze(1)
        m_x = norm_back(m_n)
        m_x[lines.first] += m
        return m_x

    return Pair(out.x + added.x.squeeze(1), out.x0 + added.x0.squeeze(1), both.where), back


def _attention(block: Any, x: Pair, both: Both, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """`x + attention(norm(x))` in every row."""
    attention = block.attention
    heads, size = attention.h, attention.d_k
    joint = torch.cat([layer.weight for layer in attention.linear_layers])
    n, norm_back = layer_norm(x, block.input_sublayer.norm, arithmetic)
    projected, joint_back = linear(n, joint)

    def lined_up(rows: Tensor, lines: Lines) -> list[Tensor]:
        by_head = rows[lines.index].unflatten(-1, (3, heads, size))  # [samples, positions, 3, heads, size]
        return [part.transpose(1, 2) for part in by_head.unbind(2)]

    q, k, v = (both.samples(a, b) for a, b in zip(
        lined_up(projected.x, both.lines), lined_up(projected.x0, both.lines0), strict=True))  # fmt: skip
    scale = size**-0.5
    scores = both.samples(_scores(q.x, k.x, both.lines, scale), _scores(q.x0, k.x0, both.lines0, scale))
    weights, softmax_back = softmax(scores, arithmetic)
    mixed = both.rows(_in_rows(weights.x @ v.x, both.lines), _in_rows(weights.x0 @ v.x0, both.lines0))
    added, out_back = linear(mixed, attention.output_linear.weight)
    p_mean, q_mean, k_mean, v_mean = (pair.mean(arithmetic.half) for pair in (weights, q, k, v))
    forbidden = ~_allowed(both.lines)
    lines = both.lines

    def back(m: Tensor) -> Tensor:
        by_head = out_back(m).unflatten(-1, (heads, size))
        m_mixed = by_head.new_zeros(*lines.index.shape, heads, size)
        m_mixed[lines.sample, lines.position] = by_head
        m_mixed = m_mixed.transpose(1, 2)
        m_scores = softmax_back(m_mixed @ v_mean.mT).masked_fill_(forbidden, 0).mul_(scale)
        parts = torch.stack([m_scores @ k_mean, m_scores.mT @ q_mean, p_mean.mT @ m_mixed], 2)
        m_rows = parts.permute(0, 3, 2, 1, 4).flatten(2)[lines.sample, lines.position]
        return m + norm_back(joint_back(m_rows))

    return Pair(x.x + added.x, x.x0 + added.x0, x.where), back


def _allowed(lines: Lines) -> Tensor:
    """Which positions each position may look at, `[samples, 1, positions, positions]`."""
    real = torch.zeros(lines.index.shape, dtype=torch.bool)
    real[lines.sample, lines.position] = lines.kept.squeeze(-1)
    return (real.unsqueeze(1) & real.unsqueeze(2)).unsqueeze(1)


def _scores(q: Tensor, k: Tensor, lines: Lines, scale: float) -> Tensor:
    return (q @ k.mT).mul_(scale).masked_fill_(~_allowed(lines), MASKED)


def _in_rows(mixed: Tensor, lines: Lines) -> Tensor:
    """`[samples, heads, positions, size]` in rows, `[rows, heads · size]`."""
    return mixed.transpose(1, 2)[lines.sample, lines.position].flatten(1)

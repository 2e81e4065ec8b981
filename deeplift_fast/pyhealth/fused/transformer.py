"""`Transformer`: every row of its blocks; of the last block only row 0, the one that the model keeps.

Vaswani et al. 2017, "Attention Is All You Need". The operations and their order are those of `TransformerBlock` in
PyHealth 2.1. The real rows of all samples form one matrix; only attention separates the samples.
"""

import functools
from dataclasses import dataclass
from typing import Any, override

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.core.constants import ramp
from deeplift_fast.core.questions import Questions
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.attention import Spans, folded
from deeplift_fast.pyhealth.fused.entries import between, entry_of, mask_of, step_mask, unfit
from deeplift_fast.pyhealth.fused.model import Contributions, OneByOne, Segment, embeddings, schema_of
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Back, Pair, chained, elementwise, layer_norm, linear
from deeplift_fast.pyhealth.fused.sequences import AllRows, ChosenRows, Rows


@dataclass(frozen=True)
class Lines:
    """The rows of each sample, in one stream.

    Attributes:
        index: the row at each position, int64 `[samples, positions]`; any row at a position without one.
        kept: whether a row is real, `[rows, 1]`; PyHealth sets the feed-forward output of other rows to 0.
        at: the rows' positions in the batch.
        starts: each sample's first row, and the end, int64 `[samples + 1]`.
    """

    index: Tensor
    kept: Tensor
    at: Rows
    starts: Tensor

    @staticmethod
    def of(mask: Tensor) -> "Lines":
        """From the mask of real positions, bool `[samples, positions]`.

        Where the first position of a sample is masked, it attends to all positions equally, so all of them are rows.
        """
        real = mask.numpy()
        first = real[:, :1]
        rows = real if first.all() else real | ~first
        sample, position = rows.nonzero()
        ends = rows.cumsum().reshape(rows.shape)
        starts = np.zeros(len(ends) + 1, np.int64)
        starts[1:] = ends[:, -1]
        kept = np.ones(len(sample), bool) if rows is real else real[rows]
        index = torch.from_numpy(ends - 1)  # never below 0, because the first position is always a row
        at = ChosenRows(torch.from_numpy(sample), torch.from_numpy(position))
        return Lines(index, torch.from_numpy(kept[:, None]), at, torch.from_numpy(starts))

    @staticmethod
    def every(mask: Tensor) -> "Lines":
        """A row for every position, so that the shapes follow from the mask's shape alone."""
        (samples, positions), device = mask.shape, mask.device
        index = ramp(samples * positions, 1, device).view(mask.shape)
        starts = ramp(samples + 1, positions, device)
        return Lines(index, mask.reshape(-1, 1), AllRows(by_step=False), starts)

    @property
    def first(self) -> Tensor:
        """Each sample's row 0."""
        return self.index[:, 0]

    def spans(self, of_first: bool) -> Spans:
        """Queries from every row, or from each sample's row 0 if `of_first`; keys and values from all its rows."""
        kept, device = self.kept.squeeze(-1), self.kept.device
        everything = ramp(len(kept), 1, device)
        if of_first:
            asking = ramp(len(self.index) + 1, 1, device)
            return Spans(everything, self.starts, asking, kept[self.first], kept)
        return Spans(everything, self.starts, self.starts, kept, kept)


@dataclass(frozen=True)
class Both:
    """The lines of both streams.

    Attributes:
        lines: at the input.
        lines0: at the baseline.
        at0: the positions of the baseline's rows in the batch; `None` if they are those of the input's rows.
        where: the baseline's line for each sample; `None` if each sample has its own.
        facing: the baseline's row for each row of the input; `None` likewise.
    """

    lines: Lines
    lines0: Lines
    at0: Rows | None
    where: Tensor | None
    facing: Tensor | None

    @staticmethod
    def of(mask: Tensor, baseline: Tensor, share: bool) -> "Both":
        """From the mask and the baseline, `[samples, positions, …]`; with `share`, equal baselines are kept once."""
        lines = Lines.of(mask)
        if not share or len(mask) < 2 or not mask[:, 0].all():
            return Both.alike(lines)
        kept, where = _distinct(mask.numpy(), baseline.detach().numpy())
        if len(kept) == len(mask):
            return Both.alike(lines)
        samples = torch.from_numpy(kept)
        lines0 = Lines.of(mask[samples])
        assert isinstance(lines0.at, ChosenRows)
        at0 = ChosenRows(samples[lines0.at.sample], lines0.at.step)
        starts, starts0 = lines.starts.numpy(), lines0.starts.numpy()
        facing = np.repeat(starts0[where] - starts[:-1], starts[1:] - starts[:-1]) + np.arange(starts[-1])
        return Both(lines, lines0, at0, torch.from_numpy(where), torch.from_numpy(facing))

    @staticmethod
    def alike(lines: Lines) -> "Both":
        """The same lines in both streams."""
        return Both(lines, lines, None, None, None)

    @property
    def sample_at(self) -> Tensor:
        """The baseline's line for each sample."""
        return ramp(len(self.lines.index), 1, self.lines.index.device) if self.where is None else self.where

    def rows(self, pair: Pair) -> Pair:
        """A value of every row."""
        return pair if self.facing is None else Pair(pair.x, pair.x0, self.facing)

    def firsts(self, pair: Pair) -> Pair:
        """Each sample's row 0."""
        x, x0 = (x.index_select(0, of.first) for x, of in ((pair.x, self.lines), (pair.x0, self.lines0)))
        return Pair(x, x0, self.where)


def _distinct(real: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct samples, compared at real positions: the first of each kind, and the kind of each sample."""
    value = np.where(real.reshape(*real.shape, *[1] * (baseline.ndim - 2)), baseline, 0)
    rows = np.concatenate([value.reshape(len(real), -1), real], 1)
    # A projection finds the kinds fast, and an exact comparison checks them. If it fails, bytes decide.
    _, kept, where = np.unique(rows @ _weights(rows.shape[1]), return_index=True, return_inverse=True)
    if not np.array_equal(rows, rows[kept[where]]):
        as_bytes = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
        _, kept, where = np.unique(as_bytes, return_index=True, return_inverse=True)
    return kept, where


@functools.lru_cache(64)
def _weights(count: int) -> np.ndarray:
    return np.sin(np.linspace(0.5, 1.5, count))


def run(blocks: Any, x: Pair, both: Both, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """Row 0 of a `TransformerLayer`'s output, `[samples, width]`.

    Args:
        blocks: its `TransformerBlock`s.
        x: the real rows in both streams.
        both: the rows of each sample, in both streams.
        arithmetic: the rule set.
    """
    backs: list[Back] = []
    for index, block in enumerate(blocks):
        last = index == len(blocks) - 1
        x, back = _attention(block, x, both, last, arithmetic)
        backs.append(back)
        lines, lines0 = both.lines, both.lines0
        kept, kept0 = (lines.kept[lines.first], lines0.kept[lines0.first]) if last else (lines.kept, lines0.kept)
        x, back = _feed_forward(block, x, kept, kept0, arithmetic)
        backs.append(back)
    return x, chained(backs)


def _feed_forward(block: Any, x: Pair, kept: Tensor, kept0: Tensor, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """`x + w2(gelu(w1(norm(x))))`; the second term is 0 in padding rows."""
    layer = block.feed_forward
    y, norm_back = layer_norm(x, block.output_sublayer.norm, arithmetic)
    y, first_back = linear(y, layer.w_1.weight, layer.w_1.bias)
    y, gelu_back = elementwise(y, layer.activation, arithmetic)
    y, second_back = linear(y, layer.w_2.weight, layer.w_2.bias)
    out = Pair(torch.addcmul(x.x, y.x, kept), torch.addcmul(x.x0, y.x0, kept0), x.where)
    return out, lambda m: norm_back(first_back(gelu_back(second_back(m * kept)))).add_(m)


def _attention(block: Any, x: Pair, both: Both, last: bool, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """`x + attention(norm(x))`: in every row, or in each sample's row 0 of the `last` block."""
    n, norm_back = layer_norm(x, block.input_sublayer.norm, arithmetic)
    out, queries = (both.firsts(x), both.firsts(n)) if last else (x, n)
    lines, lines0 = both.lines, both.lines0
    added, added_back = folded(
        block.attention, queries, n, (lines.spans(last), lines0.spans(last)), both.sample_at, arithmetic
    )

    def back(m: Tensor) -> Tensor:
        m_queries, m_n = added_back(m)
        if not last:
            return norm_back(m_n.add_(m_queries)).add_(m)
        m_x = norm_back(m_n.index_add_(0, lines.first, m_queries))
        return m_x.index_add_(0, lines.first, m)

    return out.plus(added), back


class FusedTransformer(OneByOne):
    """`Transformer`."""

    layer = "TransformerLayer"
    at_once = 256

    def __init__(self, model: Any) -> None:
        self._model = model

    @override
    def is_outdated(self) -> bool:
        return False  # nothing is packed

    @override
    def watch(self, questions: Questions) -> None:
        pass

    @override
    def feature(
        self, key: str, feature: Feature, baseline: BaselineValue, arithmetic: Arithmetic, segment: Segment
    ) -> tuple[Pair, Contributions]:
        layer = embeddings(self._model)[key]
        entry = entry_of(feature, baseline, layer)
        mask = self._mask(key, feature)
        if arithmetic.static:
            both = Both.alike(Lines.every(mask))
        else:
            both = Both.of(mask, entry.baseline, segment[0] == 0)
        x, entered = entry.enter(both.lines.at, both.at0)
        x = between(both.rows(x), *segment)
        if entry.layer is not None:
            x = x.map(entry.layer)
        out, back = run(self._model.transformer[key].transformer, x, both, arithmetic)

        def contributions(m: Tensor) -> Tensor:
            m_rows = back(m)
            m_rows = m_rows if entry.layer is None else m_rows @ entry.layer.weight
            return entered(m_rows).reshape(feature.value.shape)

        return Pair(out.x, out.facing()), contributions

    def _mask(self, key: str, feature: Feature) -> Tensor:
        if not feature.is_token and feature.value.dim() == 2:  # one real step
            if mask_of(feature, schema_of(self._model, key)) is not None:
                raise unfit(feature, "it has a mask of single values")
            return torch.ones(len(feature.value), 1, dtype=torch.bool, device=feature.value.device)
        return step_mask(feature, schema_of(self._model, key)).bool()

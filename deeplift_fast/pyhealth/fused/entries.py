"""The entry of attribution in a feature, and checks that the fused layers fit a batch."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, override

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplift_fast import ops
from deeplift_fast.core.constants import ramp
from deeplift_fast.core.questions import Questions
from deeplift_fast.errors import Unfit
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.pair import Pair
from deeplift_fast.pyhealth.fused.sequences import AllRows, Rows

Contributions = Callable[[Tensor], Tensor]
_SUM = 0  # the mode of `torch.embedding_bag`


class Entry(Protocol):
    """The steps of a feature as rows of numbers.

    Attributes:
        layer: the linear layer that embeds the rows, or `None` if they are embeddings.
        baseline: the feature's value at the baseline, `[batch, steps, …]`.
    """

    layer: nn.Linear | None
    baseline: Tensor

    def enter(self, rows: Rows, rows0: Rows | None = None) -> tuple[Pair, Contributions]:
        """The numbers of these steps, `[rows, width]`, in both streams.

        Args:
            rows: the steps at the input.
            rows0: the steps at the baseline, if they differ.

        Returns:
            The pair, and the way from the multipliers of `rows` to contributions in the value's shape. Other steps
            have 0.
        """
        ...

    def timed(self, times: Tensor) -> tuple[Pair, Contributions] | None:
        """All steps, step by step, with their times as one more column: one launch on a GPU.

        Args:
            times: the time of each step, `[samples, steps]`.

        Returns:
            As :meth:`enter`; `None` if the times have another dtype.
        """
        ...


@dataclass(frozen=True)
class Tokens(Entry):
    """Tokens, `[batch, steps]` or `[batch, steps, slots]`; a step's numbers are the sum of its tokens' embeddings.

    Attributes:
        value: at the input, int64.
        baseline: at the baseline, of the same shape.
        table: the embedding table, `[vocabulary, dim]`.
    """

    value: Tensor
    baseline: Tensor
    table: Tensor
    layer: None = field(default=None, init=False)

    @override
    def enter(self, rows: Rows, rows0: Rows | None = None) -> tuple[Pair, Contributions]:
        slots = [_slots(tokens) for tokens in (self.value, self.baseline)]
        both = rows.stacked(*slots)
        if both is None:
            tokens = rows.take(slots[0])
            pair = Pair(*(pooled(self.table, each) for each in (tokens, (rows0 or rows).take(slots[1]))))
        else:
            both.clamp_(0, len(self.table) - 1)  # the check of tokens may be open, and no GPU may read past the table
            pair = Pair.stacked(pooled(self.table, both))

        def back(m: Tensor) -> Tensor:
            of_rows, of_rows0 = (tokens, rows.take(slots[1])) if both is None else both.chunk(2)
            found = ops.unchecked.token_contributions(self.table, of_rows, of_rows0, m.contiguous())
            return rows.put(found, slots[0].shape).reshape(self.value.shape)

        return pair, back

    @override
    def timed(self, times: Tensor) -> tuple[Pair, Contributions] | None:
        if times.dtype != self.table.dtype:
            return None
        tokens, tokens0 = (_slots(each) for each in (self.value, self.baseline))
        found, both = ops.token_rows(self.table, tokens, tokens0, times)
        of_rows, of_rows0 = both.flatten(1, 2)

        def back(m: Tensor) -> Tensor:
            each = ops.unchecked.token_contributions(self.table, of_rows, of_rows0, m.contiguous())
            return AllRows(by_step=True).put(each, tokens.shape).reshape(self.value.shape)

        return Pair.stacked(found.flatten(0, 2)), back


@dataclass(frozen=True)
class Values(Entry):
    """Continuous values, `[batch, steps, size]`.

    Attributes:
        value: at the input.
        baseline: at the baseline, of the same shape.
        layer: the layer that embeds them.
    """

    value: Tensor
    baseline: Tensor
    layer: nn.Linear

    @override
    def enter(self, rows: Rows, rows0: Rows | None = None) -> tuple[Pair, Contributions]:
        both = rows.stacked(self.value, self.baseline)
        if both is not None:
            pair = Pair.stacked(both)
            return pair, lambda m: rows.put(m * (pair.x - pair.x0), self.value.shape)
        x = rows.take(self.value)

        def back(m: Tensor) -> Tensor:
            return rows.put(m * (x - rows.take(self.baseline)), self.value.shape)

        return Pair(x, (rows0 or rows).take(self.baseline)), back

    @override
    def timed(self, times: Tensor) -> tuple[Pair, Contributions] | None:
        if times.dtype != self.value.dtype or self.baseline.dtype != self.value.dtype:
            return None
        found, difference = ops.value_rows(self.value, self.baseline, times)
        rows = AllRows(by_step=True)
        return Pair.stacked(found.flatten(0, 2)), lambda m: rows.put(m * difference.flatten(0, 1), self.value.shape)


def pooled(table: Tensor, tokens: Tensor) -> Tensor:
    """The sum of the embeddings of each row of tokens, `[rows, slots]`."""
    rows, slots = tokens.shape
    if slots == 1:
        return F.embedding(tokens[:, 0], table)
    # Without its checks and its notes for a gradient, which cost as much as a small sum.
    return torch.embedding_bag(table.detach(), tokens.flatten(), ramp(rows, slots, tokens.device), False, _SUM)[0]


def between(pair: Pair, begin: float, end: float) -> Pair:
    """The points `end` (as the input) and `begin` (as the baseline) of the line from baseline, 0, to input, 1."""
    if (begin, end) == (0, 1):
        return pair
    x0 = pair.facing()
    ends = torch.lerp(x0, pair.x, end), torch.lerp(x0, pair.x, begin)
    return Pair(*ends) if pair.both is None else Pair.stacked(torch.cat(ends))


def _slots(tokens: Tensor) -> Tensor:
    return tokens if tokens.dim() == 3 else tokens.unsqueeze(-1)


def entry_of(feature: Feature, baseline: BaselineValue, layer: Any) -> Tokens | Values:
    """The entry of a feature of shape `[batch, steps]` or `[batch, steps, …]`."""
    if feature.is_token:
        if not isinstance(layer, nn.Embedding) or feature.value.dim() not in (2, 3):
            raise unfit(feature, "its tokens are nested more than once, or not embedded by an nn.Embedding")
        return Tokens(feature.tokens, *tokens_at(feature, baseline, layer.weight))
    require_linear(feature, layer)
    if feature.value.dim() == 2:
        return Values(feature.value.unsqueeze(1), baseline.value.unsqueeze(1), layer)
    if feature.value.dim() != 3:
        raise unfit(feature, f"its values have shape {tuple(feature.value.shape)}, not [batch, steps, size]")
    return Values(feature.value, baseline.value, layer)


def tokens_at(feature: Feature, baseline: BaselineValue, table: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens at the baseline, int64, and the embedding table; a given embedding becomes one more row of it."""
    tokens = _numbered(feature, baseline, len(table))
    if baseline.embedding is None or baseline.embedded is None:
        return tokens, table
    return tokens, torch.cat([table, baseline.embedding.to(table.dtype).unsqueeze(0)])


def with_entered(feature: Feature, at_input: BaselineValue, layer: Any) -> Feature:
    """The feature with other tokens at the input, numbered as by :func:`tokens_at`, and with its own masks."""
    if not isinstance(layer, nn.Embedding):
        raise unfit(feature, "its tokens are not embedded by an nn.Embedding")
    return replace(feature, entered=_numbered(feature, at_input, layer.num_embeddings))


def _numbered(feature: Feature, baseline: BaselineValue, size: int) -> Tensor:
    """The tokens at a baseline, int64; those with a given embedding have the number after the last of `size` tokens."""
    if baseline.embedding is None or baseline.embedded is None:
        return baseline.value.long().contiguous()
    if baseline.embedding.dim() > 1:
        raise unfit(feature, "its baseline is an embedding of its own for each token")
    return torch.where(baseline.embedded, size, baseline.value).long().contiguous()


def require_linear(feature: Feature, layer: Any) -> None:
    """Raise `Unfit` unless a linear layer embeds the values, in their dtype."""
    if not isinstance(layer, nn.Linear) or feature.value.dtype != layer.weight.dtype:
        raise unfit(feature, f"its values ({feature.value.dtype}) are not embedded by an nn.Linear of their dtype")


def unfit(feature: Feature, reason: str) -> Unfit:
    """The error for a feature."""
    return Unfit(f"feature {feature.key!r}: {reason}")


def unfit_if(wrong: bool, feature: Feature, reason: str) -> None:
    """Raise `Unfit` for a feature if `wrong`."""
    if wrong:
        raise unfit(feature, reason)


def mask_of(feature: Feature, schema: tuple[str, ...]) -> Tensor | None:
    """The mask that the model gets with a feature."""
    parts = feature.parts
    mask = parts[schema.index("mask")] if "mask" in schema else None
    mask = parts[-1] if mask is None and len(parts) == len(schema) + 1 else mask
    return mask if isinstance(mask, Tensor) else None


def step_mask(feature: Feature, schema: tuple[str, ...]) -> Tensor:
    """The mask of steps, `[batch, steps]`: a step is real if any of its positions is."""
    mask, value = mask_of(feature, schema), feature.value
    if mask is None or mask.dim() not in (2, value.dim()) or mask.shape != value.shape[: mask.dim()]:
        raise unfit(feature, "its mask does not tell which steps are real")
    return mask.any(-1) if mask.dim() == 3 else mask


def require_flags(feature: Feature, mask: Tensor, ends: Tensor, questions: Questions) -> None:
    """Raise `Unfit` unless a mask of steps holds 0 and 1 only; `ends` are its sums."""
    if mask.dtype == torch.bool or feature.mask is None:  # the mask is derived from the values
        return
    steps, reason = mask.shape[1], "its mask holds numbers other than 0 and 1"
    questions.ask((ends.max(), mask.min()), lambda found: unfit_if(found[0] > steps or found[1] < 0, feature, reason))


def require_same(feature: Feature, mask: Tensor, mask0: Tensor, what: str, questions: Questions) -> None:
    """Raise `Unfit` unless the masks of input and baseline are equal."""
    reason = f"other {what} are real at the baseline"
    questions.ask([(mask != mask0).any()], lambda found: unfit_if(bool(found[0]), feature, reason))

"""The mean over a feature's real positions, where PyHealth's `MLP` starts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deeplift_fast import ops
from deeplift_fast.feature_baselines import BaselineValue
from deeplift_fast.features import Feature
from deeplift_fast.fused.entries import pooled
from deeplift_fast.fused.inputs import tokens_at, unfit
from deeplift_fast.fused.pair import Pair
from deeplift_fast.questions import Questions

Contributions = Callable[[Tensor], Tensor]


def mean_of_tokens(
    feature: Feature,
    baseline: BaselineValue,
    mask: Tensor | None,
    layer: Any,
    table: Tensor,
    questions: Questions,
) -> tuple[Pair, Contributions]:
    """The mean of real tokens' rows of `table`, which are their embeddings by `layer` or what is linear in these."""
    tokens0, table = tokens_at(feature, baseline, table)
    value = questions.within(feature.value, layer.num_embeddings)
    value0 = questions.within(tokens0, len(table))
    if mask is None or mask.shape != value.shape:
        raise unfit(feature, "its mask is not of its tokens' shape")
    count = mask.sum(1, keepdim=True).to(table.dtype)
    if questions.static:
        sums = pooled(table, torch.cat([value, value0]))
        pair = Pair.stacked((sums.unflatten(0, (2, -1)) / count).flatten(0, 1))
    else:
        rows, where = _differing(value0, mask, count, bool(table[0].any()))
        x, x0 = (pooled(table, t) for t in (value, value0 if where is None else value0[:1]))
        pair = Pair(x.div_(count), x0 / rows, where)

    def back(m: Tensor) -> Tensor:
        return ops.token_contributions(table, value, value0, m / count).reshape(feature.value.shape)

    return pair, back


def _differing(baseline: Tensor, mask: Tensor, count: Tensor, padding_counts: bool) -> tuple[Tensor, Tensor | None]:
    """The samples whose means at the baseline differ.

    Args:
        baseline: tokens, int64 `[batch, slots]`.
        mask: `[batch, slots]`.
        count: real tokens of each sample, `[batch, 1]`.
        padding_counts: whether token 0 adds something to a sum.

    Returns:
        Their counts, `[rows, 1]`, and each sample's row, int64 `[batch]`; `None` where each has one of its own. The sum
        is then the first sample's for all.
    """
    lowest, highest = baseline.aminmax()
    if torch.equal(lowest, highest):  # one token, which padding is too
        rows, where = count[:, 0].unique(return_inverse=True)
        return rows[:, None], where
    alike = not mask.is_floating_point() and not padding_counts and torch.equal(highest * mask, baseline)
    if alike and bool(count.all()):  # one token, and padding
        return count[:1], torch.zeros(len(count), dtype=torch.int64, device=count.device)
    return count, None


def mean_of_values(feature: Feature, baseline: Tensor, mask: Tensor | None, layer: Any) -> tuple[Pair, Contributions]:
    """The mean of real steps' embedded values, or of the one step that there is."""
    pair = Pair(feature.value, baseline)
    if pair.x.dim() == 2:
        return pair.map(layer), lambda m: ((m @ layer.weight) * (pair.x - pair.x0)).reshape(feature.value.shape)
    if mask is None or mask.dim() not in (2, 3) or mask.shape != feature.value.shape[: mask.dim()]:
        raise unfit(feature, "its mask does not tell which steps are real")
    mask = mask.to(layer.weight.dtype)
    count = (mask.any(-1).to(mask.dtype) if mask.dim() == 3 else mask).sum(1, keepdim=True)

    def back(m: Tensor) -> Tensor:
        return ((m / count) @ layer.weight).unsqueeze(1) * (pair.x - pair.x0)

    return pair.map(lambda x: layer(x).sum(1) / count), back

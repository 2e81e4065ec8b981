"""PyHealth's `MLP`: the mean over a feature's real positions, and a multi-layer perceptron."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, override

import torch
from torch import Tensor, nn

from deeplift_fast import ops
from deeplift_fast.core.questions import Questions
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.buffers import Watched
from deeplift_fast.pyhealth.fused.entries import (
    between,
    mask_of,
    pooled,
    require_linear,
    tokens_at,
    unfit,
)
from deeplift_fast.pyhealth.fused.model import Contributions, OneByOne, Segment, embeddings, schema_of
from deeplift_fast.pyhealth.fused.pair import SECANTS, Arithmetic, Back, Pair, activation, chained, elementwise, linear


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


@dataclass(frozen=True)
class Shift:
    """What is left of a linear layer whose product is taken already.

    Attributes:
        bias: of the layer, `[width]`, or `None`.
    """

    bias: Tensor | None


class Projected:
    """An embedding table through the linear layer that comes first: one product per token of the vocabulary, kept.

    Args:
        embedding: the embedding layer.
        first: the linear layer.
    """

    def __init__(self, embedding: nn.Embedding, first: nn.Linear) -> None:
        self._embedding, self._first = embedding, first
        self._made: tuple[Watched, Tensor] | None = None

    @staticmethod
    def pays(embedding: Any, first: Any) -> bool:
        """Whether there is such a table, and its rows are no longer than the embeddings."""
        both = isinstance(embedding, nn.Embedding) and isinstance(first, nn.Linear)
        return both and first.out_features <= first.in_features

    def table(self) -> Tensor:
        """`[vocabulary, width]`, without the layer's bias; made anew when a weight has changed."""
        made = self._made
        if made is None or made[0].is_outdated():
            weights = self._embedding.weight, self._first.weight
            made = Watched([self._embedding, self._first]), torch.mm(weights[0], weights[1].T)
            self._made = made
        return made[1]


def run(layers: Sequence[Any], x: Pair, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """`nn.Linear` (or a :class:`Shift`) and activation modules one after the other, on `[samples, width]`."""
    backs: list[Back] = []
    for layer in layers:
        if isinstance(layer, Shift):
            bias = layer.bias
            x = x if bias is None else x.map(lambda each, bias=bias: each + bias)  # type: ignore[misc]
            continue
        if isinstance(layer, nn.Linear):
            x, back = linear(x, layer.weight, layer.bias)
        elif type(layer).__name__.lower() in SECANTS:
            x, back = activation(x, type(layer).__name__.lower(), arithmetic)
        else:
            x, back = elementwise(x, layer, arithmetic)
        backs.append(back)

    return x, chained(backs)


class FusedMLP(OneByOne):
    """`MLP`."""

    layer = "MLP"
    at_once = 4096

    def __init__(self, model: Any) -> None:
        self._model = model
        self._projected = {
            key: Projected(layer, model.mlp[key][0])
            for key, layer in embeddings(model).items()
            if Projected.pays(layer, model.mlp[key][0])
        }

    @override
    def is_outdated(self) -> bool:
        return False  # a table is looked at when it is used

    @override
    def feature(
        self,
        key: str,
        feature: Feature,
        baseline: BaselineValue,
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> tuple[Pair, Contributions]:
        layer, mask = embeddings(self._model)[key], mask_of(feature, schema_of(self._model, key))
        layers = list(self._model.mlp[key])
        if feature.is_token and isinstance(layer, nn.Embedding) and feature.value.dim() == 2:
            table = layer.weight
            whole = baseline.embedding is None and not arithmetic.static
            if key in self._projected and whole and feature.value.numel() >= len(table):
                table, layers[0] = self._projected[key].table(), Shift(layers[0].bias)
            x, entered = mean_of_tokens(feature, baseline, mask, layer, table, arithmetic.questions)
        elif not feature.is_token and feature.value.dim() in (2, 3):
            require_linear(feature, layer)
            x, entered = mean_of_values(feature, baseline.value, mask, layer)
        else:
            raise unfit(feature, f"its value has shape {tuple(feature.value.shape)}")
        out, back = run(layers, between(x, *segment), arithmetic)
        return out, lambda m: entered(back(m))

"""`MLP`: the mean over a feature's real positions, then linear layers and activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, override

import torch
from torch import Tensor, nn

from deeplift_fast import ops
from deeplift_fast.core.questions import Questions
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused.entries import between, mask_of, pooled, require_linear, tokens_at, unfit
from deeplift_fast.pyhealth.fused.model import Contributions, OneByOne, Segment, embeddings, schema_of
from deeplift_fast.pyhealth.fused.pair import SECANTS, Arithmetic, Back, Pair, activation, chained, elementwise, linear
from deeplift_fast.pyhealth.fused.watched import Watched

FEW = 16
"""So few samples have one tensor of both streams: equal rows of the baseline cost less than the search for them."""

IN_ONE_OP, PRODUCTS = 32, 2**20
"""The most samples, and multiplications for a stream, of layers that run as one op: few wait for calls, not numbers."""


def mean_of_tokens(
    feature: Feature, baseline: BaselineValue, mask: Tensor | None, table: Tensor, questions: Questions
) -> tuple[Pair, Contributions]:
    """The mean over real tokens of their rows in `table`: embeddings, or a linear function of these."""
    tokens0, table = tokens_at(feature, baseline, table)
    value = questions.within(feature.tokens, len(table))
    value0 = questions.within(tokens0, len(table))
    if mask is None or mask.shape != value.shape:
        raise unfit(feature, "its mask and its tokens differ in shape")
    count = mask.sum(1, keepdim=True, dtype=table.dtype)
    if questions.static or len(value) <= FEW:
        sums = pooled(table, torch.cat([value, value0]))
        by_stream = sums if len(value) == 1 else sums.view(2, *value.shape[:1], -1)
        pair = Pair.stacked(by_stream.div_(count).view(sums.shape))
    else:
        rows, where = _differing(value0, mask, count, bool(table[0].any()))
        x, x0 = (pooled(table, t) for t in (value, value0 if where is None else value0[:1]))
        pair = Pair(x.div_(count), x0 / rows, where)

    def back(m: Tensor) -> Tensor:
        return ops.unchecked.token_contributions(table, value, value0, m / count)

    return pair, back


def _differing(baseline: Tensor, mask: Tensor, count: Tensor, padding_counts: bool) -> tuple[Tensor, Tensor | None]:
    """The distinct means at the baseline.

    Args:
        baseline: tokens, int64 `[batch, slots]`.
        mask: `[batch, slots]`.
        count: the number of real tokens per sample, `[batch, 1]`.
        padding_counts: whether the embedding of padding differs from 0.

    Returns:
        Their numbers of tokens, `[rows, 1]`, and each sample's row, int64 `[batch]`. The second is `None` if every
        sample has a mean of its own; otherwise all samples have the sum of the first one.
    """
    lowest, highest = baseline.aminmax()
    if torch.equal(lowest, highest):  # padding holds the same token
        rows, where = count[:, 0].unique(return_inverse=True)
        return rows[:, None], where
    alike = not mask.is_floating_point() and not padding_counts and torch.equal(highest * mask, baseline)
    if alike and bool(count.all()):  # every sample has the same real token
        return count[:1], torch.zeros(len(count), dtype=torch.int64, device=count.device)
    return count, None


def mean_of_values(feature: Feature, baseline: Tensor, mask: Tensor | None, layer: Any) -> tuple[Pair, Contributions]:
    """The mean over real steps of embedded values; values without steps count as one step."""
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


class FirstLayers:
    """The mean of embeddings and the first layers after it (linear, activation, linear) as one op, for few samples.

    Args:
        embedding: the embedding layer.
        layers: the layers, of which there may be more.
    """

    def __init__(self, embedding: nn.Embedding, layers: Sequence[Any]) -> None:
        first, activation, second = layers[:3]
        self._table = embedding.weight
        self._weights = first.weight, first.bias, second.weight, second.bias
        self._most = min(IN_ONE_OP, PRODUCTS // max(1, first.weight.numel() + second.weight.numel()))
        self._function = type(activation).__name__.lower()

    @staticmethod
    def fit(embedding: Any, layers: Sequence[Any]) -> bool:
        """Whether the layers are such layers, with weights that the op takes."""
        if (
            len(layers) < 3
            or not isinstance(embedding, nn.Embedding)
            or type(layers[1]).__name__.lower() not in SECANTS
        ):
            return False
        linear = [layer for layer in (layers[0], layers[2]) if isinstance(layer, nn.Linear) and layer.bias is not None]
        weights: list[Tensor] = [embedding.weight, *(layer.weight for layer in linear)]
        return len(linear) == 2 and all(weight.is_contiguous() for weight in weights)

    def take(self, feature: Feature, mask: Tensor) -> bool:
        """Whether a batch is small, with a mask that the op takes."""
        value = feature.value
        return len(value) <= self._most and mask.dtype is torch.bool and mask.shape == value.shape

    def run(
        self, feature: Feature, baseline: BaselineValue, mask: Tensor, variant: str, segment: Segment
    ) -> tuple[Pair, Contributions]:
        """The numbers behind the layers at both ends of a segment, and the way from their multipliers."""
        tokens0, table = tokens_at(feature, baseline, self._table)
        given = table, feature.tokens, tokens0, mask.contiguous()
        weight, _, weight2, _ = self._weights
        both, slope = ops.unchecked.token_layers(*given, *self._weights, *segment, self._function, variant)

        def back(m: Tensor) -> Tensor:
            return ops.unchecked.token_layers_backward(m.contiguous(), weight2, slope, weight, *given)

        return Pair.stacked(both), back


@dataclass(frozen=True)
class Shift:
    """A linear layer without its product, which the table of :class:`Projected` holds.

    Attributes:
        bias: the bias of the layer, `[width]`, or `None`.
    """

    bias: Tensor | None


class Projected:
    """An embedding table multiplied by the first linear layer, once per set of weights.

    Args:
        embedding: the embedding layer.
        first: the linear layer.
    """

    def __init__(self, embedding: nn.Embedding, first: nn.Linear) -> None:
        self._embedding, self._first = embedding, first
        self._made: tuple[Watched, Tensor] | None = None

    @staticmethod
    def pays(embedding: Any, first: Any) -> bool:
        """Whether the two layers allow such a table, with rows no longer than the embeddings."""
        both = isinstance(embedding, nn.Embedding) and isinstance(first, nn.Linear)
        return both and first.out_features <= first.in_features

    def table(self) -> Tensor:
        """The products, `[vocabulary, width]`, without the layer's bias; computed again after a change of weights."""
        made = self._made
        if made is None or made[0].is_outdated():
            weights = self._embedding.weight, self._first.weight
            made = Watched([self._embedding, self._first]), torch.mm(weights[0], weights[1].T)
            self._made = made
        return made[1]


def run(layers: Sequence[Any], x: Pair, arithmetic: Arithmetic) -> tuple[Pair, Back]:
    """A sequence of `nn.Linear`, :class:`Shift` and activation modules, on `[samples, width]`."""
    backs: list[Back] = []
    for layer in layers:
        if isinstance(layer, Shift):
            bias = layer.bias
            x = x if bias is None else x.map(lambda each, bias=bias: each + bias)  # type: ignore[misc]
            continue
        if isinstance(layer, nn.Linear):
            x, back = linear(x, layer.weight, layer.bias)
        elif (name := type(layer).__name__.lower()) in SECANTS:
            x, back = activation(x, name, arithmetic)
        else:
            x, back = elementwise(x, layer, arithmetic)
        backs.append(back)

    return x, chained(backs)


class FusedMLP(OneByOne):
    """`MLP`."""

    layer = "MLP"
    at_once = 4096
    takes_one_row = True

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = {key: (layer, list(model.mlp[key])) for key, layer in embeddings(model).items()}
        self._projected = {
            key: Projected(layer, layers[0])
            for key, (layer, layers) in self._layers.items()
            if Projected.pays(layer, layers[0])
        }
        self._first_layers = {
            key: FirstLayers(layer, layers)
            for key, (layer, layers) in self._layers.items()
            if FirstLayers.fit(layer, layers)
        }

    @override
    def is_outdated(self) -> bool:
        return False  # a table checks its weights at each use

    @override
    def watch(self, questions: Questions) -> None:
        pass  # only the CPU has tables

    @override
    def feature(
        self, key: str, feature: Feature, baseline: BaselineValue, arithmetic: Arithmetic, segment: Segment
    ) -> tuple[Pair, Contributions]:
        layer, layers = self._layers[key]
        mask = mask_of(feature, schema_of(self._model, key))
        is_token = feature.is_token and isinstance(layer, nn.Embedding) and feature.value.dim() == 2
        first = None if arithmetic.static else self._first_layers.get(key)
        if is_token and first is not None and mask is not None and first.take(feature, mask):
            x, entered = first.run(feature, baseline, mask, arithmetic.variant, segment)
            layers, segment = layers[3:], (0.0, 1.0)
        elif is_token:
            table = layer.weight
            whole = baseline.embedding is None and not arithmetic.static
            if key in self._projected and whole and feature.value.numel() >= len(table):
                table, layers = self._projected[key].table(), [Shift(layers[0].bias), *layers[1:]]
            x, entered = mean_of_tokens(feature, baseline, mask, table, arithmetic.questions)
        elif not feature.is_token and feature.value.dim() in (2, 3):
            require_linear(feature, layer)
            x, entered = mean_of_values(feature, baseline.value, mask, layer)
        else:
            raise unfit(feature, f"its value has shape {tuple(feature.value.shape)}")
        out, back = run(layers, between(x, *segment), arithmetic)
        return out, lambda m: entered(back(m))

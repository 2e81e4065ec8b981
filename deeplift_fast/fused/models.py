"""PyHealth's models as chains of fused layers: one class per model, made once and rebuilt when a weight changes."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from pyhealth.models import MLP, RNN, StageAttentionNet, StageNet, Transformer
from torch import Tensor, nn

from deeplift_fast.features import Feature
from deeplift_fast.fused import mlp, rnn, stagenet, stagenet_attention, transformer
from deeplift_fast.fused.entries import Tokens, Values, between
from deeplift_fast.fused.pair import Arithmetic, Back, Pair
from deeplift_fast.fused.ragged import Ragged

Segment = tuple[float, float]
Contributions = Callable[[Tensor], Tensor]


class Unfit(Exception):
    """A batch that the fused layers were not written for."""


class FusedModel(Protocol):
    """A model as a chain of fused layers.

    Attributes:
        layer: the name of its layers.
        at_once: how many samples go through it together.
    """

    layer: str
    at_once: int

    def __init__(self, model: Any) -> None: ...

    def feature(
        self, key: str, feature: Feature, baseline: Tensor, arithmetic: Arithmetic, segment: Segment
    ) -> tuple[Pair, Contributions]:
        """One feature's part of the patient embedding, `[samples, width]`, and from its multipliers to contributions.

        Raises:
            Unfit: for a shape that the layers were not written for.
        """
        ...


def embeddings(model: Any) -> Mapping[str, Any]:
    """A model's embedding layers, by feature key."""
    layers: Mapping[str, Any] = model.embedding_model.embedding_layers
    return layers


def entry_of(feature: Feature, baseline: Tensor, layer: Any) -> Tokens | Values:
    """Where attribution starts in a feature of `[batch, steps]` or `[batch, steps, …]`."""
    if feature.is_token:
        if not isinstance(layer, nn.Embedding) or feature.value.dim() not in (2, 3):
            raise Unfit
        tokens = (feature.value, baseline)
        return Tokens(*(t.to(torch.int64).contiguous() for t in tokens), layer.weight)
    if not isinstance(layer, nn.Linear) or feature.value.dim() != 3 or feature.value.dtype != layer.weight.dtype:
        raise Unfit
    return Values(feature.value, baseline, layer)


def mask_of(feature: Feature, schema: tuple[str, ...]) -> Tensor | None:
    """The mask that the model is given with a feature."""
    parts = feature.parts
    mask = parts[schema.index("mask")] if "mask" in schema else None
    mask = parts[-1] if mask is None and len(parts) == len(schema) + 1 else mask
    return mask if isinstance(mask, Tensor) else None


def _step_mask(feature: Feature, schema: tuple[str, ...]) -> Tensor:
    """The mask of steps, `[batch, steps]`, collapsed as the models do."""
    mask, value = mask_of(feature, schema), feature.value
    if mask is None or mask.dim() not in (2, value.dim()) or mask.shape != value.shape[: mask.dim()]:
        raise Unfit
    return mask.any(-1) if mask.dim() == 3 else mask


def _schema(model: Any, key: str) -> tuple[str, ...]:
    return tuple(model.dataset.input_processors[key].schema())


class FusedStageNet:
    """`StageNet` and `StageAttentionNet`."""

    at_once = 128

    def __init__(self, model: Any) -> None:
        self._model = model
        attention = isinstance(model, StageAttentionNet)
        self.layer = "StageNetAttentionLayer" if attention else "StageNetLayer"
        self._finish = stagenet_attention.finish if attention else stagenet.finish
        self._layers = {
            key: stagenet.prepare(layer, _linear(embeddings(model)[key])) for key, layer in model.stagenet.items()
        }

    def feature(
        self, key: str, feature: Feature, baseline: Tensor, arithmetic: Arithmetic, segment: Segment
    ) -> tuple[Pair, Contributions]:
        """See :class:`FusedModel`."""
        entry = entry_of(feature, baseline, embeddings(self._model)[key])
        schema = _schema(self._model, key)
        mask = _step_mask(feature, schema)
        if feature.is_token and feature.value.dim() == 3 and mask_of(feature, schema).dim() == 2:  # type: ignore
            raise Unfit
        lengths = mask.long().sum(1).clamp(min=1)
        samples, steps = feature.value.shape[:2]
        if int(lengths.max()) > steps or bool((mask.long() < 0).any()):
            raise Unfit
        time = feature.parts[schema.index("time")] if "time" in schema else None
        if time is None:
            time = torch.ones(samples, steps)
        if not isinstance(time, Tensor) or not time.is_floating_point() or time.numel() != samples * steps:
            raise Unfit
        times = time.reshape(samples, steps)
        return stagenet.run(self._layers[key], entry, lengths, times, arithmetic, segment, self._finish)


class FusedTransformer:
    """`Transformer`."""

    layer = "TransformerLayer"
    at_once = 256

    def __init__(self, model: Any) -> None:
        self._model = model

    def feature(
        self, key: str, feature: Feature, baseline: Tensor, arithmetic: Arithmetic, segment: Segment
    ) -> tuple[Pair, Contributions]:
        """See :class:`FusedModel`."""
        layer = embeddings(self._model)[key]
        entry = entry_of(feature, baseline, layer)
        mask = _step_mask(feature, _schema(self._model, key)).bool()
        if mask.shape[1] > self._model.max_seq_len:
            raise Unfit
        both = transformer.Both.of(mask, entry.baseline, segment[0] == 0)
        lines, lines0 = both.lines, both.lines0
        x = both.rows(
            entry.at_input(lines.sample, lines.position), entry.at_baseline(both.kept[lines0.sample], lines0.position)
        )
        x = between(x, *segment)
        if entry.layer is not None:
            x = x.map(entry.layer)
        out, back = transformer.run(self._model.transformer[key].transformer, x, both, arithmetic)

        def contributions(m: Tensor) -> Tensor:
            m_rows = back(m)
            m_rows = m_rows if entry.layer is None else m_rows @ entry.layer.weight
            return entry.contributions(lines.sample, lines.position, m_rows)

        return Pair(out.x, out.facing()), contributions


class FusedMLP:
    """`MLP`."""

    layer = "MLP"
    at_once = 4096

    def __init__(self, model: Any) -> None:
        self._model = model

    def feature(
        self, key: str, feature: Feature, baseline: Tensor, arithmetic: Arithmetic, segment: Segment
    ) -> tuple[Pair, Contributions]:
        """See :class:`FusedModel`."""
        layer, mask = embeddings(self._model)[key], mask_of(feature, _schema(self._model, key))
        if feature.is_token and isinstance(layer, nn.Embedding) and feature.value.dim() in (2, 3):
            if feature.value.dim() == 3 and (feature.mask is not None or arithmetic.rules == "pyhealth"):
                raise Unfit
            x, entered = _mean_of_tokens(feature, baseline, mask, layer)
        elif not feature.is_token and isinstance(layer, nn.Linear) and feature.value.dim() in (2, 3):
            x, entered = _mean_of_values(feature, baseline, mask, layer)
        else:
            raise Unfit
        out, back = mlp.run(list(self._model.mlp[key]), between(x, *segment), arithmetic)
        return out, lambda m: entered(back(m))


def _mean_of_tokens(feature: Feature, baseline: Tensor, mask: Tensor | None, layer: Any) -> tuple[Pair, Contributions]:
    value, table = feature.value.flatten(1).long(), layer.weight
    baseline = baseline.flatten(1).contiguous()
    if feature.value.dim() == 3:  # flattened in `forward`, where the mask comes from the embeddings
        mask = (table.abs().sum(-1) != 0)[value]
        if not torch.equal(mask, (table.abs().sum(-1) != 0)[baseline]):
            raise Unfit
    if mask is None or mask.shape != value.shape:
        raise Unfit
    count = mask.to(table.dtype).sum(1, keepdim=True)
    sums = Pair(*(F.embedding_bag(t, table, mode="sum") for t in (value, baseline)))

    def back(m: Tensor) -> Tensor:
        one_per_row = Tokens(value.unsqueeze(1), baseline.unsqueeze(1), table)
        rows = torch.arange(len(value))
        return one_per_row.contributions(rows, torch.zeros_like(rows), m / count).reshape(feature.value.shape)

    return sums.map(lambda x: x / count), back


def _mean_of_values(feature: Feature, baseline: Tensor, mask: Tensor | None, layer: Any) -> tuple[Pair, Contributions]:
    pair = Pair(feature.value, baseline)
    if feature.value.dtype != layer.weight.dtype:
        raise Unfit
    if feature.value.dim() == 2:
        return pair.map(layer), lambda m: (m @ layer.weight) * (pair.x - pair.x0)
    if mask is None or mask.dim() not in (2, 3) or mask.shape != feature.value.shape[: mask.dim()]:
        raise Unfit
    mask = mask.to(layer.weight.dtype)
    count = (mask.any(-1).to(mask.dtype) if mask.dim() == 3 else mask).sum(1, keepdim=True)

    def back(m: Tensor) -> Tensor:
        return ((m / count) @ layer.weight).unsqueeze(1) * (pair.x - pair.x0)

    return pair.map(lambda x: layer(x).sum(1) / count), back


class FusedRNN:
    """`RNN`."""

    layer = "RNNLayer"
    at_once = 256

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = {
            key: rnn.prepare(model.rnn[key].rnn, _linear(embeddings(model)[key])) for key in model.feature_keys
        }

    def feature(
        self, key: str, feature: Feature, baseline: Tensor, arithmetic: Arithmetic, segment: Segment
    ) -> tuple[Pair, Contributions]:
        """See :class:`FusedModel`."""
        entry = entry_of(feature, baseline, embeddings(self._model)[key])
        steps = Ragged.of(self._lengths(key, feature, baseline))
        sample = steps.sample
        rows = between(Pair(entry.at_input(sample, steps.step), entry.at_baseline(sample, steps.step)), *segment)
        ends, back = rnn.run(self._layers[key], rows, steps, arithmetic, segment[0] == 0)
        layer, out_back = self._model.rnn[key], None
        if layer.bidirectional:
            weight, bias = layer.down_projection.weight, layer.down_projection.bias
            ends, out_back = ends.map(lambda x: F.linear(x, weight, bias)), lambda m: m @ weight
        inverse = torch.argsort(steps.order)

        def contributions(m: Tensor) -> Tensor:
            m = m[steps.order]
            return entry.contributions(sample, steps.step, back(m if out_back is None else out_back(m)))

        return ends.map(lambda x: x[inverse]), contributions

    def _lengths(self, key: str, feature: Feature, baseline: Tensor) -> Tensor:
        """Real steps of each sample, from the mask given or as the model derives it from its embeddings."""
        schema = _schema(self._model, key)
        mask = feature.parts[schema.index("mask")] if "mask" in schema else None
        if mask is None:
            found = [self._embedded(key, feature, value) for value in (feature.value, baseline)]
            if not torch.equal(*found):
                raise Unfit
            mask = found[0]
        elif mask.dim() == 3:
            mask = mask.int().sum(-1) > 0
        if mask.shape != feature.value.shape[:2]:
            raise Unfit
        return mask.int().sum(-1).long().clamp(min=1)

    def _embedded(self, key: str, feature: Feature, value: Tensor) -> Tensor:
        """Which steps' embeddings are other than 0."""
        layer = embeddings(self._model)[key]
        if not feature.is_token:
            embedded = layer(value)
        elif value.dim() == 2:
            return (layer.weight.abs().sum(-1) != 0)[value]
        else:
            embedded = F.embedding_bag(value.flatten(0, 1), layer.weight, mode="sum").unflatten(0, value.shape[:2])
        return embedded.abs().sum(-1) != 0


def _linear(layer: Any) -> nn.Linear | None:
    return layer if isinstance(layer, nn.Linear) else None


FUSED: dict[type, type[FusedModel]] = {
    StageNet: FusedStageNet,
    StageAttentionNet: FusedStageNet,
    Transformer: FusedTransformer,
    MLP: FusedMLP,
    RNN: FusedRNN,
}

__all__ = ["FUSED", "Back", "FusedModel", "Unfit", "embeddings", "entry_of"]

"""PyHealth's models as chains of fused layers: one class per model, made once and rebuilt when a weight changes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, override

import torch
import torch.nn.functional as F
from pyhealth.models import MLP, RNN, StageAttentionNet, StageNet, Transformer
from torch import Tensor, nn

from deeplift_fast.feature_baselines import BaselineValue
from deeplift_fast.features import Feature
from deeplift_fast.fused import lockstep, mlp, rnn, stagenet, stagenet_attention, transformer
from deeplift_fast.fused.entries import between, pooled
from deeplift_fast.fused.inputs import (
    entry_of,
    mask_of,
    require_flags,
    require_linear,
    require_same,
    step_mask,
    unfit,
    unfit_if,
)
from deeplift_fast.fused.means import mean_of_tokens, mean_of_values
from deeplift_fast.fused.pair import Arithmetic, Pair
from deeplift_fast.fused.ragged import Ragged
from deeplift_fast.fused.watched import Watched

Segment = tuple[float, float]
Contributions = Callable[[Tensor], Tensor]
# Parts of the patient embedding that lie side by side in it, `[samples, width]`, all of one width, and from their
# multipliers to contributions by feature key.
Ends = tuple[list[Pair], Callable[[Sequence[Tensor]], dict[str, Tensor]]]


class FusedModel(Protocol):
    """A model as a chain of fused layers.

    Attributes:
        layer: the name of its layers.
        at_once: how many samples go through it together.
    """

    layer: str
    at_once: int

    def __init__(self, model: Any) -> None: ...

    def is_outdated(self) -> bool:
        """Whether a weight that was packed has changed since."""
        ...

    def features(
        self,
        features: Mapping[str, Feature],
        baselines: Mapping[str, BaselineValue],
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> Ends:
        """Parts of the patient embedding and the way back from them.

        Raises:
            Unfit: for a shape or a mask that the layers were not written for. Where `arithmetic` is static, what only
                the numbers tell is raised with the answers.
        """
        ...


class OneByOne(FusedModel):
    """Features that each go through layers of their own, one after the other."""

    def feature(
        self,
        key: str,
        feature: Feature,
        baseline: BaselineValue,
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> tuple[Pair, Contributions]:
        """A feature's part of the patient embedding, `[samples, width]`, and from its multipliers to contributions."""
        raise NotImplementedError

    @override
    def features(
        self,
        features: Mapping[str, Feature],
        baselines: Mapping[str, BaselineValue],
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> Ends:
        found = {
            key: self.feature(key, feature, baselines[key], arithmetic, segment) for key, feature in features.items()
        }

        def back(multipliers: Sequence[Tensor]) -> dict[str, Tensor]:
            return {key: each(m) for (key, (_, each)), m in zip(found.items(), multipliers, strict=True)}

        return [end for end, _ in found.values()], back


def embeddings(model: Any) -> Mapping[str, Any]:
    """A model's embedding layers, by feature key."""
    layers: Mapping[str, Any] = model.embedding_model.embedding_layers
    return layers


def _schema(model: Any, key: str) -> tuple[str, ...]:
    return tuple(model.dataset.input_processors[key].schema())


class FusedStageNet(Watched, OneByOne):
    """`StageNet` and `StageAttentionNet`."""

    at_once = 512

    def __init__(self, model: Any) -> None:
        self._model = model
        attention = isinstance(model, StageAttentionNet)
        self.layer = "StageNetAttentionLayer" if attention else "StageNetLayer"
        self._finish = stagenet_attention.finish if attention else stagenet.finish
        self._layers = {
            key: stagenet.prepare(layer, _linear(embeddings(model)[key])) for key, layer in model.stagenet.items()
        }
        super().__init__([*model.stagenet.values(), *map(_linear, embeddings(model).values())])

    @override
    def feature(
        self,
        key: str,
        feature: Feature,
        baseline: BaselineValue,
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> tuple[Pair, Contributions]:
        given = self._given(key, feature, baseline, arithmetic)
        lengths = given.ends
        if self._finish is stagenet_attention.finish and not arithmetic.static:
            lengths = stagenet_attention.needed(given.mask, given.ends, given.layer.module.conv_size)
        return stagenet.run(given, lengths, arithmetic, segment, self._finish)

    @override
    def features(
        self,
        features: Mapping[str, Feature],
        baselines: Mapping[str, BaselineValue],
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> Ends:
        if not arithmetic.static or self._group is None:
            return super().features(features, baselines, arithmetic, segment)
        given = {key: self._given(key, feature, baselines[key], arithmetic) for key, feature in features.items()}
        end, back = self._group.run(list(given.values()), arithmetic, segment)
        return [end], lambda m: dict(zip(given, back(m[0]), strict=True))

    @functools.cached_property
    def _group(self) -> lockstep.Group | None:
        """All layers, where they may go in lockstep."""
        if self._finish is stagenet_attention.finish:
            return None
        return lockstep.Group.of(list(self._layers.values()))

    def _given(self, key: str, feature: Feature, baseline: BaselineValue, arithmetic: Arithmetic) -> stagenet.Given:
        entry = entry_of(feature, baseline, embeddings(self._model)[key])
        schema = _schema(self._model, key)
        mask, given = step_mask(feature, schema), mask_of(feature, schema)
        if feature.is_token and given is not None and given.dim() != feature.value.dim():
            raise unfit(feature, "its mask is one of steps, and PyHealth's layer takes one of codes")
        samples, steps = feature.value.shape[:2]
        ends = mask.sum(1, dtype=torch.int64)
        require_flags(feature, mask, ends, arithmetic.questions)
        ends = ends.clamp(1, steps)
        time = feature.parts[schema.index("time")] if "time" in schema else None
        if time is None:
            time = torch.ones(samples, steps, device=mask.device)
        if not isinstance(time, Tensor) or not time.is_floating_point() or time.numel() != samples * steps:
            raise unfit(feature, "its times are not one floating-point number per step")
        return stagenet.Given(self._layers[key], entry, ends, mask, time.reshape(samples, steps))


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
    def feature(
        self,
        key: str,
        feature: Feature,
        baseline: BaselineValue,
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> tuple[Pair, Contributions]:
        layer = embeddings(self._model)[key]
        entry = entry_of(feature, baseline, layer)
        mask = self._mask(key, feature)
        if arithmetic.static:
            both = transformer.Both.alike(transformer.Lines.every(mask))
        else:
            both = transformer.Both.of(mask, entry.baseline, segment[0] == 0)
        x, entered = entry.enter(both.lines.at, both.at0)
        x = between(both.rows(x), *segment)
        if entry.layer is not None:
            x = x.map(entry.layer)
        out, back = transformer.run(self._model.transformer[key].transformer, x, both, arithmetic)

        def contributions(m: Tensor) -> Tensor:
            m_rows = back(m)
            m_rows = m_rows if entry.layer is None else m_rows @ entry.layer.weight
            return entered(m_rows).reshape(feature.value.shape)

        return Pair(out.x, out.facing()), contributions

    def _mask(self, key: str, feature: Feature) -> Tensor:
        if not feature.is_token and feature.value.dim() == 2:  # one step, which is real
            if mask_of(feature, _schema(self._model, key)) is not None:
                raise unfit(feature, "it has a mask of single values")
            return torch.ones(len(feature.value), 1, dtype=torch.bool, device=feature.value.device)
        return step_mask(feature, _schema(self._model, key)).bool()


class FusedMLP(OneByOne):
    """`MLP`."""

    layer = "MLP"
    at_once = 4096

    def __init__(self, model: Any) -> None:
        self._model = model
        self._projected = {
            key: mlp.Projected(layer, model.mlp[key][0])
            for key, layer in embeddings(model).items()
            if mlp.Projected.pays(layer, model.mlp[key][0])
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
        layer, mask = embeddings(self._model)[key], mask_of(feature, _schema(self._model, key))
        layers = list(self._model.mlp[key])
        if feature.is_token and isinstance(layer, nn.Embedding) and feature.value.dim() == 2:
            table = layer.weight
            whole = baseline.embedding is None and not arithmetic.static
            if key in self._projected and whole and feature.value.numel() >= len(table):
                table, layers[0] = self._projected[key].table(), mlp.Shift(layers[0].bias)
            x, entered = mean_of_tokens(feature, baseline, mask, layer, table, arithmetic.questions)
        elif not feature.is_token and feature.value.dim() in (2, 3):
            require_linear(feature, layer)
            x, entered = mean_of_values(feature, baseline.value, mask, layer)
        else:
            raise unfit(feature, f"its value has shape {tuple(feature.value.shape)}")
        out, back = mlp.run(layers, between(x, *segment), arithmetic)
        return out, lambda m: entered(back(m))


class FusedRNN(Watched, OneByOne):
    """`RNN`."""

    layer = "RNNLayer"
    at_once = 256

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = {
            key: rnn.prepare(model.rnn[key].rnn, _linear(embeddings(model)[key])) for key in model.feature_keys
        }
        super().__init__([*model.rnn.values(), *map(_linear, embeddings(model).values())])

    @override
    def feature(
        self,
        key: str,
        feature: Feature,
        baseline: BaselineValue,
        arithmetic: Arithmetic,
        segment: Segment,
    ) -> tuple[Pair, Contributions]:
        entry = entry_of(feature, baseline, embeddings(self._model)[key])
        lengths, longest = self._lengths(key, feature, baseline, arithmetic), entry.baseline.shape[1]
        steps = Ragged.every(lengths, longest) if arithmetic.static else Ragged.of(lengths)
        rows, entered = entry.enter(steps.at)
        ends, back = rnn.run(self._layers[key], between(rows, *segment), steps, arithmetic, segment[0] == 0)
        layer, out_back = self._model.rnn[key], None
        if layer.bidirectional:
            weight, bias = layer.down_projection.weight, layer.down_projection.bias
            ends, out_back = ends.map(lambda x: F.linear(x, weight, bias)), lambda m: m @ weight

        def contributions(m: Tensor) -> Tensor:
            m = steps.sorted(m)
            return entered(back(m if out_back is None else out_back(m))).reshape(feature.value.shape)

        return steps.unsorted(ends), contributions

    def _lengths(self, key: str, feature: Feature, baseline: BaselineValue, arithmetic: Arithmetic) -> Tensor:
        """Real steps of each sample, from the mask given or as the model derives it from its embeddings."""
        if not feature.is_token and feature.value.dim() == 2:
            return torch.ones(len(feature.value), dtype=torch.int64, device=feature.value.device)
        schema = _schema(self._model, key)
        mask = feature.parts[schema.index("mask")] if "mask" in schema else None
        if mask is None:
            mask = self._embedded(key, feature, feature.value, arithmetic)
            if not baseline.keeps_mask:
                mask0 = self._embedded(key, feature, baseline.value, arithmetic)
                require_same(feature, mask, mask0, "steps", arithmetic.questions)
        elif mask.dim() == 3:
            mask = mask.int().sum(-1) > 0
        if mask.shape != feature.value.shape[:2]:
            raise unfit(feature, "its mask does not tell which steps are real")
        lengths, longest = mask.sum(-1, dtype=torch.int64), mask.shape[1]
        if mask.dtype != torch.bool:
            reason = "its mask holds numbers other than 0 and 1"
            arithmetic.questions.ask([lengths.max()], lambda found: unfit_if(found[0] > longest, feature, reason))
        return lengths.clamp(1, longest)

    def _embedded(self, key: str, feature: Feature, value: Tensor, arithmetic: Arithmetic) -> Tensor:
        """Which steps' embeddings are other than 0."""
        layer = embeddings(self._model)[key]
        if not feature.is_token:
            return layer(value).abs().sum(-1) != 0
        value = arithmetic.questions.within(value, layer.num_embeddings)
        if value.dim() == 2:
            return (layer.weight.abs().sum(-1) != 0)[value]
        return pooled(layer.weight, value.flatten(0, 1)).unflatten(0, value.shape[:2]).abs().sum(-1) != 0


def _linear(layer: Any) -> nn.Linear | None:
    return layer if isinstance(layer, nn.Linear) else None


FUSED: dict[type, type[FusedModel]] = {
    StageNet: FusedStageNet,
    StageAttentionNet: FusedStageNet,
    Transformer: FusedTransformer,
    MLP: FusedMLP,
    RNN: FusedRNN,
}

__all__ = ["FUSED", "FusedModel", "embeddings"]

"""`StageNet` and `StageAttentionNet` as chains of fused layers."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, override

import torch
from pyhealth.models import StageAttentionNet
from torch import Tensor, nn

from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.fused import lockstep, stagenet_attention, stagenet_layer, watched
from deeplift_fast.pyhealth.fused.entries import entry_of, mask_of, require_flags, step_mask, unfit
from deeplift_fast.pyhealth.fused.model import Contributions, Ends, OneByOne, Segment, embeddings, linear_of, schema_of
from deeplift_fast.pyhealth.fused.pair import Arithmetic, Pair
from deeplift_fast.pyhealth.fused.stagenet_layer import Given, prepare, run
from deeplift_fast.pyhealth.fused.watched import Watched


class FusedStageNet(Watched, OneByOne):
    """`StageNet` and `StageAttentionNet`."""

    at_once = 512

    def __init__(self, model: Any) -> None:
        self._model = model
        attention = isinstance(model, StageAttentionNet)
        self.layer = "StageNetAttentionLayer" if attention else "StageNetLayer"
        self._finish = stagenet_attention.finish if attention else stagenet_layer.finish
        super().__init__([*_packed(model), *map(linear_of, embeddings(model).values())])
        self._layers = {key: prepare(layer, linear_of(embeddings(model)[key])) for key, layer in model.stagenet.items()}

    @override
    def is_outdated(self) -> bool:
        group = vars(self).get("_group")  # it has copies of the convolutions, if a batch needed it
        return super().is_outdated() or (group is not None and group.is_outdated())

    @override
    def feature(
        self, key: str, feature: Feature, baseline: BaselineValue, arithmetic: Arithmetic, segment: Segment
    ) -> tuple[Pair, Contributions]:
        given = self._given(key, feature, baseline, arithmetic)
        lengths = given.ends
        if self._finish is stagenet_attention.finish and not arithmetic.static:
            lengths = stagenet_attention.needed(given.mask, given.ends, given.layer.module.conv_size)
        return run(given, lengths, arithmetic, segment, self._finish)

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
        first = next(iter(features.values())).value
        surveyed = all(feature.survey is not None for feature in features.values())
        ends = torch.empty(len(first), len(features), dtype=torch.int64, device=first.device)
        given = {
            key: self._given(key, feature, baselines[key], arithmetic, None if surveyed else ends[:, place])
            for place, (key, feature) in enumerate(features.items())
        }
        ends = torch.stack([each.ends for each in given.values()], 1) if surveyed else ends.clamp_(min=1)
        end, back = self._group.run(list(given.values()), ends, arithmetic, segment)
        return [end], lambda m: dict(zip(given, back(m[0]), strict=True))

    @functools.cached_property
    def _group(self) -> lockstep.Group | None:
        """All layers as one group; `None` if they cannot run in lockstep."""
        if self._finish is stagenet_attention.finish:
            return None
        return lockstep.Group.of(list(self._layers.values()))

    def _given(
        self, key: str, feature: Feature, baseline: BaselineValue, arithmetic: Arithmetic, out: Tensor | None = None
    ) -> Given:
        """A layer's part of the batch; with `out`, its ends are written there and may be 0."""
        entry = entry_of(feature, baseline, embeddings(self._model)[key])
        schema = schema_of(self._model, key)
        given = mask_of(feature, schema)
        if feature.is_token and given is not None and given.dim() != feature.value.dim():
            raise unfit(feature, "its mask is per step, and PyHealth's layer takes a mask per code")
        samples, steps = feature.value.shape[:2]
        mask, ends = _mask_and_ends(feature, schema, arithmetic, out)
        time = feature.parts[schema.index("time")] if "time" in schema else None
        if time is None:
            time = torch.ones(samples, steps, device=mask.device)
        if not isinstance(time, Tensor) or not time.is_floating_point() or time.numel() != samples * steps:
            raise unfit(feature, "its times are not one floating-point number per step")
        return Given(self._layers[key], entry, ends, mask, time.reshape(samples, steps))


def _packed(model: Any) -> Iterator[nn.Module]:
    """The layers whose weights are packed; on the CPU a convolution notices changes itself."""
    for layer in model.stagenet.values():
        for each in layer.children():
            if each is not layer.nn_conv or not watched.on_cpu(each.weight):
                yield each


def _mask_and_ends(
    feature: Feature, schema: tuple[str, ...], arithmetic: Arithmetic, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The mask of steps, `[samples, steps]`, and one past the last step that counts, written to `out` if given."""
    if feature.survey is not None:
        ends = feature.survey.ends
        return feature.survey.real, ends if out is None else out.copy_(ends)
    mask = step_mask(feature, schema)
    ends = torch.sum(mask, 1, dtype=torch.int64) if out is None else torch.sum(mask, 1, dtype=torch.int64, out=out)
    require_flags(feature, mask, ends, arithmetic.questions)
    steps = mask.shape[1]
    if out is None:
        ends = ends.clamp(1, steps)
    elif mask.dtype != torch.bool:  # the check for other numbers than 0 and 1 is open
        ends.clamp_(max=steps)
    return mask, ends

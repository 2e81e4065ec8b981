"""A batch as a PyHealth model reads it: the steps that it takes, their shape, and the mask of those that are real."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from pyhealth.models import MLP, StageAttentionNet, StageNet, Transformer
from torch import Tensor

from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.features import Feature


def as_read(model: Any, features: Mapping[str, Feature], rules: str) -> dict[str, Feature]:
    """The features in the shape in which the model reads them.

    A Transformer takes the first `max_seq_len` steps, and an MLP nested tokens as one sequence.

    Raises:
        ValueError: under `"pyhealth"`, if PyHealth's own DeepLift cannot take them; the message names the feature.
    """
    found = {}
    for key, feature in features.items():
        if rules == "pyhealth" and (reason := _unknown_to_pyhealth(model, feature)):
            raise ValueError(
                f'rules is "pyhealth", and PyHealth\'s own DeepLift fails on a {type(model).__name__} with feature '
                f'{key!r}: {reason}; accepted for it: rules="rescale", rules="complete"'
            )
        if (longest := _longest(model, feature)) is not None:
            feature = _first(feature, longest)
        elif _is_flattened(model, feature):
            feature = replace(feature, parts=feature.with_value(feature.value.flatten(1)))
        found[key] = feature
    return found


def baselines_as_read(
    model: Any, features: Mapping[str, Feature], baselines: Mapping[str, BaselineValue]
) -> dict[str, BaselineValue]:
    """The baselines of :func:`as_read`'s features, which are given here as they came."""
    found = dict(baselines)
    for key, feature in features.items():
        if (longest := _longest(model, feature)) is not None:
            found[key] = baselines[key].mapped(functools.partial(_cut, count=longest))
        elif _is_flattened(model, feature):
            found[key] = baselines[key].mapped(lambda each: each.flatten(1, 2))
    return found


def as_given(contributions: Mapping[str, Tensor], features: Mapping[str, Feature]) -> dict[str, Tensor]:
    """Contributions to what the model reads, in the shapes of the features as they came; 0 to what it does not read."""
    return {key: _as_given(each, features[key].value) for key, each in contributions.items()}


def with_masks(
    model: Any, features: Mapping[str, Feature], rules: str, dtype: torch.dtype = torch.int32
) -> dict[str, Feature]:
    """The features with the mask of what is real, where their schema has none.

    `"pyhealth"` has PyHealth's mask. Else it is what the model takes for real where a sample stands alone: there a
    step of zeros before a real one counts, and of a record with nothing in it position 0. (PyHealth's Transformer marks
    it so; StageAttentionNet then looks at all positions alike, and alone there is one; a continuous step is embedded
    with a bias, so it is never empty.) An MLP averages over no token at all there.
    """
    if rules == "pyhealth":
        return {key: feature.with_derived_mask(True, dtype) for key, feature in features.items()}
    firsts = isinstance(model, Transformer | StageAttentionNet)
    anyway = isinstance(model, StageNet)  # it reads position 0 where no step is real
    return {
        key: feature.with_derived_mask(False, dtype, firsts or not (feature.is_token or anyway))
        for key, feature in features.items()
    }


def _longest(model: Any, feature: Feature) -> int | None:
    """How many steps the model takes of a feature that has more; `None` where it takes all."""
    if not isinstance(model, Transformer) or not (feature.is_token or feature.in_steps):
        return None
    longest: int = model.max_seq_len
    return longest if feature.value.dim() > 1 and feature.value.shape[1] > longest else None


def _is_flattened(model: Any, feature: Feature) -> bool:
    """Whether the model takes nested tokens as one sequence."""
    return isinstance(model, MLP) and feature.is_token and feature.value.dim() == 3 and feature.mask is None


def _unknown_to_pyhealth(model: Any, feature: Feature) -> str:
    """Why PyHealth's DeepLift fails on a feature; empty where it does not."""
    if (longest := _longest(model, feature)) is not None:
        return f"it has more than max_seq_len ({longest}) steps"
    if _is_flattened(model, feature):
        return "its tokens are nested"
    if isinstance(model, Transformer) and not feature.is_token and feature.value.dim() == 2 and feature.mask is None:
        return "it has no steps, and the mask of its single values does not fit the one step that the model makes of it"
    return ""


def flattens(model: Any, features: Mapping[str, Feature]) -> bool:
    """Whether the model flattens tokens in `forward` alone: nested ones with a mask of their own, or deeper ones."""
    return isinstance(model, MLP) and any(each.is_token and each.value.dim() > 2 for each in features.values())


def _cut(each: Tensor, count: int) -> Tensor:
    return each[:, :count]


def _first(feature: Feature, count: int) -> Feature:
    """The feature's first steps."""
    steps = feature.value.shape[:2]
    parts = tuple(
        _cut(part, count) if isinstance(part, Tensor) and part.shape[:2] == steps else part for part in feature.parts
    )
    mask = feature.mask
    return replace(feature, parts=parts, mask=mask if mask is None or mask.dim() < 2 else _cut(mask, count))


def _as_given(contributions: Tensor, value: Tensor) -> Tensor:
    if contributions.dim() < value.dim():
        return contributions.reshape(value.shape)
    missing = value.shape[1] - contributions.shape[1] if value.dim() > 1 else 0
    return F.pad(contributions, (*[0] * (2 * (value.dim() - 2)), 0, missing)) if missing else contributions

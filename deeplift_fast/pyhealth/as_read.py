"""A batch as a PyHealth model reads it: its steps, their shape, and the mask of real steps."""

import functools
from collections.abc import Callable, Mapping
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
            feature = replace(feature, parts=feature.with_value(feature.value.flatten(1)), survey=None)
        found[key] = feature
    return found


def baselines_as_read(
    model: Any, features: Mapping[str, Feature], baselines: Mapping[str, BaselineValue]
) -> dict[str, BaselineValue]:
    """The baselines in the shapes of :func:`as_read`; `features` and `baselines` are in the shapes as given."""
    found = dict(baselines)
    for key, feature in features.items():
        if (change := _change(model, feature)) is not None:
            found[key] = baselines[key].mapped(change)
    return found


def mask_as_read(model: Any, feature: Feature, mask: Tensor) -> Tensor:
    """A mask of the value's shape, in the shape of :func:`as_read`; `feature` is in the shape as given."""
    change = _change(model, feature)
    return mask if change is None else change(mask)


def _change(model: Any, feature: Feature) -> Callable[[Tensor], Tensor] | None:
    """From a tensor with a feature's positions to those that the model reads; `None` if it reads them as they are."""
    if (longest := _longest(model, feature)) is not None:
        return functools.partial(_cut, count=longest)
    return _flat if _is_flattened(model, feature) else None


def as_given(contributions: Mapping[str, Tensor], features: Mapping[str, Feature]) -> dict[str, Tensor]:
    """Contributions in the shapes of the features as given; steps that the model does not read have 0."""
    return {key: _as_given(each, features[key].value) for key, each in contributions.items()}


def with_masks(
    model: Any, features: Mapping[str, Feature], rules: str, dtype: torch.dtype = torch.int32
) -> dict[str, Feature]:
    """The features, each with a mask of real positions if its schema has none.

    Under `"pyhealth"` the mask is PyHealth's. Else it is the model's own mask for the sample alone, where a step of
    zeros before a real step is real. In an empty record, position 0 is real for a Transformer, which marks it; for
    StageAttentionNet, which attends to all positions equally and alone has one; and for a continuous feature, whose
    embedding has a bias and so is never 0. StageNet reads position 0 in any case. An MLP averages over no token.
    """
    if rules == "pyhealth":
        return {key: feature.with_derived_mask(True, dtype) for key, feature in features.items()}
    firsts = isinstance(model, Transformer | StageAttentionNet)
    anyway = isinstance(model, StageNet)  # without a real step it reads position 0
    return {
        key: feature.with_derived_mask(False, dtype, firsts or not (feature.is_token or anyway))
        for key, feature in features.items()
    }


def _longest(model: Any, feature: Feature) -> int | None:
    """The number of steps that the model reads, if the feature has more; else `None`."""
    if not isinstance(model, Transformer) or not (feature.is_token or feature.in_steps):
        return None
    longest: int = model.max_seq_len
    return longest if feature.value.dim() > 1 and feature.value.shape[1] > longest else None


def _is_flattened(model: Any, feature: Feature) -> bool:
    """Whether the model reads nested tokens as one sequence."""
    return isinstance(model, MLP) and feature.is_token and feature.value.dim() == 3 and feature.mask is None


def _unknown_to_pyhealth(model: Any, feature: Feature) -> str:
    """The reason why PyHealth's DeepLift fails on a feature; empty if it does not fail."""
    if (longest := _longest(model, feature)) is not None:
        return f"it has more than max_seq_len ({longest}) steps"
    if _is_flattened(model, feature):
        return "its tokens are nested"
    if isinstance(model, Transformer) and not feature.is_token and feature.value.dim() == 2 and feature.mask is None:
        return "it has no steps, and the mask of its values does not fit the single step that the model makes of them"
    return ""


def flattens(model: Any, features: Mapping[str, Feature]) -> bool:
    """Whether the model flattens nested tokens, which it does in `forward` only."""
    return isinstance(model, MLP) and any(each.is_token and each.value.dim() > 2 for each in features.values())


def _flat(each: Tensor) -> Tensor:
    return each.flatten(1, 2)


def _cut(each: Tensor, count: int) -> Tensor:
    return each[:, :count]


def _first(feature: Feature, count: int) -> Feature:
    """The feature's first steps."""
    steps = feature.value.shape[:2]
    parts = tuple(
        _cut(part, count) if isinstance(part, Tensor) and part.shape[:2] == steps else part for part in feature.parts
    )
    mask = feature.mask
    mask = mask if mask is None or mask.dim() < 2 else _cut(mask, count)
    return replace(feature, parts=parts, mask=mask, survey=None)


def _as_given(contributions: Tensor, value: Tensor) -> Tensor:
    if contributions.dim() < value.dim():
        return contributions.reshape(value.shape)
    missing = value.shape[1] - contributions.shape[1] if value.dim() > 1 else 0
    return F.pad(contributions, (*[0] * (2 * (value.dim() - 2)), 0, missing)) if missing else contributions

"""Reads a PyHealth batch: which tensor of each feature is the value, which positions are real, and whether it is fit.

Everything is checked here, before the model runs.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from deeplift_fast.baselines import require_finite
from deeplift_fast.read_back import ReadBack

PAD, UNK = 0, 1  # PyHealth's indices of padding and of the unknown code
NEUTRAL = 1e-2  # PyHealth's baseline of a continuous value


@dataclass(frozen=True)
class Feature:
    """One feature of a batch.

    Attributes:
        key: its name in the model's `feature_keys`.
        parts: what the model takes, in the order of the processor's schema, and perhaps a mask: tensors, `None` where
            there is none, or other things that the model makes sense of.
        position: where in `parts` the value stands.
        mask: the mask that came with the batch, `[batch, …]`, or `None`.
        is_token: whether the value holds token indices.
    """

    key: str
    parts: tuple[Any, ...]
    position: int
    mask: Tensor | None
    is_token: bool

    @property
    def value(self) -> Tensor:
        """Token indices (integer) or continuous values (floating point), `[batch, …]`."""
        value: Tensor = self.parts[self.position]
        return value

    @property
    def in_steps(self) -> bool:
        """Whether a step holds several values, which are real or padding together."""
        return not self.is_token and self.value.dim() >= 3

    @functools.cached_property
    def filled(self) -> Tensor:
        """Which steps or positions hold something, bool: `[batch, …]`, without the last dimension if `in_steps`."""
        return self.value.any(-1) if self.in_steps else self.value != PAD

    def real(self) -> Tensor:
        """Which positions hold something: bool, of the value's shape; the others are padding."""
        value, in_steps = self.value, self.in_steps
        filled = self.filled.unsqueeze(-1) if in_steps else self.filled
        if self.mask is None:
            return filled.expand(value.shape)
        mask = self.mask.bool().reshape(*self.mask.shape, *[1] * (value.dim() - self.mask.dim()))
        coarse = self.mask.dim() < value.dim() - in_steps  # a mask of visits says nothing of the codes within
        return (mask & filled if coarse else mask).expand(value.shape)

    def with_value(self, value: Tensor) -> tuple[Any, ...]:
        """What the model takes, with another value."""
        return (*self.parts[: self.position], value, *self.parts[self.position + 1 :])

    def at(self, samples: Tensor | slice) -> "Feature":
        """The feature of these samples, int64 `[n]` or a slice."""
        parts = tuple(part[samples] if isinstance(part, Tensor) else part for part in self.parts)
        return replace(self, parts=parts, mask=None if self.mask is None else self.mask[samples])

    def with_derived_mask(self, per_value: bool, dtype: torch.dtype = torch.int32) -> "Feature":
        """The feature with the mask appended that PyHealth's DeepLift derives where the schema has none.

        Args:
            per_value: whether a `[batch, n]` continuous value gets one too, in which a true 0.0 counts as padding.
            dtype: of the mask; int32 is PyHealth's.
        """
        value = self.value
        if self.mask is not None or (not self.is_token and value.dim() < 3 and not per_value):
            return self
        return replace(self, parts=(*self.parts, self.filled.to(dtype)))


def read_features(
    model: Any, batch: Mapping[str, Any], use_embeddings: bool, later: ReadBack | None = None
) -> dict[str, Feature]:
    """The features of a batch by key, checked.

    Args:
        model: a PyHealth model, with `feature_keys` and `dataset.input_processors`.
        batch: what PyHealth's loader yields; keys that are no features (labels, identifiers) are ignored.
        use_embeddings: whether tokens will be embedded; without, no feature may hold tokens.
        later: where given, NaN and inf are found at its next read-back.

    Raises:
        ValueError: for a missing feature, a wrong number of tensors, NaN or inf, another device than the model's, batch
            sizes that differ, a dimension of length 0, or times or a mask that do not fit the value's shape.
        TypeError: for something other than tensors, or a wrong dtype.
    """
    keys = list(model.feature_keys)
    missing = [key for key in keys if key not in batch]
    if missing:
        raise ValueError(f"the batch lacks the feature(s) {', '.join(map(repr, missing))}; the model needs {keys}")
    device = next(model.parameters()).device
    features = {}
    for key in keys:
        feature = _read(key, batch[key], model.dataset.input_processors[key])
        _check_tensors(feature, device, later)
        _check_value(feature, use_embeddings)
        features[key] = feature
    sizes = {key: feature.value.shape[0] for key, feature in features.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"features differ in batch size (the first dimension): {sizes}")
    return features


def _read(key: str, given: Any, processor: Any) -> Feature:
    schema = tuple(processor.schema())
    parts = (given,) if isinstance(given, Tensor) else given
    if not isinstance(parts, tuple | list):
        raise TypeError(f"feature {key!r} is a {type(given).__name__}; accepted: a tensor, or a tuple {schema}")
    if "value" not in schema:
        raise ValueError(f"feature {key!r} has the schema {schema}, which holds no 'value' to attribute to")
    if len(parts) != len(schema) and ("mask" in schema or len(parts) != len(schema) + 1):
        raise ValueError(f"feature {key!r} has {len(parts)} tensor(s); its processor's schema is {schema}")
    if len(parts) > len(schema) and parts[-1] is None:
        parts = parts[:-1]
    named = dict(zip((*schema, "mask"), parts, strict=False))
    for name in ("value", "time", "mask"):
        part = named.get(name)
        if not (isinstance(part, Tensor) or (part is None and name != "value")):
            raise TypeError(f"feature {key!r}: {name} is a {type(part).__name__}; accepted: a tensor")
    _check_times(key, named["value"], named.get("time"))
    return Feature(key, tuple(parts), schema.index("value"), named.get("mask"), bool(processor.is_token()))


def _check_times(key: str, value: Tensor, time: Tensor | None) -> None:
    if time is not None and value.dim() > 1 and time.numel() != value.shape[:2].numel():
        raise ValueError(
            f"feature {key!r}: time has shape {tuple(time.shape)}, the value {tuple(value.shape)}; each step of "
            f"{tuple(value.shape[:2])} needs one time"
        )


def _check_tensors(feature: Feature, device: torch.device, later: ReadBack | None) -> None:
    if feature.value.dim() == 0:
        raise ValueError(f"feature {feature.key!r} has no dimensions; its first must be the batch")
    batch = feature.value.shape[:1]
    tensors = [part for part in feature.parts if isinstance(part, Tensor)]
    for part in tensors:
        if part.device != device:
            raise ValueError(
                f"feature {feature.key!r} is on {part.device}, the model on {device}; move the batch to {device}"
            )
        if part.shape[:1] != batch:
            raise ValueError(
                f"feature {feature.key!r}: its tensors have shapes "
                f"{[tuple(tensor.shape) for tensor in tensors]}; the first dimension must be the batch"
            )
        require_finite(f"feature {feature.key!r}", part, later)
    if batch[0] and feature.value.numel() == 0:
        raise ValueError(
            f"feature {feature.key!r} has shape {tuple(feature.value.shape)}: an empty sequence has nothing to "
            "attribute to; pad it to one step"
        )
    if feature.mask is not None and feature.value.shape[: feature.mask.dim()] != feature.mask.shape:
        raise ValueError(
            f"feature {feature.key!r}: the mask has shape {tuple(feature.mask.shape)}, the value "
            f"{tuple(feature.value.shape)}; the mask's must be a prefix of the value's"
        )


def _check_value(feature: Feature, use_embeddings: bool) -> None:
    dtype = feature.value.dtype
    if feature.is_token:
        if dtype not in (torch.int64, torch.int32):
            raise TypeError(f"feature {feature.key!r} holds tokens as {dtype}; accepted: int64 or int32 indices")
        if not use_embeddings:
            raise ValueError(
                f"feature {feature.key!r} holds token indices, which have no gradient; use use_embeddings=True"
            )
    elif not dtype.is_floating_point:
        raise TypeError(f"feature {feature.key!r} holds continuous values as {dtype}; convert them with .float()")


def check_embeddable(what: str, values: Tensor, layer: Any, later: ReadBack | None = None) -> None:
    """Raise if an embedding layer cannot take these values; only `nn.Embedding` and `nn.Linear` are looked into.

    Args:
        what: what error messages call the values.
        values: token indices or continuous values, `[batch, …]`.
        layer: the module that will embed them, or `None`.
        later: where given, indices outside are found at its next read-back.

    Raises:
        ValueError: for token indices outside the vocabulary, or a last dimension of the wrong length.
        TypeError: for continuous values of another dtype than the layer's.
    """
    if isinstance(layer, nn.Embedding) and values.numel():
        bounds, size = torch.aminmax(values), layer.num_embeddings
        if later is None:
            _require_tokens(what, size, [int(bound) for bound in bounds])
        else:
            later.ask(bounds, lambda found: _require_tokens(what, size, [int(bound) for bound in found]))
    if isinstance(layer, nn.Linear):
        if values.shape[-1] != layer.in_features:
            raise ValueError(
                f"{what} has shape {tuple(values.shape)}; the model embeds {layer.in_features} value(s) in the last "
                "dimension"
            )
        if values.dtype != layer.weight.dtype and not torch.is_autocast_enabled(values.device.type):
            raise TypeError(f"{what} is {values.dtype}, the layer that embeds it {layer.weight.dtype}; convert one")


def _require_tokens(what: str, size: int, bounds: list[int]) -> None:
    low, high = bounds
    if low < 0 or high >= size:
        raise ValueError(
            f"{what} holds token indices from {low} to {high}; the model's vocabulary is 0 to {size - 1}: process the "
            "batch with the processors that the model was made with"
        )


def default_baseline(feature: Feature, everywhere: bool) -> Tensor:
    """Tokens become UNK and continuous values 0.01, as in PyHealth; padding stays padding unless `everywhere`.

    Returns:
        The shape and dtype of the feature's value.
    """
    value = feature.value
    if feature.is_token and feature.mask is None and not everywhere:
        return feature.filled.to(value.dtype)  # as below: UNK is 1, and PAD 0
    neutral = UNK if feature.is_token else NEUTRAL
    return torch.full_like(value, neutral) if everywhere else torch.where(feature.real(), neutral, value)


def check_baselines(baseline: Any, features: Mapping[str, Feature], later: ReadBack | None = None) -> dict[str, Tensor]:
    """A user's baselines by feature key, checked (with `later`: NaN and inf at its next read-back).

    On the features' device, tokens as int64.

    Raises:
        ValueError: for unknown or missing keys, a shape other than the value's, or NaN or inf.
        TypeError: for anything but a mapping of tensors of the values' dtypes, or of integers.
    """
    if not isinstance(baseline, Mapping):
        raise TypeError(f"baseline is a {type(baseline).__name__}; accepted: a dict with one tensor per feature key")
    if set(baseline) != set(features):
        unknown, missing = sorted(set(baseline) - set(features)), sorted(set(features) - set(baseline))
        raise ValueError(f"baseline: unknown key(s) {unknown}, missing key(s) {missing}; accepted: {sorted(features)}")
    return {key: _check_baseline(baseline[key], feature, later) for key, feature in features.items()}


def _check_baseline(given: Any, feature: Feature, later: ReadBack | None) -> Tensor:
    what, value = f"baseline of feature {feature.key!r}", feature.value
    if not isinstance(given, Tensor):
        raise TypeError(
            f"{what} is a {type(given).__name__}; accepted: one tensor of the value's shape {tuple(value.shape)} "
            "(times and masks are those of the input)"
        )
    if given.shape != value.shape:
        raise ValueError(f"{what} has shape {tuple(given.shape)}; accepted: the value's, {tuple(value.shape)}")
    integer = not (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool)
    if (feature.is_token and not integer) or (not feature.is_token and not integer and given.dtype != value.dtype):
        accepted = "integer token indices" if feature.is_token else str(value.dtype)
        raise TypeError(f"{what} is {given.dtype}; accepted: {accepted}")
    if given.is_meta and not value.is_meta:
        raise ValueError(f"{what} is on meta, which holds no numbers; the model is on {value.device}")
    moved = given.to(value.device, torch.int64 if feature.is_token else value.dtype)
    require_finite(what, moved, later)
    return moved

"""Reads and checks a PyHealth batch, before the model runs: the value of each feature and its real positions."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deeplift_fast.core.baselines import require_finite
from deeplift_fast.core.constants import number, ramp
from deeplift_fast.core.devices import device_of
from deeplift_fast.core.plain_tensors import require_plain
from deeplift_fast.core.questions import NOW, Questions
from deeplift_fast.pyhealth.measured_flags import flags_key, own_names, read_flags
from deeplift_fast.pyhealth.survey import NEUTRAL, Survey, fits, survey

PAD, UNK = 0, 1  # PyHealth's indices of padding and of the unknown code

Kind = Literal["tensor", "multi_hot", "other"]


@dataclass  # not frozen: that takes four times as long to make, and each call makes several
class Feature:
    """One feature of a batch; nobody writes to it.

    Attributes:
        key: its name in the model's `feature_keys`.
        parts: the arguments for the model in the order of the processor's schema, with an optional mask at the end:
            tensors, `None`, or other objects that the model accepts.
        position: the position of the value in `parts`.
        mask: the mask of the batch, `[batch, …]`, or `None`.
        is_token: whether the value holds token indices.
        kind: the kind of processor: `"tensor"`, `"multi_hot"`, or `"other"`.
        flags: which values were measured, bool, of the value's shape; `None` if the batch does not say.
        time_position: the position of the steps' times in `parts`, or `None`.
        survey: what its numbers show, if they were surveyed on a GPU; it holds for the real steps as derived there.
        entered: the tokens whose embeddings enter a fused model in place of those of `value`, which keeps its masks and
            lengths: int64, of the value's shape. `None` for the tokens of `value`.
    """

    key: str
    parts: tuple[Any, ...]
    position: int
    mask: Tensor | None
    is_token: bool
    kind: Kind = "other"
    flags: Tensor | None = None
    time_position: int | None = None
    survey: Survey | None = None
    entered: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """Token indices (integer) or continuous values (floating point), `[batch, …]`."""
        value: Tensor = self.parts[self.position]
        return value

    @property
    def tokens(self) -> Tensor:
        """The tokens whose embeddings enter a fused model, contiguous int64, of the value's shape."""
        return (self.value if self.entered is None else self.entered).long().contiguous()

    @property
    def times(self) -> Tensor | None:
        """The times of the steps, `[batch, steps]`, or `None`."""
        return None if self.time_position is None else self.parts[self.time_position]

    @property
    def in_steps(self) -> bool:
        """Whether a step holds several values, all of them real or all of them padding."""
        return not self.is_token and self.value.dim() >= 3

    @functools.cached_property
    def filled(self) -> Tensor:
        """Whether a step or position holds a value, bool: `[batch, …]`, without the last dimension if `in_steps`."""
        if self.survey is not None:
            return self.survey.filled
        return self.value.any(-1) if self.in_steps else self.value != PAD

    @functools.cached_property
    def steps(self) -> Tensor:
        """Whether a step or position is real, by its content: bool, of the shape of `filled`.

        A step of continuous values is padding only if neither it nor a later step of the sample holds a value or a
        time. An hour without records in the middle of a stay is real.
        """
        if not self.in_steps:
            return self.filled
        if self.survey is not None:
            return self.survey.real
        held, time = self.filled, self.times
        if time is not None and time.numel() == held.numel():
            held = held.logical_or(time.reshape(held.shape))
        return _until_last(held)

    def real(self) -> Tensor:
        """Whether a position is real, not padding: bool, of the value's shape."""
        value, in_steps = self.value, self.in_steps
        filled = self.steps.unsqueeze(-1) if in_steps else self.filled
        if self.mask is None:
            return filled.expand(value.shape)
        mask = self.mask.bool().reshape(*self.mask.shape, *[1] * (value.dim() - self.mask.dim()))
        coarse = self.mask.dim() < value.dim() - in_steps  # a mask of visits does not mark padded codes
        return (mask & filled if coarse else mask).expand(value.shape)

    def with_value(self, value: Tensor) -> tuple[Any, ...]:
        """`parts` with another value."""
        return (*self.parts[: self.position], value, *self.parts[self.position + 1 :])

    def at(self, samples: Tensor | slice) -> "Feature":
        """The feature of these samples, int64 `[n]` or a slice."""
        parts = tuple(part[samples] if isinstance(part, Tensor) else part for part in self.parts)
        others = self.mask, self.flags, self.entered
        mask, flags, entered = (None if each is None else each[samples] for each in others)
        survey = None if self.survey is None else self.survey.at(samples)
        return replace(self, parts=parts, mask=mask, flags=flags, survey=survey, entered=entered)

    def with_derived_mask(
        self, as_pyhealth: bool, dtype: torch.dtype = torch.int32, keeps_first: bool = False
    ) -> "Feature":
        """The feature with a mask appended where the schema has none.

        Args:
            as_pyhealth: whether to derive the mask as PyHealth's DeepLift: every step of zeros is padding, and so is a
                true 0.0 in a continuous value of shape `[batch, n]`.
            dtype: the dtype of the mask; PyHealth's is int32.
            keeps_first: whether position 0 of an empty record is real.
        """
        value = self.value
        if self.mask is not None or (not self.is_token and value.dim() < 3 and not as_pyhealth):
            return self
        mask = self.filled if as_pyhealth else self.steps
        if keeps_first:
            mask = mask.clone()
            mask.flatten(1)[:, 0] |= ~mask.flatten(1).any(1)
        other = keeps_first or (as_pyhealth and self.in_steps)
        return Feature(
            self.key, (*self.parts, mask.to(dtype)), self.position, self.mask, self.is_token, self.kind, self.flags,
            self.time_position, None if other else self.survey,
        )  # fmt: skip


def _until_last(held: Tensor) -> Tensor:
    """Whether a position or a later one along the last dimension is true, bool."""
    if held.numel() == 0:
        return held
    place = ramp(held.shape[-1], 1, held.device, first=1)
    return place <= (held * place).amax(-1, keepdim=True)


def read_features(
    model: Any, batch: Mapping[str, Any], use_embeddings: bool, questions: Questions = NOW
) -> dict[str, Feature]:
    """The features of a batch by key, checked.

    Args:
        model: a PyHealth model, with `feature_keys` and `dataset.input_processors`.
        batch: a batch from PyHealth's loader. Keys other than features (labels, identifiers) are ignored, except
            `K_measured`, which marks the measured values of a continuous feature `K`
            (:func:`deeplift_fast.pyhealth.measured_flags.read_flags`).
        use_embeddings: whether tokens are embedded; if not, no feature may hold tokens.
        questions: takes the checks for NaN and inf.

    Raises:
        ValueError: for a missing feature, a wrong number of tensors, NaN or inf, another device than the model's,
            different batch sizes, a value without the batch, a dimension of length 0, or times or a mask that do not
            fit the value's shape.
        TypeError: for a part that is not a tensor, or a wrong dtype.
    """
    keys = list(model.feature_keys)
    missing = [key for key in keys if key not in batch]
    if missing:
        raise ValueError(f"the batch lacks the feature(s) {', '.join(map(repr, missing))}; the model needs {keys}")
    device = device_of(model)
    if device.type == "meta":
        raise ValueError("the model is on meta, which holds no numbers; load its weights onto a device first")
    features = {}
    for key in keys:
        feature = _read(key, batch[key], model.dataset.input_processors[key])
        _check_tensors(feature, device)
        feature = _with_finite(feature, questions)
        _check_value(feature, use_embeddings)
        given = None if feature.is_token else batch.get(name := flags_key(key))
        if given is not None and name not in own_names(model):
            flags = read_flags(name, given, feature.value, questions, _assumed(feature))
            feature = replace(feature, flags=flags)
        features[key] = feature
    sizes = {key: feature.value.shape[0] for key, feature in features.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"features differ in batch size (the first dimension): {sizes}; accepted: one size")
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
        if isinstance(part, Tensor):
            require_plain(f"feature {key!r}: {name}", part)
    if named["value"].dim() == 1 and _has_dimensions(processor, schema.index("value")):
        raise ValueError(
            f"feature {key!r} has shape {tuple(named['value'].shape)}, one dimension; accepted: the batch, then the "
            f"dimensions of a sample, as from a {type(processor).__name__}; give a single sample as value.unsqueeze(0)"
        )
    _check_times(key, named["value"], named.get("time"))
    return Feature(
        key,
        tuple(parts),
        schema.index("value"),
        named.get("mask"),
        bool(processor.is_token()),
        kind_of(type(processor)),
        time_position=schema.index("time") if "time" in schema else None,
    )


def _has_dimensions(processor: Any, position: int) -> bool:
    """Whether a processor says that it gives a tensor with dimensions at a position of its schema."""
    try:
        return bool(processor.dim()[position] > 0)
    except (AttributeError, NotImplementedError):  # a processor of the user's own, or one that was not fitted
        return False


def kind_of(processor: type) -> Kind:
    """The kind of a processor class, for :class:`Feature`."""
    return _kind_of(processor)  # type: ignore[arg-type]


@functools.lru_cache(64)
def _kind_of(processor: type) -> Kind:
    from pyhealth.processors import NestedMultiHotProcessor, TensorProcessor
    from pyhealth.processors.label_processor import MultiLabelProcessor  # a subclass of it is multi_hot too

    if issubclass(processor, MultiLabelProcessor | NestedMultiHotProcessor):
        return "multi_hot"
    return "tensor" if issubclass(processor, TensorProcessor) else "other"


def _check_times(key: str, value: Tensor, time: Tensor | None) -> None:
    if time is not None and value.dim() > 1 and time.numel() != value.shape[:2].numel():
        raise ValueError(
            f"feature {key!r}: time has shape {tuple(time.shape)}, the value {tuple(value.shape)}; each step of "
            f"{tuple(value.shape[:2])} needs one time"
        )


def _with_finite(feature: Feature, questions: Questions) -> Feature:
    """The feature, surveyed if that is possible, with the check of its numbers for NaN and inf asked."""
    what, value, times = f"feature {feature.key!r}", feature.value, feature.times
    if len(feature.parts) == 2 and times is not None and fits(value, times, feature.is_token, questions):
        return replace(feature, survey=survey(what, value, times, feature.is_token, questions))
    for part in feature.parts:
        if isinstance(part, Tensor):
            require_finite(what, part, questions)
    return feature


def _check_tensors(feature: Feature, device: torch.device) -> None:
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
    if batch[0] and feature.value.numel() == 0:
        raise ValueError(
            f"feature {feature.key!r} has shape {tuple(feature.value.shape)}, an empty sequence; accepted: one step or "
            "more; pad it to one step"
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


def require_known_dtype(feature: Feature, model: Any) -> None:
    """Raise `TypeError` for 16-bit values without an embedding layer, if the model has no parameter of that dtype."""
    dtype = feature.value.dtype
    if not dtype.is_floating_point or dtype.itemsize != 2 or torch.is_autocast_enabled(feature.value.device.type):
        return
    if all(parameter.dtype != dtype for parameter in model.parameters()):
        raise TypeError(
            f"feature {feature.key!r} holds continuous values as {dtype}, and no parameter of the model is {dtype}; "
            "convert them with .float()"
        )


def measured(feature: Feature) -> Tensor:
    """Which values of a feature were measured: bool, of the value's shape; `False` at padding.

    `K_measured` decides if the batch has it. Else values other than 0 were measured; in `tensor` features, 0 too.
    Tokens were measured if they are real.

    Example:
        >>> from deeplift_fast.pyhealth.features import measured, read_features
        >>> features = read_features(model, batch, use_embeddings=True)
        >>> measured(features["labs"]).shape == batch["labs"].shape
        True
    """
    if feature.is_token:
        return feature.real()
    return (_assumed(feature) if feature.flags is None else feature.flags) & _steps(feature)


def _assumed(feature: Feature) -> Tensor:
    """Which values count as measured if nothing says so, bool, of the value's shape."""
    value = feature.value
    return torch.ones_like(value, dtype=torch.bool) if feature.kind == "tensor" else value != 0


def _steps(feature: Feature) -> Tensor:
    """Whether a step of a continuous feature is real, bool, broadcastable to the value.

    The mask decides; without one, :attr:`Feature.steps`.
    """
    value, mask = feature.value, feature.mask
    if mask is not None:
        return mask.bool().reshape(*mask.shape, *[1] * (value.dim() - mask.dim()))
    if not feature.in_steps:
        return torch.ones_like(value, dtype=torch.bool)
    if value.dim() == 3:
        return feature.steps.unsqueeze(-1)
    still = _until_last(feature.filled.flatten(2).any(-1))
    return still.reshape(*still.shape, *[1] * (value.dim() - 2))


def check_embeddable(
    what: str, values: Tensor, layer: Any, questions: Questions = NOW, bounds: Tensor | None = None
) -> None:
    """Raise if an embedding layer cannot take these values; only `nn.Embedding` and `nn.Linear` are checked.

    Args:
        what: the name of the values in error messages.
        values: token indices or continuous values, `[batch, …]`.
        layer: the module that embeds them, or `None`.
        questions: takes the check of token indices.
        bounds: tensor with the smallest and the largest token among others, if it is known.

    Raises:
        ValueError: for token indices outside the vocabulary, or a last dimension of the wrong length.
        TypeError: for continuous values of another dtype than the layer's.
    """
    if isinstance(layer, nn.Embedding) and values.numel():
        given, size = torch.aminmax(values) if bounds is None else (bounds,), layer.num_embeddings
        questions.bring(given, lambda found: _require_tokens(what, size, found))
    if isinstance(layer, nn.Linear):
        if values.shape[-1] != layer.in_features:
            raise ValueError(
                f"{what} has shape {tuple(values.shape)}; the model embeds {layer.in_features} value(s) in the last "
                "dimension"
            )
        if values.dtype != layer.weight.dtype and not torch.is_autocast_enabled(values.device.type):
            raise TypeError(f"{what} is {values.dtype}, the layer that embeds it {layer.weight.dtype}; convert one")


def _require_tokens(what: str, size: int, bounds: list[Tensor]) -> None:
    smallest, largest = bounds if len(bounds) == 2 else torch.aminmax(bounds[0])
    low, high = int(smallest), int(largest)
    if low < 0 or high >= size:
        raise ValueError(
            f"{what} holds token indices from {low} to {high}; the model's vocabulary is 0 to {size - 1}: use the "
            "processors that the model was made with"
        )


def default_baseline(feature: Feature, everywhere: bool) -> Tensor:
    """UNK for tokens and 0.01 for continuous values, as in PyHealth; padding stays padding unless `everywhere`.

    Returns:
        The shape and dtype of the feature's value.
    """
    value = feature.value
    if feature.survey is not None and not everywhere:
        return feature.survey.baseline
    if feature.is_token and feature.mask is None and not everywhere:
        return feature.filled.to(value.dtype)  # the same as below, because UNK is 1 and PAD 0
    neutral = UNK if feature.is_token else NEUTRAL
    if everywhere:
        return torch.full_like(value, neutral)
    return torch.where(feature.real(), number(neutral, value.dtype, value.device), value)

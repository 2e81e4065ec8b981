"""The samples for fitting a baseline: a seeded part of a dataset, read patient by patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deeplift_fast.pyhealth.features import Feature, kind_of, measured
from deeplift_fast.pyhealth.measured_flags import flags_key, read_flags

ACCEPTED = (
    "accepted: a PyHealth SampleDataset, a subset of one, or a sequence of processed samples, with len and integer "
    "indices"
)


@dataclass(frozen=True)
class FittedPart:
    """Some samples of a dataset, chosen without replacement.

    Attributes:
        dataset: the samples, by index.
        numbers: the indices of the chosen samples, int64, ascending.
        processors: PyHealth's processors, by feature key.
    """

    dataset: Any
    numbers: np.ndarray
    processors: Mapping[str, Any]

    def patients(self) -> list[list[int]]:
        """The samples of each patient; a sample without a patient counts as a patient of its own."""
        found: dict[Any, list[int]] = {}
        for number in map(int, self.numbers):
            name = self.sample(number).get("patient_id")
            name = name.item() if isinstance(name, Tensor) and name.numel() == 1 else name
            found.setdefault(("of none", number) if name is None else str(name), []).append(number)
        return list(found.values())

    def sample(self, number: int) -> Mapping[str, Any]:
        """One sample.

        Raises:
            TypeError: if it is not a mapping.
        """
        sample = self.dataset[number]
        if not isinstance(sample, Mapping):
            raise TypeError(f"sample {number} of the dataset is a {type(sample).__name__}; {ACCEPTED}")
        return sample


def fitted_part(dataset: Any, samples: Any, seed: Any, processors: Mapping[str, Any] | None) -> FittedPart:
    """A seeded part of a dataset, checked.

    Args:
        dataset: see :data:`ACCEPTED`.
        samples: the largest number of samples.
        seed: the seed of the choice.
        processors: by feature key; `None` for the dataset's own.

    Raises:
        TypeError: for a dataset without length or index, or a number that is not an integer.
        ValueError: for an empty dataset, a dataset without processors, fewer than one sample, or a negative seed.
    """
    for name, value, least in (("samples", samples, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} is {value!r}; accepted: an int of {least} or more")
        if value < least:
            raise ValueError(f"{name} is {value}; accepted: {least} or more")
    length = _length(dataset)
    if length == 0:
        raise ValueError("dataset holds no samples; a baseline is fitted on at least one")
    found = processors if processors is not None else _processors(dataset)
    if found is None:
        raise ValueError(
            f"dataset is a {type(dataset).__name__} without input_processors, which say what its samples hold; give a "
            "PyHealth SampleDataset, or processors=model.dataset.input_processors"
        )
    chosen = np.random.default_rng(int(seed)).choice(length, size=min(int(samples), length), replace=False)
    return FittedPart(dataset, np.sort(chosen), found)


def _length(dataset: Any) -> int:
    if isinstance(dataset, DataLoader):
        raise TypeError(f"dataset is a {type(dataset).__name__}, which gives batches; give its samples: loader.dataset")
    by_index = getattr(type(dataset), "__getitem__", None) not in (None, getattr(Dataset, "__getitem__", None))
    if isinstance(dataset, str | bytes | Mapping) or not by_index:
        raise TypeError(f"dataset is a {type(dataset).__name__}, which has no samples by index; {ACCEPTED}")
    try:
        return len(dataset)
    except TypeError:
        raise TypeError(f"dataset is a {type(dataset).__name__} without a length; {ACCEPTED}") from None


def _processors(dataset: Any) -> Mapping[str, Any] | None:
    """The processors of a dataset, or of the dataset that it is a subset of."""
    while dataset is not None:
        found = getattr(dataset, "input_processors", None)
        if found is not None:
            return found  # type: ignore[no-any-return]
        dataset = getattr(dataset, "dataset", None)
    return None


def value_of(sample: Mapping[str, Any], key: str, processor: Any) -> Tensor | None:
    """The value tensor of a sample's feature, or `None`."""
    schema = tuple(processor.schema())
    given = sample.get(key)
    parts = (given,) if isinstance(given, Tensor) else given
    place = schema.index("value") if "value" in schema else len(schema)
    if not isinstance(parts, tuple | list) or len(parts) <= place or not isinstance(parts[place], Tensor):
        return None
    return parts[place]


def values_of(
    sample: Mapping[str, Any], number: int, key: str, processor: Any, flagged: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """The values of a continuous feature of a sample, by dimension.

    Args:
        sample: a processed sample, without padding.
        number: its number, for messages.
        key: the key of the feature.
        processor: the processor of the feature.
        flagged: whether `K_measured` marks the measured values; it does not if it is a feature itself.

    Returns:
        The values, float64 `[n, dimensions]`, and whether each was measured and is finite, bool; `None` if the sample
        has no such values.

    Raises:
        TypeError, ValueError: for a `K_measured` that does not fit; the message names it.
    """
    value = value_of(sample, key, processor)
    if value is None or not value.is_floating_point():
        return None
    value = value.detach().cpu().unsqueeze(0)
    mask = torch.ones(value.shape[:2], dtype=torch.bool, device="cpu")
    flags, name = None, flags_key(key)
    if flagged and (given := sample.get(name)) is not None:
        try:
            flags = read_flags(name, given.unsqueeze(0) if isinstance(given, Tensor) else [given], value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"sample {number} of the dataset: {error}") from None
    feature = Feature(key, (value,), 0, mask, False, kind_of(type(processor)), flags)
    said = measured(feature)
    one = value.dim() == 1 or (value.dim() == 2 and "time" in processor.schema())
    shape = (-1, 1 if one else value.shape[-1])
    if not one and value.shape[-1] == 0:
        return None
    return value.double().reshape(shape).numpy(), (said & value.isfinite()).reshape(shape).numpy()

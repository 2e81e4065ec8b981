"""The metadata of a batch as arrays with one entry per sample, step and slot."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplift_fast.cohort.metadata import (
    ANY_STEPS,
    SPLIT,
    STAYS,
    Stays,
    days_key,
    days_of,
    flags_of,
    listed,
    split_of,
    stay_key,
    stay_of,
    stays_of,
)
from deeplift_fast.cohort.metadata_checks import per_sample
from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.pyhealth.measured_flags import flags_key, own_names

UNKNOWN = -1
"""In place of a flag."""


@dataclass(frozen=True)
class StepMetadata:
    """Metadata of the steps of one feature, padded as its value; `None` where the batch has none.

    Attributes:
        day: float32 `[batch, steps]`, NaN where unknown.
        stay: labels, object `[batch, steps]`, `None` where unknown.
        measured: int8 of the value's shape: 0, 1 or :data:`UNKNOWN`.
    """

    day: np.ndarray | None = None
    stay: np.ndarray | None = None
    measured: np.ndarray | None = None


@dataclass(frozen=True)
class Metadata:
    """The metadata of a batch; every method raises Fault for a field that does not fit.

    Args:
        model: the PyHealth model.
        batch: the batch.
        size: number of its samples.
    """

    model: Any
    batch: Mapping[str, Any]
    size: int

    def splits(self) -> list[str | None]:
        """The split of each sample."""
        return [split_of(each) for each in self._field(SPLIT)]

    def stays(self) -> list[Stays | None]:
        """The stays of each sample."""
        return [stays_of(each) for each in self._field(STAYS)]

    def of_steps(self, feature: Feature, in_steps: bool, stays: list[Stays | None]) -> StepMetadata:
        """The metadata of a feature's steps; those beyond its padded steps are left out.

        Args:
            feature: the feature.
            in_steps: whether it has steps.
            stays: the stays of each sample.
        """
        key = feature.key
        shape = (self.size, feature.value.shape[1] if in_steps else 1)
        day = stay = None
        if self._has(days_key(key)):
            found = [None if each is None else days_of(days_key(key), each) for each in self._field(days_key(key))]
            day = _padded(found, np.full(shape, np.nan, np.float32))
        if self._has(name := stay_key(key)):
            pairs = zip(self._field(name), stays, strict=True)
            labels = [None if each is None else stay_of(name, each, of) for each, of in pairs]
            stay = _padded(labels, np.full(shape, None, object))
        return StepMetadata(day, stay, self._measured(feature))

    def _measured(self, feature: Feature) -> np.ndarray | None:
        if not self._has(name := flags_key(feature.key)):
            return None
        given = listed(name, per_sample(self.batch[name]), self.size)
        if feature.flags is not None:
            found = feature.flags.cpu().numpy().astype(np.int8)
            found[[each is None for each in given]] = UNKNOWN
            return found
        shape = tuple(feature.value.shape[1:])
        shape = (ANY_STEPS, *shape[1:]) if shape else ()
        flags = [None if each is None else np.atleast_1d(flags_of(name, each, shape, True)) for each in given]
        return _padded(flags, np.full(feature.value.shape if shape else (self.size, 1), UNKNOWN, np.int8))

    def _has(self, name: str) -> bool:
        return self.batch.get(name) is not None and name not in own_names(self.model)

    def _field(self, name: str) -> list[Any]:
        return listed(name, self.batch[name] if self._has(name) else None, self.size)


def _padded(found: list[Any], padded: np.ndarray) -> np.ndarray:
    """The samples' entries in a padded array; samples without any keep its content."""
    for row, each in zip(padded, found, strict=True):
        if each is not None:
            count = min(len(each), len(row))
            row[:count] = each[:count]
    return padded

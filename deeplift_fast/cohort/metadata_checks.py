"""The metadata of a group's samples, checked against their features before any sample is attributed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.cohort.metadata import (
    ANY_STEPS,
    SPLIT,
    STAYS,
    Fault,
    days_key,
    days_of,
    flags_of,
    listed,
    split_of,
    stay_key,
    stay_of,
    stays_of,
)
from deeplift_fast.cohort.metadata_entries import (
    UNKNOWN,
    Entries,
    StaysColumn,
    days_at_once,
    entries_of,
    flags_at_once,
    places_at_once,
    stays_at_once,
    stays_of_each,
)
from deeplift_fast.cohort.metadata_steps import Steps, steps_of
from deeplift_fast.cohort.samples import Group, Ragged
from deeplift_fast.pyhealth.measured_flags import flags_key, own_names


@dataclass(frozen=True)
class GroupMetadata:
    """The metadata of a group's samples; a field that no sample has is missing, and a faulty sample says nothing.

    Attributes:
        faults: the first fault of each faulty sample, by place in the group.
        splits: the split of each sample, or `None`; `None` without the field.
        stays: the stays of each sample; `None` without the field.
        labels: labels of stays.
        days: by feature key, the days of its steps, float32.
        stay: by feature key, the stays of its steps, as places in `labels`, int32.
        measured: by feature key, its flags, bool; of the value's shape, or of its first dimensions.
        fitting: keys of features with steps whose flags all fit.
    """

    faults: dict[int, Fault]
    splits: list[str | None] | None
    stays: StaysColumn | None
    labels: list[str]
    days: dict[str, Entries]
    stay: dict[str, Entries]
    measured: dict[str, Entries]
    fitting: set[str]


def faults(group: Group, model: Any) -> dict[int, Fault]:
    """The first fault in the metadata of each sample of a group, by place in it."""
    return metadata_of(group, model).faults


def metadata_of(group: Group, model: Any) -> GroupMetadata:
    """The metadata of a group's samples.

    Args:
        group: the samples.
        model: the PyHealth model.
    """
    return _Reading(group, model).found


class _Reading:
    """Reads the fields of a group one after another; `found` is complete at the end."""

    def __init__(self, group: Group, model: Any) -> None:
        self._group, self._size = group, len(group.numbers)
        self._own = own_names(model)
        self._faults: dict[int, Fault] = {}
        stays = self._stays()
        labels = [] if stays is None else list(stays.labels)
        self._place = {label: place for place, label in reversed([*enumerate(labels)])}
        self.found = GroupMetadata(self._faults, self._splits(), stays, labels, {}, {}, {}, set())
        for key in model.feature_keys:
            names = [name for name in (days_key(key), stay_key(key), flags_key(key)) if name not in self._own]
            if any(group.field(name) is not None for name in names):
                self._feature(key, model.dataset.input_processors[key])

    def _stays(self) -> StaysColumn | None:
        if (given := self._field(STAYS)) is None:
            return None
        return stays_at_once(given) or stays_of_each(self._one_by_one(given, lambda _, each: stays_of(each)))

    def _splits(self) -> list[str | None] | None:
        if (given := self._field(SPLIT)) is None:
            return None
        return self._one_by_one(given, lambda _, each: split_of(each))

    def _feature(self, key: str, processor: Any) -> None:
        steps = steps_of(self._group, key, processor)
        if steps is None and self._group.unusable(key):
            return  # the feature itself is faulty
        if (given := self._field(days_key(key))) is not None:
            self.found.days[key] = self._days(days_key(key), given, steps)
        if (given := self._field(stay_key(key))) is not None:
            self.found.stay[key] = self._stay(stay_key(key), given, steps)
        if (given := self._field(flags_key(key))) is not None:
            self.found.measured[key] = self._flags(flags_key(key), given, steps, bool(processor.is_token()))
            if steps is not None and steps.in_steps:
                self.found.fitting.add(key)

    def _days(self, name: str, given: list[Any], steps: Steps | None) -> Entries:
        found = days_at_once(name, given)
        if found is not None and _fit(found, steps):
            return found
        each = self._one_by_one(given, lambda place, one: _checked(days_of(name, one), name, place, steps))
        return entries_of(each, np.empty(0, np.float32))

    def _stay(self, name: str, given: list[Any], steps: Steps | None) -> Entries:
        stays = self.found.stays
        found = None if stays is None else places_at_once(given, stays)
        if found is not None and _fit(found, steps):
            return found

        def read(place: int, one: Any) -> list[str | None]:
            return _checked(stay_of(name, one, None if stays is None else stays.of(place)), name, place, steps)

        each = [None if one is None else self._places(one) for one in self._one_by_one(given, read)]
        return entries_of(each, np.empty(0, np.int32))

    def _places(self, labels: Sequence[str | None]) -> np.ndarray:
        """The places of labels in `found.labels`, which takes in those that it does not have."""
        for label in labels:
            if label is not None and label not in self._place:
                self._place[label] = len(self.found.labels)
                self.found.labels.append(label)
        return np.array([UNKNOWN if label is None else self._place[label] for label in labels], np.int32)

    def _flags(self, name: str, given: list[Any], steps: Steps | None, is_token: bool) -> Entries:
        if steps is None:  # values of a dtype that NumPy lacks; the interpreter checks their flags
            return Entries(
                np.empty(0, bool), np.zeros(self._size, np.int64), np.array([one is not None for one in given])
            )
        shape = (ANY_STEPS, *steps.shape[1:]) if steps.in_steps else steps.shape
        found = flags_at_once(given, shape[1:]) if steps.in_steps else None
        if found is not None and _fit(found, steps):
            return found

        def read(place: int, one: Any) -> np.ndarray:
            flags = np.atleast_1d(flags_of(name, one, shape, is_token))
            return _checked(flags, name, place, steps if steps.in_steps else None)

        return entries_of(self._one_by_one(given, read), np.zeros((0, *shape[1:]), bool))

    def _field(self, name: str) -> list[Any] | None:
        """The entries of a field by sample; `None` without it, or if a feature or label has its name."""
        field = None if name in self._own else self._group.field(name)
        if name.endswith(flags_key("")):
            field = per_sample(field)
        elif isinstance(field, Ragged):
            field = torch.from_numpy(field.flat)  # as the samples had it, for the message
        if field is None:
            return None
        try:
            return listed(name, field, self._size)
        except Fault as fault:
            for place in range(self._size):
                self._faults.setdefault(place, fault)
            return None

    def _one_by_one[Read](self, given: Sequence[Any], read: Callable[[int, Any], Read]) -> list[Read | None]:
        """What `read` makes of the place and the entry of each sample; `None` for those with a fault, or `None`."""
        found: list[Read | None] = [None] * len(given)
        for place, one in enumerate(given):
            if one is not None:
                try:
                    found[place] = read(place, one)
                except Fault as fault:
                    self._faults.setdefault(place, fault)
        return found


def _fit(found: Entries, steps: Steps | None) -> bool:
    return steps is None or bool(steps.fit(found.lengths)[found.said].all())


def _checked[Listed: (np.ndarray, list[str | None])](
    entries: Listed, name: str, place: int, steps: Steps | None
) -> Listed:
    if steps is not None:
        steps.check(name, place, len(entries))
    return entries


def per_sample(field: Any) -> Any:
    """The flags of each sample, of a field that may be a tensor."""
    if isinstance(field, Ragged):
        return list(field.flat) if field.lengths is None else np.split(field.flat, np.cumsum(field.lengths)[:-1])
    return list(field.detach().cpu()) if isinstance(field, Tensor) and field.dim() else field

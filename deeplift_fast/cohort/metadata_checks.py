"""Checks the metadata of samples against their features, before any sample is attributed."""

import math
from collections.abc import Callable
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
from deeplift_fast.cohort.samples import Group, Ragged
from deeplift_fast.pyhealth.measured_flags import flags_key, own_names


@dataclass(frozen=True)
class Steps:
    """The numbers of steps that samples of a group have for a feature.

    Attributes:
        least: int64 `[samples]`, up to the last step that holds anything.
        most: int64 `[samples]`; in a padded batch, the longest sample's.
        is_exact: whether `most` is each sample's own.
        shape: the shape of a sample's value; its first dimension is the steps if `in_steps`.
        in_steps: whether the feature has steps.
    """

    least: np.ndarray
    most: np.ndarray
    is_exact: bool
    shape: tuple[int, ...]
    in_steps: bool

    def check(self, name: str, place: int, count: int) -> None:
        """Raise Fault unless a sample's list of this length has one entry per step."""
        least, most = int(self.least[place]), int(self.most[place])
        if least <= count <= most and (self.is_exact or count in (least, most)):
            return
        hint = ""
        if self.in_steps and not self.is_exact and least < count < most:
            hint = "; a padded batch hides empty steps at a sample's end: leave out their entries"
        raise Fault(
            f"{name} has another number of entries than its feature has steps; accepted: one entry per step that the "
            f"feature's processor makes, which may merge, add or drop steps of the raw record{hint}",
            f"{count} entries, {most if self.is_exact else least} steps",
        )


def faults(group: Group, model: Any) -> dict[int, Fault]:
    """The first fault in the metadata of each sample of a group, by place in it."""
    return _Faults(group, model).found


class _Faults:
    def __init__(self, group: Group, model: Any) -> None:
        self.found: dict[int, Fault] = {}
        self._group, self._model = group, model
        self._own = own_names(model)
        stays: dict[int, Stays | None] = {}
        self._each(STAYS, lambda place, given: stays.update({place: stays_of(given)}))
        self._each(SPLIT, lambda _, given: split_of(given))
        for key in model.feature_keys:
            self._of_feature(key, stays)

    def _of_feature(self, key: str, stays: dict[int, Stays | None]) -> None:
        days, stay, measured = days_key(key), stay_key(key), flags_key(key)
        given = [name for name in (days, stay, measured) if name not in self._own]
        if all(self._group.field(name) is None for name in given):
            return
        processor = self._model.dataset.input_processors[key]
        steps = steps_of(self._group, key, processor)
        if steps is None:
            return  # the feature itself is faulty
        self._each(days, lambda place, each: steps.check(days, place, len(days_of(days, each))))
        self._each(stay, lambda place, each: steps.check(stay, place, len(stay_of(stay, each, stays.get(place)))))
        shape = (ANY_STEPS, *steps.shape[1:]) if steps.in_steps else steps.shape
        is_token = bool(processor.is_token())

        def check_flags(place: int, each: Any) -> None:
            flags = flags_of(measured, each, shape, is_token)
            if steps.in_steps:
                steps.check(measured, place, len(flags))

        self._each(measured, check_flags)

    def _each(self, name: str, check: Callable[[int, Any], Any]) -> None:
        """Checks a field of each sample that has it, unless a feature or label has its name."""
        if name in self._own:
            return
        size, field = len(self._group.numbers), self._group.field(name)
        if name.endswith(flags_key("")):
            field = per_sample(field)
        elif isinstance(field, Ragged):
            field = torch.from_numpy(field.flat)  # as the samples had it, for the message
        try:
            entries = listed(name, field, size)
        except Fault as fault:
            self.found = dict.fromkeys(range(size), fault) | self.found
            return
        for place, given in enumerate(entries):
            if given is not None:
                try:
                    check(place, given)
                except Fault as fault:
                    self.found.setdefault(place, fault)


def per_sample(field: Any) -> Any:
    """The flags of each sample, of a field that may be a tensor."""
    if isinstance(field, Ragged):
        return list(field.flat) if field.lengths is None else np.split(field.flat, np.cumsum(field.lengths)[:-1])
    return list(field.detach().cpu()) if isinstance(field, Tensor) and field.dim() else field


def steps_of(group: Group, key: str, processor: Any) -> Steps | None:
    """The numbers of steps of a feature; `None` if it has no usable tensors."""
    parts = group.tensors(key)
    if not parts:
        return None
    size, schema = len(group.numbers), tuple(processor.schema())
    field, place = group.field(key), schema.index("time") if "time" in schema else None
    is_timed = place is not None and isinstance(field, tuple | list) and field[place] is not None
    shapes = [part.entries.shape[1:] if part.lengths is None else part.entries.shape for part in parts]
    shape = max(shapes, key=len)
    in_steps = len(shape) > (0 if is_timed or processor.is_token() else 1)
    if not in_steps:
        ones = np.ones(size, np.int64)
        return Steps(ones, ones, True, shape, False)
    least, most = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for part, each in zip(parts, shapes, strict=True):
        if not each:
            continue
        lengths = np.full(size, each[0]) if part.lengths is None else part.lengths
        owner = np.repeat(np.arange(size), lengths)
        step = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        held = part.entries.reshape(len(owner), math.prod(each[1:])).any(1)
        np.maximum.at(least, owner[held], step[held] + 1)
        most = np.maximum(most, lengths)
    return Steps(least, most, not group.is_loaded, shape, True)

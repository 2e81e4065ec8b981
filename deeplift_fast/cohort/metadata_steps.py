"""The numbers of steps that samples have for a feature, which their metadata must fit."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplift_fast.cohort.metadata import Fault
from deeplift_fast.cohort.samples import Group


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

    def fit(self, counts: np.ndarray) -> np.ndarray:
        """Whether lists of these lengths, int64 `[samples]`, have one entry per step, bool `[samples]`."""
        inside = (self.least <= counts) & (counts <= self.most)
        return inside if self.is_exact else inside & ((counts == self.least) | (counts == self.most))

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

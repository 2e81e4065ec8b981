"""Metadata of all samples of a group as flat arrays, read at once wherever all of them are sound.

A function here joins the lists of all samples and reads them as one. It returns `None` if that is not possible, or if
something is wrong with any of them; then the samples are read one by one, which finds the faulty ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from deeplift_fast.cohort.metadata import STAYS, Fault, Stays, days_of
from deeplift_fast.cohort.tables import STAYS as STAYS_TYPE

UNKNOWN = -1
"""In place of a stay's place or of a flag."""


@dataclass(frozen=True)
class Entries:
    """One entry per step, one sample after another.

    Attributes:
        flat: `[entries, …]`.
        lengths: int64 `[samples]`; 0 for a sample that says nothing.
        said: whether a sample says anything, bool `[samples]`.
    """

    flat: np.ndarray
    lengths: np.ndarray
    said: np.ndarray

    def at(self, which: np.ndarray, sample: np.ndarray, step: np.ndarray, unknown: Any) -> np.ndarray:
        """The entries of some steps.

        Args:
            which: places of a batch's samples, int64 `[batch]`.
            sample: the place in the batch of the sample of each step, int `[rows]`.
            step: number of the step, int `[rows]`.
            unknown: stands for a step without an entry.

        Returns:
            `[rows, …]`.
        """
        lengths = self.lengths[which]
        begins = np.cumsum(self.lengths)[which] - lengths
        found = np.full((len(step), *self.flat.shape[1:]), unknown, self.flat.dtype)
        has = step < lengths[sample]
        found[has] = self.flat[(begins[sample] + step)[has]]
        return found

    def padded(self, which: np.ndarray, shape: tuple[int, ...], padding: Any, dtype: Any) -> np.ndarray:
        """The entries of some samples, `shape`, padded.

        Args:
            which: places of the samples, int64 `[batch]`.
            shape: the shape, `[batch, steps, …]`; entries for a whole step stand at each of its places.
            padding: stands where there is no entry.
            dtype: the dtype of the result.
        """
        found = np.full(shape, padding, dtype)
        flat = self.flat.reshape(*self.flat.shape, *[1] * (len(shape) - 1 - self.flat.ndim))
        lengths = self.lengths[which]
        begins = np.cumsum(self.lengths)[which] - lengths
        row, column = np.nonzero(np.arange(shape[1]) < lengths[:, None])
        found[row, column] = flat[begins[row] + column]
        return found


def entries_of(each: Sequence[np.ndarray | None], empty: np.ndarray) -> Entries:
    """The entries of samples that were read one by one.

    Args:
        each: the entries of each sample, `[steps, …]`, or `None`.
        empty: no entries, `[0, …]`, for the dtype and the shape.
    """
    said = np.array([one is not None for one in each], bool)
    lengths = np.array([0 if one is None else len(one) for one in each], np.int64)
    return Entries(np.concatenate([empty, *(one for one in each if one is not None)]), lengths, said)


def joined(given: Sequence[Any]) -> tuple[list[Any], np.ndarray, np.ndarray] | None:
    """The entries of all samples in one list, with `lengths` and `said` of :class:`Entries`."""
    said = np.fromiter((each is not None for each in given), bool, len(given))
    lists = [each for each in given if each is not None]
    kinds = {*map(type, lists)}
    if not kinds <= {list, tuple, np.ndarray}:
        return None
    if np.ndarray in kinds:
        if any(each.ndim != 1 for each in lists if isinstance(each, np.ndarray)):
            return None
        lists = [each.tolist() if isinstance(each, np.ndarray) else each for each in lists]
    lengths = np.zeros(len(given), np.int64)
    lengths[said] = np.fromiter(map(len, lists), np.int64, len(lists))
    return list(chain.from_iterable(lists)), lengths, said


def days_at_once(name: str, given: Sequence[Any]) -> Entries | None:
    """The days of the steps of all samples, float32, NaN for `None`."""
    if (found := joined(given)) is None:
        return None
    flat, lengths, said = found
    try:
        return Entries(days_of(name, flat), lengths, said)
    except Fault:
        return None


def places_at_once(given: Sequence[Any], stays: "StaysColumn") -> Entries | None:
    """The stay of each step as a place in `stays.labels`, int32, :data:`UNKNOWN` for `None`; for ints alone."""
    if (found := joined(given)) is None:
        return None
    flat, lengths, said = found
    unknown = flat.count(None)
    if not {*map(type, flat)} <= {int, type(None)} or not stays.said[said].all():
        return None
    try:
        places = np.array(flat, np.float64 if unknown else np.int64)  # NumPy makes NaN of None
    except OverflowError:
        return None
    known = ~np.isnan(places)
    owner = np.repeat(np.arange(len(given)), lengths)
    inside = (places[known] >= 0) & (places[known] < stays.lengths[owner[known]])
    if not inside.all():
        return None
    labels = np.full(len(flat), UNKNOWN, np.int32)
    labels[known] = (np.cumsum(stays.lengths) - stays.lengths)[owner[known]] + places[known]
    return Entries(labels, lengths, said)


def flags_at_once(given: Sequence[Any], inner: tuple[int, ...]) -> Entries | None:
    """The flags of the steps of all samples, bool, `[entries]` or with dimensions of `inner`; for arrays alone.

    Args:
        given: the flags of each sample.
        inner: the shape of the value of one step.
    """
    arrays = [each for each in given if each is not None]
    if not all(isinstance(each, np.ndarray) and each.dtype == np.bool_ and each.ndim for each in arrays):
        return None
    shapes = {each.shape[1:] for each in arrays}
    if len(shapes) != 1 or (shape := shapes.pop()) != inner[: len(shape)]:
        return None
    return entries_of(given, np.zeros((0, *shape), bool))


@dataclass(frozen=True)
class StaysColumn:
    """The stays of samples, one sample after another.

    Attributes:
        labels: their labels.
        begins: the first day of each, float32, NaN for `None`.
        lengths: number of stays of each sample, int64 `[samples]`.
        said: whether a sample says its stays, bool `[samples]`.
    """

    labels: list[str]
    begins: np.ndarray
    lengths: np.ndarray
    said: np.ndarray

    def of(self, place: int) -> Stays | None:
        """The stays of one sample."""
        if not self.said[place]:
            return None
        end = int(self.lengths[: place + 1].sum())
        mine = slice(end - int(self.lengths[place]), end)
        begins = [None if begin != begin else begin for begin in self.begins[mine].tolist()]  # NaN
        return [*zip(self.labels[mine], begins, strict=True)]

    def column(self, which: np.ndarray) -> pa.Array:
        """The column `stays` of some samples, int64 `[batch]`."""
        return self._column.take(pa.array(which))

    @cached_property
    def _column(self) -> pa.Array:
        known = ~np.isnan(self.begins)
        stays = pa.StructArray.from_arrays(
            [pa.array(self.labels, pa.string()), pa.array(self.begins, pa.float32(), mask=~known)],
            fields=list(STAYS_TYPE.value_type),
        )
        ends = np.append(0, np.cumsum(self.lengths)).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), stays, mask=pa.array(~self.said))


def stays_of_each(each: Sequence[Stays | None]) -> StaysColumn:
    """The stays of samples that were read one by one."""
    flat = [stay for stays in each if stays is not None for stay in stays]
    begins = np.array([np.nan if begin is None else begin for _, begin in flat], np.float32)
    said = np.array([stays is not None for stays in each], bool)
    lengths = np.array([0 if stays is None else len(stays) for stays in each], np.int64)
    return StaysColumn([label for label, _ in flat], begins, lengths, said)


def stays_at_once(given: Sequence[Any]) -> StaysColumn | None:
    """The stays of all samples, if each is a pair with a text in ASCII."""
    if (found := joined(given)) is None:
        return None
    pairs, lengths, said = found
    if not {*map(type, pairs)} <= {list, tuple} or not {*map(len, pairs)} <= {2}:
        return None
    labels = [label for label, _ in pairs]
    if not {*map(type, labels)} <= {str} or not all(map(str.isascii, labels)):
        return None
    owner = np.repeat(np.arange(len(given)), lengths)
    if len({*zip(owner.tolist(), labels, strict=True)}) < len(labels):
        return None
    try:
        begins = days_of(f"begin in {STAYS}", [begin for _, begin in pairs])
    except Fault:
        return None
    return StaysColumn(labels, begins, lengths, said)

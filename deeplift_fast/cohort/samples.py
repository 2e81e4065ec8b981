"""The samples of a part in memory, and the batches that they are cut into.

Samples stay ragged until a batch is made, so that a batch is padded to its own longest sample only. Samples of one
group fit into one batch. Samples of a dataset share a group if their fields agree in everything but the length of the
first dimension, so that an odd sample does not spoil others. A loader's batch is a group of its own, already padded.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, override

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.cohort.entries import taken
from deeplift_fast.cohort.identifiers import IDENTIFIERS, of_batch, of_samples
from deeplift_fast.cohort.metadata import compact
from deeplift_fast.cohort.odd_tensors import Unusable, oddity, usable
from deeplift_fast.cohort.padding import padded


@dataclass(frozen=True)
class Ragged:
    """One field of several samples.

    Attributes:
        flat: the values of one sample after another, `[sum of lengths, …]`; `[samples]` for single numbers.
        lengths: int64 `[samples]`, the first dimension of each; `None` for single numbers.
    """

    flat: np.ndarray
    lengths: np.ndarray | None

    def padded(self, which: np.ndarray) -> Tensor:
        """Some of the samples as PyHealth's loader collates them: `[len(which), longest, …]`, padded with 0."""
        if self.lengths is None:
            return torch.from_numpy(self.flat[which]).clone()
        return padded(self.flat, self.lengths, which)


Field = Ragged | tuple[Ragged | None, Ragged] | list[Any] | np.ndarray
"""Tensors, pairs (time, value) of tensors, or anything else: a list or an array of objects."""


@dataclass(frozen=True)
class FlatTensor:
    """A tensor of a field, one entry along its first dimension after another.

    Attributes:
        entries: `[entries, …]`.
        lengths: int64 `[samples]`; `None` where there is no sequence: then each sample has one entry.
    """

    entries: np.ndarray
    lengths: np.ndarray | None

    @property
    def owner(self) -> np.ndarray:
        """The place in the group of the sample that each entry belongs to, int64 `[entries]`."""
        if self.lengths is None:
            return np.arange(len(self.entries))
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


@dataclass(frozen=True)
class Group(ABC):
    """Samples that fit into one batch.

    Attributes:
        numbers: numbers of the samples in the dataset, int64 `[samples]`.
        is_loaded: whether the group is a loader's batch, which is cut only where memory demands it.
    """

    numbers: np.ndarray
    is_loaded: ClassVar[bool]

    @abstractmethod
    def lengths(self, keys: Sequence[str]) -> np.ndarray:
        """Padded steps that each sample needs for some features, int64 `[samples]`: its longest sequence, or 1."""

    @abstractmethod
    def batch(self, which: np.ndarray) -> dict[str, Any]:
        """Some of the samples as PyHealth's loader would yield them."""

    @abstractmethod
    def field(self, key: str) -> Any:
        """A field as the group holds it; `None` without it."""

    @abstractmethod
    def tensors(self, key: str) -> list[FlatTensor]:
        """The tensors of a field."""

    @abstractmethod
    def unusable(self, key: str) -> list[tuple[int, str]]:
        """Places of samples whose field is an odd tensor, with its oddity."""


@dataclass(frozen=True)
class RaggedGroup(Group):
    """Samples of a dataset."""

    fields: dict[str, Field]
    is_loaded = False

    @override
    def lengths(self, keys: Sequence[str]) -> np.ndarray:
        longest = np.ones(len(self.numbers), np.int64)
        for key in keys:
            for part in _ragged(self.fields.get(key)):
                if part.lengths is not None:
                    longest = np.maximum(longest, part.lengths)
        return longest

    @override
    def batch(self, which: np.ndarray) -> dict[str, Any]:
        return {key: _padded(field, which) for key, field in self.fields.items()}

    @override
    def field(self, key: str) -> Any:
        field = self.fields.get(key)
        return field.tolist() if isinstance(field, np.ndarray) else field

    @override
    def tensors(self, key: str) -> list[FlatTensor]:
        return [FlatTensor(part.flat, part.lengths) for part in _ragged(self.fields.get(key))]

    @override
    def unusable(self, key: str) -> list[tuple[int, str]]:
        return _unusable(self.fields.get(key))


@dataclass(frozen=True)
class PaddedGroup(Group):
    """A loader's batch, in the regular form of :func:`deeplift_fast.cohort.entries.regular`."""

    given: Mapping[str, Any]
    is_loaded = True

    @override
    def lengths(self, keys: Sequence[str]) -> np.ndarray:
        longest = max([1, *(part.shape[1] for key in keys for part in _tensors(self.given.get(key)) if part.dim() > 1)])
        return np.full(len(self.numbers), longest, np.int64)

    @override
    def batch(self, which: np.ndarray) -> dict[str, Any]:
        if np.array_equal(which, np.arange(len(self.numbers))):
            return dict(self.given)
        return {key: taken(value, which) for key, value in self.given.items()}

    @override
    def field(self, key: str) -> Any:
        return self.given.get(key)

    @override
    def tensors(self, key: str) -> list[FlatTensor]:
        usable = [part for part in _tensors(self.given.get(key)) if oddity(part) is None]
        return [FlatTensor(part.detach().cpu().numpy(), None) for part in usable]

    @override
    def unusable(self, key: str) -> list[tuple[int, str]]:
        return _unusable(self.given.get(key))


@dataclass(frozen=True)
class Stretch:
    """The consecutive samples of a part.

    Attributes:
        part: number of the part.
        begin: number of its first sample.
        end: number of its last sample, plus 1.
        groups: the samples, each in one group.
        identifiers: by column of :data:`IDENTIFIERS`, a text or `None` per sample, in the dataset's order.
    """

    part: int
    begin: int
    end: int
    groups: Sequence[Group]
    identifiers: Mapping[str, Sequence[str | None]]


def stretch_of(samples: Sequence[Mapping[str, Any]], part: int, begin: int) -> Stretch:
    """The stretch that processed samples make.

    Args:
        samples: by field, a tensor, a pair (time, value) of tensors, or anything else, as in a PyHealth dataset.
        part: number of the part.
        begin: number of the first sample.
    """
    samples = [{key: compact(key, usable(value)) for key, value in sample.items()} for sample in samples]
    grouped: dict[tuple, list[int]] = {}
    for place, sample in enumerate(samples):
        kinds = tuple((key, _kind(value)) for key, value in sample.items())
        grouped.setdefault(kinds, []).append(place)
    groups = []
    for places in grouped.values():
        few = samples if len(grouped) == 1 else [samples[place] for place in places]
        numbers = begin + np.array(places, np.int64)
        groups.append(RaggedGroup(numbers, {key: _field([each[key] for each in few]) for key in few[0]}))
    return Stretch(part, begin, begin + len(samples), groups, of_samples(samples))


def stretches_of(batches: Iterator[tuple[int, Mapping[str, Any]]], part_samples: int) -> Iterator[Stretch]:
    """The stretches that batches make, cut where a part ends.

    Args:
        batches: pairs of the number of samples and the batch in regular form, in order.
        part_samples: samples per part.
    """
    begin = number = 0
    pieces: list[PaddedGroup] = []
    for size, batch in batches:
        first = 0
        while first < size:
            count = min(size - first, begin + part_samples - number)
            which = np.arange(first, first + count)
            given = batch if count == size else {key: taken(value, which) for key, value in batch.items()}
            pieces.append(PaddedGroup(np.arange(number, number + count), given))
            first, number = first + count, number + count
            if number == begin + part_samples:
                yield _stretch_of_pieces(pieces, begin, number, part_samples)
                begin, pieces = number, []
    if pieces:
        yield _stretch_of_pieces(pieces, begin, number, part_samples)


def _stretch_of_pieces(pieces: list[PaddedGroup], begin: int, end: int, part_samples: int) -> Stretch:
    names = [of_batch(piece.given, len(piece.numbers)) for piece in pieces]
    identifiers = {column: [text for each in names for text in each[column]] for column in IDENTIFIERS}
    return Stretch(begin // part_samples, begin, end, pieces, identifiers)


def _kind(value: Any) -> Any:
    if type(value) is Tensor or isinstance(value, Tensor):  # the first is several times as fast
        shape = value.shape
        return value.dtype, len(shape), shape[1:]
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Tensor):
        return "time" if value[0] is None else _kind(value[0]), _kind(value[1])
    return "unusable" if isinstance(value, Unusable) else "other"


def _field(values: list[Any]) -> Field:
    first = values[0]
    if isinstance(first, Tensor):
        return _joined(values)
    if isinstance(first, tuple) and len(first) == 2 and isinstance(first[1], Tensor):
        value = _joined([each[1] for each in values])
        if first[0] is None:
            return None, value
        if isinstance(first[0], Tensor):
            return _joined([each[0] for each in values]), value
    return values


def _joined(tensors: list[Tensor]) -> Ragged:
    if tensors[0].dim() == 0:
        return Ragged(torch.stack(tensors).numpy(force=True), None)
    return Ragged(torch.cat(tensors).numpy(force=True), np.array([len(each) for each in tensors], np.int64))


def _unusable(field: Any) -> list[tuple[int, str]]:
    each = enumerate(field) if isinstance(field, list) else ()
    return [(place, value.reason) for place, value in each if isinstance(value, Unusable)]


def _ragged(field: Field | None) -> list[Ragged]:
    parts = field if isinstance(field, tuple) else (field,)
    return [part for part in parts if isinstance(part, Ragged)]


def _padded(field: Field, which: np.ndarray) -> Any:
    if isinstance(field, tuple):
        return tuple(None if part is None else part.padded(which) for part in field)
    if isinstance(field, np.ndarray):
        return field[which].tolist()
    return field.padded(which) if isinstance(field, Ragged) else [field[place] for place in which]


def _tensors(value: Any) -> list[Tensor]:
    return [part for part in (value if isinstance(value, tuple | list) else (value,)) if isinstance(part, Tensor)]


@dataclass(frozen=True)
class Batch:
    """Samples that are attributed in one call.

    Attributes:
        group: their group.
        which: their places in it, int64 `[samples]`.
    """

    group: Group
    which: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the samples in the dataset, int64 `[samples]`."""
        return self.group.numbers[self.which]

    def given(self) -> dict[str, Any]:
        """The samples as PyHealth's loader would yield them."""
        return self.group.batch(self.which)

    def halves(self) -> tuple["Batch", "Batch"]:
        """The batch in two; it must hold two samples or more."""
        middle = len(self.which) // 2
        return Batch(self.group, self.which[:middle]), Batch(self.group, self.which[middle:])


def cut(group: Group, which: np.ndarray, keys: Sequence[str], budget: int) -> list[Batch]:
    """Cuts samples of a group into batches by their length; equal arguments give equal batches.

    Args:
        group: the group; a loader's batch is not cut.
        which: places in it, int64 `[samples]`.
        keys: the features whose sequences are padded.
        budget: most padded steps (samples times the longest sequence) of a batch; a longer sample is a batch alone.

    Returns:
        Batches of ascending length; samples of one length stay in the dataset's order.
    """
    if not len(which):
        return []
    if group.is_loaded:
        return [Batch(group, which)]
    lengths = group.lengths(keys)[which]
    order = np.argsort(lengths, kind="stable")
    which, lengths = which[order], lengths[order]
    batches, begin = [], 0
    while begin < len(which):
        # Lengths ascend, so the padded steps of which[begin:end] do too.
        steps = lengths[begin:] * np.arange(1, len(which) - begin + 1)
        end = begin + max(1, int(np.searchsorted(steps, budget, side="right")))
        batches.append(Batch(group, which[begin:end]))
        begin = end
    return batches

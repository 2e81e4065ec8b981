"""The samples of a part in memory: ragged, so that they are padded only as far as the batch they end up in needs.

A window's groups hold samples that can stand in one batch. Samples as a dataset gives them are grouped by what their
fields are (dtype, number of dimensions, everything but the length of the first dimension), so that an odd sample never
keeps others from being attributed. A batch as a loader gave it is a group of its own, padded as it came.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.cohort.entries import taken
from deeplift_fast.cohort.identifiers import IDENTIFIERS, of_batch, of_sample
from deeplift_fast.cohort.odd_tensors import Unusable, oddity, usable


@dataclass(frozen=True)
class Ragged:
    """One field of several samples.

    Attributes:
        flat: the samples' values one after the other, `[sum of lengths, …]`; `[samples]` for single numbers.
        lengths: int64 `[samples]`, the first dimension of each; `None` for single numbers.
    """

    flat: np.ndarray
    lengths: np.ndarray | None

    def padded(self, which: np.ndarray) -> Tensor:
        """Some of the samples as PyHealth's loader collates them: `[len(which), longest, …]`, padded with 0.

        In PyTorch's memory: products round by how their operands are aligned, and NumPy's are now so, now so.
        """
        if self.lengths is None:
            return torch.from_numpy(self.flat[which]).clone()
        lengths = self.lengths[which]
        begins = np.cumsum(self.lengths)[which] - lengths
        shape = (len(which), int(lengths.max(initial=0)), *self.flat.shape[1:])
        padded = torch.zeros(shape, dtype=torch.from_numpy(self.flat[:0]).dtype, device="cpu")
        row, column = np.nonzero(np.arange(shape[1]) < lengths[:, None])
        padded.numpy()[row, column] = self.flat[begins[row] + column]
        return padded


Field = Ragged | tuple[Ragged | None, Ragged] | list[Any]


class Group(Protocol):
    """Samples that can stand in one batch."""

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the samples in the dataset, int64 `[samples]`."""

    @property
    def as_it_came(self) -> bool:
        """Whether it is a loader's batch, which is cut only where memory demands it."""

    def lengths(self, keys: Sequence[str]) -> np.ndarray:
        """Padded steps that each sample needs for some features, int64 `[samples]`: its longest sequence, or 1."""

    def batch(self, which: np.ndarray) -> dict[str, Any]:
        """Some of the samples as PyHealth's loader would give them."""

    def values(self, key: str) -> list["Parts"]:
        """The tensors of a field, and which sample each of their rows belongs to."""

    def unusable(self, key: str) -> list[tuple[int, str]]:
        """Places of samples whose field cannot be used, and what is odd about it."""


@dataclass(frozen=True)
class Parts:
    """A tensor of a field, row by row.

    Attributes:
        rows: `[rows, …]`.
        owner: int64 `[rows]`, the place in the group of the sample that a row belongs to.
        lengths: int64 `[samples]`, or `None` where there is no sequence.
    """

    rows: np.ndarray
    owner: np.ndarray
    lengths: np.ndarray | None


@dataclass(frozen=True)
class RaggedGroup:
    """Samples as a dataset gives them."""

    numbers: np.ndarray
    fields: dict[str, Field]
    as_it_came: bool = False

    def lengths(self, keys: Sequence[str]) -> np.ndarray:
        """As :meth:`Group.lengths`."""
        longest = np.ones(len(self.numbers), np.int64)
        for key in keys:
            for part in _ragged(self.fields.get(key)):
                if part.lengths is not None:
                    longest = np.maximum(longest, part.lengths)
        return longest

    def batch(self, which: np.ndarray) -> dict[str, Any]:
        """As :meth:`Group.batch`."""
        return {key: _padded(field, which) for key, field in self.fields.items()}

    def values(self, key: str) -> list[Parts]:
        """As :meth:`Group.values`."""
        every = np.arange(len(self.numbers))
        return [
            Parts(part.flat, every if part.lengths is None else np.repeat(every, part.lengths), part.lengths)
            for part in _ragged(self.fields.get(key))
        ]

    def unusable(self, key: str) -> list[tuple[int, str]]:
        """As :meth:`Group.unusable`."""
        return _unusable(self.fields.get(key))


@dataclass(frozen=True)
class PaddedGroup:
    """A batch as a loader gave it, in the regular form of :func:`deeplift_fast.cohort.entries.regular`."""

    numbers: np.ndarray
    given: Mapping[str, Any]
    as_it_came: bool = True

    def lengths(self, keys: Sequence[str]) -> np.ndarray:
        """As :meth:`Group.lengths`."""
        longest = max([1, *(part.shape[1] for key in keys for part in _tensors(self.given.get(key)) if part.dim() > 1)])
        return np.full(len(self.numbers), longest, np.int64)

    def batch(self, which: np.ndarray) -> dict[str, Any]:
        """As :meth:`Group.batch`."""
        if np.array_equal(which, np.arange(len(self.numbers))):
            return dict(self.given)
        return {key: taken(value, which) for key, value in self.given.items()}

    def values(self, key: str) -> list[Parts]:
        """As :meth:`Group.values`."""
        every = np.arange(len(self.numbers))
        return [
            Parts(part.detach().cpu().numpy(), every, None)
            for part in _tensors(self.given.get(key))
            if oddity(part) is None
        ]

    def unusable(self, key: str) -> list[tuple[int, str]]:
        """As :meth:`Group.unusable`."""
        return _unusable(self.given.get(key))


@dataclass(frozen=True)
class Window:
    """The samples of a part.

    Attributes:
        part: number of the part.
        begin: number of its first sample.
        end: one more than that of its last.
        groups: the samples; each is in one of them.
        identifiers: by column of :data:`IDENTIFIERS`, a text or `None` per sample, in the dataset's order.
    """

    part: int
    begin: int
    end: int
    groups: Sequence[Group]
    identifiers: Mapping[str, Sequence[str | None]]


def window_of(samples: Sequence[Mapping[str, Any]], part: int, begin: int) -> Window:
    """The window of processed samples.

    Args:
        samples: as a PyHealth dataset gives them: by field, a tensor, a pair (time, value) of tensors, or anything.
        part: number of the part.
        begin: number of the first sample.
    """
    samples = [{key: usable(value) for key, value in sample.items()} for sample in samples]
    grouped: dict[tuple, list[int]] = {}
    for place, sample in enumerate(samples):
        grouped.setdefault(_signature(sample), []).append(place)
    groups = []
    for places in grouped.values():
        few = samples if len(grouped) == 1 else [samples[place] for place in places]
        numbers = begin + np.array(places, np.int64)
        groups.append(RaggedGroup(numbers, {key: _field([each[key] for each in few]) for key in few[0]}))
    names = [of_sample(sample) for sample in samples]
    identifiers = {column: [each[column] for each in names] for column in IDENTIFIERS}
    return Window(part, begin, begin + len(samples), groups, identifiers)


def windows_of(batches: Iterator[tuple[int, Mapping[str, Any]]], part_samples: int) -> Iterator[Window]:
    """Windows of batches as they come, cut where a part ends.

    Args:
        batches: number of samples and batch in regular form, one after the other.
        part_samples: samples per part.
    """
    begin = number = 0
    pieces: list[PaddedGroup] = []
    for size, batch in batches:
        first = 0
        while first < size:
            count = min(size - first, begin + part_samples - number)
            which = np.arange(first, first + count)
            whole = count == size
            given = batch if whole else {key: taken(value, which) for key, value in batch.items()}
            pieces.append(PaddedGroup(np.arange(number, number + count), given))
            first, number = first + count, number + count
            if number == begin + part_samples:
                yield _window_of_pieces(pieces, begin, number, part_samples)
                begin, pieces = number, []
    if pieces:
        yield _window_of_pieces(pieces, begin, number, part_samples)


def _window_of_pieces(pieces: list[PaddedGroup], begin: int, end: int, part_samples: int) -> Window:
    names = [of_batch(piece.given, len(piece.numbers)) for piece in pieces]
    identifiers = {column: [text for each in names for text in each[column]] for column in IDENTIFIERS}
    return Window(begin // part_samples, begin, end, pieces, identifiers)


def _signature(sample: Mapping[str, Any]) -> tuple:
    return tuple((key, _kind(value)) for key, value in sample.items())


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, value.dim(), value.shape[1:]
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Tensor):
        return _kind(value[0]), _kind(value[1])
    return "time" if value is None else "unusable" if isinstance(value, Unusable) else "other"


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
    return field.padded(which) if isinstance(field, Ragged) else [field[place] for place in which]


def _tensors(value: Any) -> list[Tensor]:
    return [part for part in (value if isinstance(value, tuple | list) else (value,)) if isinstance(part, Tensor)]

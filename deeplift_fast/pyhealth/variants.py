"""Variants of a batch: its samples again without some of their players, as rows of further batches."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.core.questions import Questions
from deeplift_fast.pyhealth import as_read
from deeplift_fast.pyhealth.feature_baselines import BaselineValue
from deeplift_fast.pyhealth.fused.recognise import keeps_apart
from deeplift_fast.pyhealth.generic import GenericRoute, Values
from deeplift_fast.pyhealth.players import Owners
from deeplift_fast.pyhealth.request import Absent, Batch

POSITIONS_AT_ONCE = {"cpu": 1 << 14, "cuda": 1 << 17}
"""Positions in a batch of variants, unless the given batch has more."""


@dataclass(frozen=True)
class Rows:
    """Variants of a batch's samples, as rows.

    Attributes:
        sample: the sample of each row, int64 `[rows]`.
        first: the number of the absent player, likewise. A sample without such a player stays as it is.
        second: that of the other absent player, or of the same one.
    """

    sample: Tensor
    first: Tensor
    second: Tensor

    def parts(self, size: int) -> Iterator["Rows"]:
        """The rows in parts of similar size, up to `size`."""
        count = -(-len(self.sample) // size)
        if count:
            parts = (each.tensor_split(count) for each in (self.sample, self.first, self.second))
            yield from itertools.starmap(Rows, zip(*parts, strict=True))


class Variants:
    """Makes the variants of one batch.

    Args:
        generic: the interpreter's generic route.
        batch: the batch.
        owners: its players.
        rows_at_once: the most rows of a batch of variants. `None` for as many as the batch has, or more of few
            positions, if the model is as PyHealth's class with fused layers, which keeps samples apart, and in eval
            mode. For other models it is the whole batch, each sample without one of its players: they may mix the
            samples of a batch, or draw numbers by row.
    """

    def __init__(self, generic: GenericRoute, batch: Batch, owners: Owners, rows_at_once: int | None) -> None:
        self._generic, self._batch, self._owners = generic, batch, owners
        self._device = next(iter(batch.features.values())).value.device
        self._whole = rows_at_once is None and not keeps_apart(generic.model)
        self._at_once = _rows_at_once(batch, self._device) if rows_at_once is None else rows_at_once

    def without_one(self) -> Iterator[Rows]:
        """A row for each player of each sample, in parts."""
        return self._without([(i, i) for i in range(self._owners.most)])

    def without_two(self) -> Iterator[Rows]:
        """A row for each pair of players of each sample, in parts."""
        return self._without([(i, j) for j in range(self._owners.most) for i in range(j)])

    def _without(self, absent: list[tuple[int, int]]) -> Iterator[Rows]:
        size = self._batch.size
        sample = torch.arange(size, device="cpu").repeat(len(absent))
        numbers = torch.tensor(absent, dtype=torch.int64, device="cpu").reshape(-1, 2).repeat_interleave(size, 0)
        if not self._whole:
            has_both = numbers[:, 1] < self._owners.counts[sample]
            sample, numbers = sample[has_both], numbers[has_both]
        rows = Rows(*(each.to(self._device) for each in (sample, numbers[:, 0], numbers[:, 1])))
        return rows.parts(size if self._whole else self._at_once)

    def batch(self, rows: Rows, baseline: Values, questions: Questions) -> tuple[Batch, Values]:
        """The batch of these rows, and its baseline.

        Args:
            rows: the rows.
            baseline: the baseline of the given batch, in the shapes as given.
            questions: takes questions to the numbers in the new batch.
        """
        batch, sample = self._batch, rows.sample
        features = {key: feature.at(sample) for key, feature in batch.features.items()}
        read = {key: feature.at(sample) for key, feature in batch.read.items()}
        at = {key: each.at(sample) for key, each in baseline.items()}
        absent = {}
        for key, owner in self._owners.by_feature.items():
            where = _is_absent(owner[sample], rows)
            absent[key] = self._absent(features[key], where, at[key].only(where, features[key]))
        given = {key: _taken(value, batch.size, sample) for key, value in batch.given.items()}
        return Batch(given, features, read, self._generic.point(read, given), questions, absent), at

    def _absent(self, feature: Any, where: Tensor, at_input: BaselineValue) -> Absent:
        """Absent tokens, from the shape as given to the one that the model reads."""
        key, model = feature.key, self._generic.model
        read = as_read.baselines_as_read(model, {key: feature}, {key: at_input})[key]
        return Absent(as_read.mask_as_read(model, feature, where), read)


def _rows_at_once(batch: Batch, device: torch.device) -> int:
    positions = sum(each.value[0].numel() if each.is_token else len(each.value[0]) for each in batch.features.values())
    most = POSITIONS_AT_ONCE.get(device.type, POSITIONS_AT_ONCE["cpu"])
    return max(batch.size, most // max(1, positions))


def _is_absent(owner: Tensor, rows: Rows) -> Tensor:
    """Which tokens are absent, bool, of the shape of `owner`, the player at each position of each row."""
    first, second = (each.reshape(-1, *[1] * (owner.dim() - 1)) for each in (rows.first, rows.second))
    return (owner == first) | (owner == second)


def _taken(value: Any, size: int, sample: Tensor) -> Any:
    """The same structure with one entry per row where it has one per sample, for tensors and plain lists."""
    if isinstance(value, Tensor):
        return value[sample] if value.dim() and len(value) == size else value
    if isinstance(value, Mapping):
        return {key: _taken(each, size, sample) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(_taken(each, size, sample) for each in value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        plain = len(value) == size and not any(isinstance(each, Tensor | tuple | list) for each in value)
        return [value[i] for i in sample.tolist()] if plain else [_taken(each, size, sample) for each in value]
    return value

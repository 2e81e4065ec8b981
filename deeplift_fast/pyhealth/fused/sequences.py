"""Sequences of a batch as rows of one matrix, and the place of each row in the batch.

:class:`Steps` has two implementations. :class:`RealSteps` packs the real steps, and needs the lengths as numbers.
:class:`AllSteps` has a row for every step, so its shapes follow from the batch's shape, and nothing waits for a GPU.
"""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, override

import torch
from torch import Tensor

from deeplift_fast.core.constants import ramp
from deeplift_fast.pyhealth.fused.pair import Pair


class Rows(Protocol):
    """Moves values between a batch and its rows."""

    def take(self, value: Tensor) -> Tensor:
        """`[samples, steps, …]` to `[rows, …]`."""
        ...

    def put(self, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        """`[rows, …]` to `shape`, `[samples, steps, …]`; steps without a row are 0."""
        ...

    def stacked(self, value: Tensor, baseline: Tensor) -> Tensor | None:
        """The rows of `value`, then those of `baseline`, `[2·rows, …]`; `None` where one tensor of both is slower."""
        ...


@dataclass(frozen=True)
class ChosenRows(Rows):
    """Rows at chosen steps.

    Attributes:
        sample: each row's sample, int64 `[rows]`.
        step: each row's step, int64 `[rows]`.
    """

    sample: Tensor
    step: Tensor

    @override
    def take(self, value: Tensor) -> Tensor:
        # Much faster than an index of two tensors.
        return value.flatten(0, 1).index_select(0, torch.add(self.step, self.sample, alpha=value.shape[1]))

    @override
    def put(self, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        found = rows.new_zeros(shape)
        found[self.sample, self.step] = rows
        return found

    @override
    def stacked(self, value: Tensor, baseline: Tensor) -> Tensor | None:
        return None


@dataclass(frozen=True)
class AllRows(Rows):
    """Rows at every step, real or padding.

    Attributes:
        by_step: whether rows are in the order of steps, then of samples; else of samples, then of steps.
    """

    by_step: bool

    def _lined_up(self, value: Tensor) -> Tensor:
        return value.transpose(0, 1) if self.by_step else value

    @override
    def take(self, value: Tensor) -> Tensor:
        return self._lined_up(value).flatten(0, 1)

    @override
    def put(self, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        first = (shape[1], shape[0]) if self.by_step else shape[:2]
        return self._lined_up(rows.unflatten(0, first)).reshape(shape)

    @override
    def stacked(self, value: Tensor, baseline: Tensor) -> Tensor | None:
        lined_up = [self._lined_up(each) for each in (value, baseline)]
        rows = 2 * math.prod(value.shape[:2])
        return torch.cat(lined_up).reshape(rows, *value.shape[2:])


_TRIES = 8  # most sequences that are compared with all others
_ALONE = 2  # the search ends after so many sequences in a row that equal no other


class Steps(ABC):
    """Steps of a batch as rows, in the order of steps, then of places. A place is a sample's number in that order.

    Attributes:
        lengths: the length at each place, int64 `[samples]`.
        counts: the number of samples at each step, int64 `[steps]`, on the CPU.
        step: the step of each row, int64 `[rows]`.
        place: the place of each row, int64 `[rows]`.
        at: the rows' positions in the batch.
    """

    lengths: Tensor
    counts: Tensor
    step: Tensor
    place: Tensor
    at: Rows

    @abstractmethod
    def rows(self, place: Tensor, step: Tensor) -> Tensor:
        """The rows at these places and steps."""

    @abstractmethod
    def before(self, ends: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The `size` steps before the step `ends` of each place.

        Returns:
            Their rows, int64 `[samples, size]`, and whether there is such a step, bool of that shape. Where there is
            none, the row is any row of the batch or a negative number.
        """

    def sorted(self, samples: Tensor) -> Tensor:
        """`[samples, …]` in the batch's order, to the order of places."""
        return samples

    def unsorted(self, pair: Pair) -> Pair:
        """`[samples, …]` in the order of places, to the batch's order."""
        return pair

    def last(self) -> Tensor:
        """The row of the last step at each place."""
        return self.rows(ramp(len(self.lengths), 1, self.lengths.device), self.lengths - 1)

    def reversed(self) -> Tensor:
        """The rows with each sample's steps from last to first; steps past its end stay."""
        turned = self.lengths[self.place] - 1 - self.step
        return self.rows(self.place, torch.where(turned >= 0, turned, self.step))

    def shared(self, rows0: Tensor, share: bool) -> "Shared":
        """The baseline's sequences from its rows, `[rows, …]`; with `share`, equal ones may be kept once."""
        return Shared(rows0, self.counts, ramp(len(self.lengths), 1, rows0.device))


@dataclass(frozen=True)
class Shared:
    """The sequences of the baseline.

    Attributes:
        rows: their rows, `[rows0, …]`.
        counts: the number of them at each step, int64 `[steps]`, on the CPU.
        where: the baseline's sequence for each place of the input, int64 `[samples]`.
        facing: the baseline's row for each row of the input, int64 `[rows]`; `None` where the two are the same.
    """

    rows: Tensor
    counts: Tensor
    where: Tensor
    facing: Tensor | None = None


@dataclass(frozen=True)
class RealSteps(Steps):
    """The real steps, packed; places are samples by falling length.

    Attributes:
        lengths: see :class:`Steps`.
        counts: likewise.
        order: the batch's sample at each place, int64 `[samples]`.
    """

    lengths: Tensor
    counts: Tensor
    order: Tensor

    @staticmethod
    def of(lengths: Tensor) -> "RealSteps":
        """From each sample's length, 1 or more, int64 `[samples]`."""
        if len(lengths) == 1:
            count = torch.ones(int(lengths), dtype=torch.int64, device=lengths.device)
            return RealSteps(lengths, count, ramp(1, 1, lengths.device))
        lengths, order = torch.sort(lengths, descending=True, stable=True)
        return RealSteps._sorted(order, lengths)

    @staticmethod
    def _sorted(order: Tensor, lengths: Tensor) -> "RealSteps":
        steps = torch.arange(int(lengths[0]), device=lengths.device)
        return RealSteps(lengths, torch.searchsorted(-lengths, -steps), order)

    @functools.cached_property
    def offsets(self) -> Tensor:
        """The first row of each step, int64 `[steps]`."""
        return self.counts.cumsum(0) - self.counts

    @functools.cached_property
    @override
    def step(self) -> Tensor:  # type: ignore[override]
        steps = ramp(len(self.counts), 1, self.lengths.device)
        return steps if len(self.order) == 1 else torch.repeat_interleave(steps, self.counts)

    @functools.cached_property
    @override
    def place(self) -> Tensor:  # type: ignore[override]
        if len(self.order) == 1:
            return torch.zeros_like(self.step)
        return ramp(len(self.step), 1, self.lengths.device) - self.offsets[self.step]

    @functools.cached_property
    @override
    def at(self) -> Rows:  # type: ignore[override]
        return ChosenRows(self.sample, self.step)

    @property
    def sample(self) -> Tensor:
        """The batch's sample of each row, int64 `[rows]`."""
        return self.order[self.place]

    @override
    def sorted(self, samples: Tensor) -> Tensor:
        return samples.index_select(0, self.order)

    @override
    def unsorted(self, pair: Pair) -> Pair:
        if len(self.order) == 1:
            return pair.apart()
        inverse = torch.argsort(self.order)
        return pair.apart().map(lambda x: x.index_select(0, inverse))

    @override
    def rows(self, place: Tensor, step: Tensor) -> Tensor:
        return self.offsets[step] + place

    @override
    def before(self, ends: Tensor, size: int) -> tuple[Tensor, Tensor]:
        step = ends[:, None] + ramp(size, 1, ends.device, first=-size)
        place = ramp(len(ends), 1, ends.device)[:, None].expand_as(step)
        return self.rows(place, step.clamp(min=0)), step >= 0

    @override
    def shared(self, rows0: Tensor, share: bool) -> Shared:
        if not share or len(self.order) == 1:
            return super().shared(rows0, share)
        steps0, kept, where = self.distinct(rows0)
        facing = steps0.rows(where[self.place], self.step)
        return Shared(rows0.index_select(0, kept), steps0.counts, where, facing)

    def distinct(self, rows: Tensor) -> tuple["RealSteps", Tensor, Tensor]:
        """The distinct sequences among `rows`, `[rows, …]`; one that begins another sequence is part of it.

        Returns:
            Their steps, their rows, and the sequence of each place.
        """
        count = len(self.order)
        leader, alone = torch.full((count,), -1, device=rows.device), 0
        for _ in range(_TRIES):
            if alone == _ALONE or not bool((leader < 0).any()):
                break
            first = int((leader < 0).int().argmax())
            same = self._begins(rows, first) & (leader < 0)
            leader[same] = first
            alone = alone + 1 if int(same.sum()) == 1 else 0
        leader = torch.where(leader < 0, torch.arange(count, device=rows.device), leader)
        kept, where = leader.unique(return_inverse=True)
        if len(kept) == count:
            return self, torch.arange(len(rows), device=rows.device), where
        chosen = torch.zeros(count, dtype=torch.bool, device=rows.device)
        chosen[kept] = True
        return RealSteps._sorted(self.order[kept], self.lengths[kept]), chosen[self.place].nonzero().squeeze(1), where

    def _begins(self, rows: Tensor, first: int) -> Tensor:
        """Whether each place's sequence is the beginning of the sequence at place `first`."""
        within = self.step < self.lengths[first]
        facing = torch.where(within, self.offsets[self.step] + first, 0)
        differs = (rows != rows.index_select(0, facing)).flatten(1).any(1) | ~within
        return torch.bincount(self.place[differs], minlength=len(self.lengths)) == 0


@dataclass(frozen=True)
class AllSteps(Steps):
    """Every step, real or padding; places are the batch's samples.

    States past the end of a sample reach no result, because only its last real steps are read.

    Attributes:
        lengths: see :class:`Steps`.
        counts: likewise.
    """

    lengths: Tensor
    counts: Tensor

    @staticmethod
    def of(lengths: Tensor, steps: int) -> "AllSteps":
        """From each sample's length, int64 `[samples]`, and the number of steps in the batch."""
        return AllSteps(lengths, _everybody(len(lengths), steps))

    @functools.cached_property
    @override
    def step(self) -> Tensor:  # type: ignore[override]
        steps = ramp(len(self.counts), 1, self.lengths.device)
        return steps[:, None].expand(-1, len(self.lengths)).reshape(-1)

    @functools.cached_property
    @override
    def place(self) -> Tensor:  # type: ignore[override]
        return ramp(len(self.lengths), 1, self.lengths.device).repeat(len(self.counts))

    @property
    @override
    def at(self) -> Rows:  # type: ignore[override]
        return AllRows(by_step=True)

    @override
    def rows(self, place: Tensor, step: Tensor) -> Tensor:
        return torch.add(place, step, alpha=len(self.lengths))

    @override
    def before(self, ends: Tensor, size: int) -> tuple[Tensor, Tensor]:
        # A row is `step · count + place`: a step below 0 gives a row below 0.
        count = len(ends)
        before = ramp(size * count, 1, ends.device, first=-size * count).view(size, count).T
        rows = torch.add(before, ends[:, None], alpha=count, out=ends.new_empty(count, size))
        return rows, rows >= 0


def steps_of(lengths: Tensor, longest: int, static: bool) -> Steps:
    """All `longest` steps of a batch if `static`, else the real ones; `lengths` are 1 or more, int64 `[samples]`."""
    return AllSteps.of(lengths, longest) if static else RealSteps.of(lengths)


def _everybody(samples: int, steps: int) -> Tensor:
    return torch.full((steps,), samples, device="cpu")

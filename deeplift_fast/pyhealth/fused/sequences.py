"""Sequences of a batch as rows, and where these rows stand in the batch."""

import functools
import math
from dataclasses import dataclass
from typing import Protocol, override

import torch
from torch import Tensor

from deeplift_fast.pyhealth.fused.buffers import ramp
from deeplift_fast.pyhealth.fused.pair import Pair


class Rows(Protocol):
    """Steps of a batch as rows."""

    def take(self, value: Tensor) -> Tensor:
        """`[samples, steps, …]` to `[rows, …]`."""
        ...

    def put(self, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        """`[rows, …]` to `shape`, `[samples, steps, …]`; 0 where no row is."""
        ...

    def stacked(self, value: Tensor, baseline: Tensor) -> Tensor | None:
        """The rows of both, one after the other, `[2·rows, …]`; `None` where that costs more than it saves."""
        ...


@dataclass(frozen=True)
class Chosen(Rows):
    """Some steps.

    Attributes:
        sample: each row's sample, int64 `[rows]`.
        step: each row's step, int64 `[rows]`.
    """

    sample: Tensor
    step: Tensor

    @override
    def take(self, value: Tensor) -> Tensor:
        # A fraction of the time that indexing by two tensors takes.
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
class Every(Rows):
    """Every step, real or not: which rows there are depends on the batch's shape alone.

    Attributes:
        by_step: whether rows go by step, then by sample; else by sample, then by step.
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


_TRIES = 8  # sequences that are tried as the baseline of others
_ALONE = 2  # of them in a row that are nobody else's, after which no more are tried


@dataclass(frozen=True)
class Ragged:
    """The real steps of a batch, or all of them.

    Attributes:
        lengths: of the samples in their order here, int64 `[samples]`.
        counts: samples at each step, int64 `[steps]`, on the CPU.
        order: the batch's samples by falling length, int64 `[samples]`; `None` for all steps: as they come.
    """

    lengths: Tensor
    counts: Tensor
    order: Tensor | None

    @staticmethod
    def of(lengths: Tensor) -> "Ragged":
        """From each sample's length, 1 or more, int64 `[samples]`."""
        lengths, order = torch.sort(lengths, descending=True, stable=True)
        return Ragged._sorted(order, lengths)

    @staticmethod
    def _sorted(order: Tensor, lengths: Tensor) -> "Ragged":
        steps = torch.arange(int(lengths[0]), device=lengths.device)
        return Ragged(lengths, torch.searchsorted(-lengths, -steps), order)

    @staticmethod
    def every(lengths: Tensor, steps: int) -> "Ragged":
        """All of a batch's `steps`, those past the end of a sample too: no row depends on the lengths.

        States past a sample's end reach nothing, as only its last steps are read.
        """
        return Ragged(lengths, _everybody(len(lengths), steps), None)

    @functools.cached_property
    def offsets(self) -> Tensor:
        """Each step's first row, int64 `[steps]`."""
        if self.static:
            return ramp(len(self.counts), len(self.lengths), self.lengths.device)
        return self.counts.cumsum(0) - self.counts

    @functools.cached_property
    def step(self) -> Tensor:
        """Each row's step, int64 `[rows]`."""
        steps = ramp(len(self.counts), 1, self.lengths.device)
        if self.static:
            return steps[:, None].expand(-1, len(self.lengths)).reshape(-1)
        return torch.repeat_interleave(steps, self.counts)

    @functools.cached_property
    def place(self) -> Tensor:
        """Each row's sample, as a place in the order here, int64 `[rows]`."""
        if self.static:
            return ramp(len(self.lengths), 1, self.lengths.device).repeat(len(self.counts))
        return ramp(len(self.step), 1, self.lengths.device) - self.offsets[self.step]

    @property
    def static(self) -> bool:
        """Whether all steps are rows."""
        return self.order is None

    @functools.cached_property
    def at(self) -> Rows:
        """Where the rows stand in a batch."""
        return Every(by_step=True) if self.order is None else Chosen(self.order[self.place], self.step)

    @property
    def sample(self) -> Tensor:
        """Each row's sample in the batch, int64 `[rows]`."""
        return self.place if self.order is None else self.order[self.place]

    def sorted(self, samples: Tensor) -> Tensor:
        """`[samples, …]` of the batch in the order here."""
        return samples if self.order is None else samples.index_select(0, self.order)

    def unsorted(self, pair: Pair) -> Pair:
        """`[samples, …]` in the order here, in the batch's."""
        if self.order is None:
            return pair
        inverse = torch.argsort(self.order)
        return pair.apart().map(lambda x: x.index_select(0, inverse))

    def rows(self, place: Tensor, step: Tensor) -> Tensor:
        """The rows of these samples (as places in the order here) at these steps."""
        if self.order is None:
            return torch.add(place, step, alpha=len(self.lengths))
        return self.offsets[step] + place

    def last(self) -> Tensor:
        """The row of each sample's last step, in the order here."""
        return self.rows(ramp(len(self.lengths), 1, self.lengths.device), self.lengths - 1)

    def reversed(self) -> Tensor:
        """The rows with each sample's steps from the last to the first; steps past its end stay."""
        turned = self.lengths[self.place] - 1 - self.step
        return self.rows(self.place, torch.where(turned >= 0, turned, self.step) if self.static else turned)

    def distinct(self, rows: Tensor) -> tuple["Ragged", Tensor, Tensor]:
        """The sequences among `rows`, `[rows, …]`, that are no beginning of another one.

        Returns:
            Their steps, their rows, and for each place in `order` its sequence among them.
        """
        assert self.order is not None
        count = len(self.order)
        leader, alone = torch.full((count,), -1, device=rows.device), 0
        for _ in range(_TRIES):
            if alone == _ALONE or not bool((leader < 0).any()):
                break
            first = int((leader < 0).int().argmax())
            same = self._begins(rows, first) & (leader < 0)
            leader[same] = first
            alone = alone + 1 if int(same.sum()) == 1 else 0
        open_ = leader < 0
        leader[open_] = torch.arange(count, device=rows.device)[open_]
        kept, where = leader.unique(return_inverse=True)
        if len(kept) == count:
            return self, torch.arange(len(rows), device=rows.device), where
        chosen = torch.zeros(count, dtype=torch.bool, device=rows.device)
        chosen[kept] = True
        return Ragged._sorted(self.order[kept], self.lengths[kept]), chosen[self.place].nonzero().squeeze(1), where

    def _begins(self, rows: Tensor, first: int) -> Tensor:
        """Which samples' sequences are a beginning of that of the sample at the place `first`."""
        within = self.step < self.lengths[first]
        facing = torch.where(within, self.offsets[self.step] + first, 0)
        differs = (rows != rows.index_select(0, facing)).flatten(1).any(1) | ~within
        return torch.bincount(self.place[differs], minlength=len(self.lengths)) == 0


def _everybody(samples: int, steps: int) -> Tensor:
    return torch.full((steps,), samples, device="cpu")

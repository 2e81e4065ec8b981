"""Sequences of different lengths as rows: by step, then by sample, samples by falling length."""

from dataclasses import dataclass

import torch
from torch import Tensor

_TRIES = 8  # sequences that are tried as the baseline of others


@dataclass(frozen=True)
class Ragged:
    """The real steps of a batch.

    Attributes:
        order: the batch's samples by falling length, int64 `[samples]`.
        lengths: theirs, int64 `[samples]`.
        counts: samples at each step, int64 `[steps]`.
        offsets: each step's first row, int64 `[steps]`.
        step: each row's step, int64 `[rows]`.
        place: each row's sample, as a place in `order`, int64 `[rows]`.
    """

    order: Tensor
    lengths: Tensor
    counts: Tensor
    offsets: Tensor
    step: Tensor
    place: Tensor

    @staticmethod
    def of(lengths: Tensor) -> "Ragged":
        """From each sample's length, 1 or more, int64 `[samples]`."""
        lengths, order = torch.sort(lengths, descending=True, stable=True)
        return Ragged._sorted(order, lengths)

    @staticmethod
    def _sorted(order: Tensor, lengths: Tensor) -> "Ragged":
        steps = torch.arange(int(lengths[0]))
        counts = torch.searchsorted(-lengths, -steps)
        offsets = counts.cumsum(0) - counts
        step = torch.repeat_interleave(steps, counts)
        return Ragged(order, lengths, counts, offsets, step, torch.arange(len(step)) - offsets[step])

    @property
    def sample(self) -> Tensor:
        """Each row's sample in the batch, int64 `[rows]`."""
        return self.order[self.place]

    def rows(self, place: Tensor, step: Tensor) -> Tensor:
        """The rows of these samples (as places in `order`) at these steps."""
        return self.offsets[step] + place

    def last(self) -> Tensor:
        """The row of each sample's last step, in the order of `order`."""
        return self.rows(torch.arange(len(self.order)), self.lengths - 1)

    def reversed(self) -> Tensor:
        """The rows with each sample's steps from the last to the first."""
        return self.rows(self.place, self.lengths[self.place] - 1 - self.step)

    def distinct(self, rows: Tensor) -> tuple["Ragged", Tensor, Tensor]:
        """The sequences among `rows`, `[rows, …]`, that are no beginning of another one.

        Returns:
            Their steps, their rows, and for each place in `order` its sequence among them.
        """
        count = len(self.order)
        leader = torch.full((count,), -1)
        for _ in range(_TRIES):
            if not bool((leader < 0).any()):
                break
            first = int((leader < 0).int().argmax())
            same = self._begins(rows, first) & (leader < 0)
            leader[same] = first
        open_ = leader < 0
        leader[open_] = torch.arange(count)[open_]
        kept, where = leader.unique(return_inverse=True)
        if len(kept) == count:
            return self, torch.arange(len(rows)), where
        chosen = torch.zeros(count, dtype=torch.bool)
        chosen[kept] = True
        return Ragged._sorted(self.order[kept], self.lengths[kept]), chosen[self.place].nonzero().squeeze(1), where

    def _begins(self, rows: Tensor, first: int) -> Tensor:
        """Which samples' sequences are a beginning of that of the sample at the place `first`."""
        within = self.step < self.lengths[first]
        facing = torch.where(within, self.offsets[self.step] + first, 0)
        differs = (rows != rows[facing]).flatten(1).any(1) | ~within
        return torch.bincount(self.place[differs], minlength=len(self.order)) == 0

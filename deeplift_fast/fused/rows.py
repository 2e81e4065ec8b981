"""Which steps of a batch are rows, one after the other: chosen ones, or all of them."""

import math
from dataclasses import dataclass
from typing import Protocol, override

import torch
from torch import Tensor


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

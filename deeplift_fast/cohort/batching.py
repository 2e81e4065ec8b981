"""Batches by length: samples sorted by their longest sequence, cut by padded steps rather than by a count."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplift_fast.cohort.windows import Group


@dataclass(frozen=True)
class Batch:
    """Samples that are attributed in one call.

    Attributes:
        group: what they belong to.
        which: their places in the group, int64 `[samples]`.
    """

    group: Group
    which: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the samples in the dataset, int64 `[samples]`."""
        return self.group.numbers[self.which]

    def given(self) -> dict[str, Any]:
        """The samples as PyHealth's loader would give them."""
        return self.group.batch(self.which)

    def halves(self) -> tuple["Batch", "Batch"]:
        """The batch in two; it must hold two samples or more."""
        middle = len(self.which) // 2
        return Batch(self.group, self.which[:middle]), Batch(self.group, self.which[middle:])


def cut(group: Group, which: np.ndarray, keys: Sequence[str], budget: int, as_it_came: bool) -> list[Batch]:
    """Samples of a group as batches; the same ones whenever it is asked the same.

    Args:
        group: the group.
        which: places in it, int64 `[samples]`.
        keys: the features whose sequences are padded.
        budget: padded steps (samples times the longest sequence among them) that a batch may have; a sample that is
            longer is a batch of its own.
        as_it_came: whether a loader's batch stays as it came, whatever the budget.

    Returns:
        Batches of ascending length; samples of one length stay in the dataset's order.
    """
    if not len(which):
        return []
    if as_it_came and group.as_it_came:
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

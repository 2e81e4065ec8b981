"""Where attribution starts in a feature: token embeddings, summed where a step holds several, or raw values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, override

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplift_fast import ops
from deeplift_fast.fused.constants import ramp
from deeplift_fast.fused.pair import Pair
from deeplift_fast.fused.rows import Rows

Contributions = Callable[[Tensor], Tensor]


class Entry(Protocol):
    """A feature's steps as rows of numbers.

    Attributes:
        layer: the linear layer that embeds the rows, or `None` where they are embeddings already.
        baseline: the feature's value at the baseline, `[batch, steps, …]`.
    """

    @property
    def layer(self) -> nn.Linear | None:
        """See above."""
        ...

    @property
    def baseline(self) -> Tensor:
        """See above."""
        ...

    def enter(self, rows: Rows, rows0: Rows | None = None) -> tuple[Pair, Contributions]:
        """The numbers of these steps, `[rows, width]`, in both streams.

        Args:
            rows: the steps at the input.
            rows0: the steps at the baseline, where they are others.

        Returns:
            The pair, and from the multipliers of `rows` to contributions in the value's shape; 0 elsewhere.
        """
        ...


@dataclass(frozen=True)
class Tokens(Entry):
    """Tokens, `[batch, steps]` or `[batch, steps, slots]`; a step's numbers are the sum of its tokens' embeddings.

    Attributes:
        value: at the input, int64.
        baseline: at the baseline, of the same shape.
        table: the embedding table, `[vocabulary, dim]`.
    """

    value: Tensor
    baseline: Tensor
    table: Tensor
    layer: None = field(default=None, init=False)

    @override
    def enter(self, rows: Rows, rows0: Rows | None = None) -> tuple[Pair, Contributions]:
        slots = [_slots(tokens) for tokens in (self.value, self.baseline)]
        both = rows.stacked(*slots)
        if both is None:
            tokens = rows.take(slots[0])
            pair = Pair(*(pooled(self.table, each) for each in (tokens, (rows0 or rows).take(slots[1]))))
        else:
            both.clamp_(0, len(self.table) - 1)  # nobody has checked them yet, and a GPU must not read past the table
            pair = Pair.stacked(pooled(self.table, both))

        def back(m: Tensor) -> Tensor:
            of_rows, of_rows0 = (tokens, rows.take(slots[1])) if both is None else both.chunk(2)
            found = ops.token_contributions(self.table, of_rows, of_rows0, m.contiguous())
            return rows.put(found, slots[0].shape).reshape(self.value.shape)

        return pair, back


@dataclass(frozen=True)
class Values(Entry):
    """Continuous values, `[batch, steps, size]`.

    Attributes:
        value: at the input.
        baseline: at the baseline, of the same shape.
        layer: embeds them.
    """

    value: Tensor
    baseline: Tensor
    layer: nn.Linear

    @override
    def enter(self, rows: Rows, rows0: Rows | None = None) -> tuple[Pair, Contributions]:
        both = rows.stacked(self.value, self.baseline)
        if both is not None:
            pair = Pair.stacked(both)
            return pair, lambda m: rows.put(m * (pair.x - pair.x0), self.value.shape)
        x = rows.take(self.value)

        def back(m: Tensor) -> Tensor:
            return rows.put(m * (x - rows.take(self.baseline)), self.value.shape)

        return Pair(x, (rows0 or rows).take(self.baseline)), back


def pooled(table: Tensor, tokens: Tensor) -> Tensor:
    """The sum of the embeddings of each row of tokens, `[rows, slots]`."""
    rows, slots = tokens.shape
    if slots == 1:
        return F.embedding(tokens[:, 0], table)
    return F.embedding_bag(tokens.flatten(), table, ramp(rows, slots, tokens.device), mode="sum")


def between(pair: Pair, begin: float, end: float) -> Pair:
    """Two points of the straight line from baseline (0) to input (1): `end` takes the input's place."""
    if (begin, end) == (0, 1):
        return pair
    x0 = pair.facing()
    ends = torch.lerp(x0, pair.x, end), torch.lerp(x0, pair.x, begin)
    return Pair(*ends) if pair.both is None else Pair.stacked(torch.cat(ends))


def _slots(tokens: Tensor) -> Tensor:
    return tokens if tokens.dim() == 3 else tokens.unsqueeze(-1)

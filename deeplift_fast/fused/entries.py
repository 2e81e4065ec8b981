"""Where attribution starts in a feature: token embeddings, summed where a step holds several, or raw values."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplift_fast import ops
from deeplift_fast.fused.pair import Pair


class Entry(Protocol):
    """A feature's steps as rows of numbers.

    Attributes:
        layer: the linear layer that embeds the rows, or `None` where they are embeddings already.
        value: the feature's value at the input, `[batch, steps, …]`.
        baseline: at the baseline.
    """

    @property
    def layer(self) -> nn.Linear | None:
        """See above."""
        ...

    @property
    def value(self) -> Tensor:
        """See above."""
        ...

    @property
    def baseline(self) -> Tensor:
        """See above."""
        ...

    def at_input(self, sample: Tensor, step: Tensor) -> Tensor:
        """The numbers of these steps at the input, `[rows, width]`."""
        ...

    def at_baseline(self, sample: Tensor, step: Tensor) -> Tensor:
        """Those at the baseline."""
        ...

    def contributions(self, sample: Tensor, step: Tensor, m: Tensor) -> Tensor:
        """Contributions in the value's shape, from the multipliers `[rows, width]` of these steps; 0 elsewhere."""
        ...


@dataclass(frozen=True)
class Tokens:
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

    def at_input(self, sample: Tensor, step: Tensor) -> Tensor:
        """See :class:`Entry`."""
        return pooled(self.table, _slots(self.value)[sample, step])

    def at_baseline(self, sample: Tensor, step: Tensor) -> Tensor:
        """See :class:`Entry`."""
        return pooled(self.table, _slots(self.baseline)[sample, step])

    def contributions(self, sample: Tensor, step: Tensor, m: Tensor) -> Tensor:
        """See :class:`Entry`."""
        tokens, baseline = (_slots(t)[sample, step] for t in (self.value, self.baseline))
        found = m.new_zeros(_slots(self.value).shape)
        found[sample, step] = ops.token_contributions(self.table, tokens, baseline, m.contiguous())
        return found.reshape(self.value.shape)


@dataclass(frozen=True)
class Values:
    """Continuous values, `[batch, steps, size]`.

    Attributes:
        value: at the input.
        baseline: at the baseline, of the same shape.
        layer: embeds them.
    """

    value: Tensor
    baseline: Tensor
    layer: nn.Linear

    def at_input(self, sample: Tensor, step: Tensor) -> Tensor:
        """See :class:`Entry`."""
        return self.value[sample, step]

    def at_baseline(self, sample: Tensor, step: Tensor) -> Tensor:
        """See :class:`Entry`."""
        return self.baseline[sample, step]

    def contributions(self, sample: Tensor, step: Tensor, m: Tensor) -> Tensor:
        """See :class:`Entry`."""
        found = torch.zeros_like(self.value)
        found[sample, step] = m * (self.value[sample, step] - self.baseline[sample, step])
        return found


def pooled(table: Tensor, tokens: Tensor) -> Tensor:
    """The sum of the embeddings of each row of tokens, `[rows, slots]`."""
    if tokens.shape[1] == 1:
        return F.embedding(tokens[:, 0], table)
    return F.embedding_bag(tokens, table, mode="sum")


def between(pair: Pair, begin: float, end: float) -> Pair:
    """Two points of the straight line from baseline (0) to input (1): `end` takes the input's place."""
    if (begin, end) == (0, 1):
        return pair
    x0 = pair.facing()
    return Pair(torch.lerp(x0, pair.x, end), torch.lerp(x0, pair.x, begin))


def _slots(tokens: Tensor) -> Tensor:
    return tokens if tokens.dim() == 3 else tokens.unsqueeze(-1)

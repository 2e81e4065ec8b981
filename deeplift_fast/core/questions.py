"""Questions to the numbers in a batch: answered at once on a CPU, together in one read-back on a GPU.

A read-back waits for the GPU. So checks of the batch, warnings and the report's figures are put off to one of them,
which comes before any result is given out.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, override

import torch
from torch import Tensor

Then = Callable[[list[float]], None]


class Questions(Protocol):
    """Takes questions to tensors, and what is to be done with the answers.

    Attributes:
        static: whether answers come later, so that shapes and paths may depend on the batch's shapes alone.
    """

    static: bool

    def ask(self, numbers: Sequence[Tensor], then: Then) -> None:
        """Have `then` called with the values of `numbers`, one after the other; it raises where they are wrong."""
        ...

    def fetch(self) -> None:
        """Answer what is open, in the order in which it was asked."""
        ...

    def within(self, tokens: Tensor, size: int) -> Tensor:
        """Contiguous int64 tokens that a table of `size` rows can be indexed by."""
        ...


class Now(Questions):
    """Answers at once."""

    static = False

    @override
    def ask(self, numbers: Sequence[Tensor], then: Then) -> None:
        then([float(value) for each in numbers for value in each.reshape(-1).tolist()])

    @override
    def fetch(self) -> None:
        pass

    @override
    def within(self, tokens: Tensor, size: int) -> Tensor:
        return tokens.long().contiguous()  # they were checked


class Later(Questions):
    """Collects questions until the next :meth:`fetch`.

    Attributes:
        open: numbers on one device, and what takes their values.
    """

    static = True

    def __init__(self) -> None:
        self.open: list[tuple[tuple[Tensor, ...], Then]] = []

    @override
    def ask(self, numbers: Sequence[Tensor], then: Then) -> None:
        self.open.append((tuple(numbers), then))

    @override
    def fetch(self) -> None:
        asked, self.open = self.open, []
        if not asked:
            return
        values = iter(on_host([number for numbers, _ in asked for number in numbers]))
        for numbers, then in asked:
            then([float(value) for _ in numbers for value in next(values).tolist()])

    @override
    def within(self, tokens: Tensor, size: int) -> Tensor:
        return tokens.long().contiguous().clamp(0, size - 1)  # tokens outside are found at the next read-back


NOW = Now()


def on_host(numbers: Sequence[Tensor]) -> list[Tensor]:
    """The same on the CPU, `[n]` each: read back as bytes, which are put together by one launch whatever they mean."""
    flat = [each.detach().reshape(-1) for each in numbers]
    read = torch.cat([each.view(torch.uint8) for each in flat]).cpu().split([each.nbytes for each in flat])
    return [part.clone().view(each.dtype) for part, each in zip(read, flat, strict=True)]

"""Questions about the numbers in a batch: answered at once on a CPU, together in one read-back on a GPU.

A read-back waits for the GPU. One read-back before the result serves the checks of the batch, the warnings and the
report.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, override

import torch
from torch import Tensor

Then = Callable[[list[float]], None]


class Questions(Protocol):
    """Collects questions about tensors, and functions that take the answers.

    Attributes:
        static: whether answers come later. Shapes and paths then depend on the batch's shapes alone.
    """

    static: bool

    def ask(self, numbers: Sequence[Tensor], then: Then) -> None:
        """Call `then` with the values of all `numbers` in one list, now or at :meth:`fetch`; it may raise."""
        ...

    def fetch(self) -> None:
        """Answer the open questions, in their order."""
        ...

    def within(self, tokens: Tensor, size: int) -> Tensor:
        """The tokens as contiguous int64 indices into `size` embeddings."""
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
        return tokens.long().contiguous()  # the checks of the batch were answered before


class Later(Questions):
    """Collects questions until the next :meth:`fetch`.

    Attributes:
        open: numbers on one device, and the functions that take their values.
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
        return tokens.long().contiguous().clamp(0, size - 1)  # the next read-back reports tokens outside


NOW = Now()


def on_host(numbers: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to the CPU in one transfer, `[n]` each; joined as bytes, they may differ in dtype."""
    flat = [each.detach().reshape(-1) for each in numbers]
    read = torch.cat([each.view(torch.uint8) for each in flat]).cpu().split([each.nbytes for each in flat])
    return [part.clone().view(each.dtype) for part, each in zip(read, flat, strict=True)]

"""What Python must know of a call's tensors on a GPU: asked for as it goes, and read back together, once.

A read-back waits for the GPU. So checks of the batch, warnings and the report's figures are put off to one of them,
which comes before any result is given out.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Then = Callable[[list[float]], None]


class ReadBack:
    """Questions to a device's tensors, and what is done with the answers.

    Attributes:
        questions: those that are open: numbers on one device, and what takes their values. It raises
            for a batch that is unfit.
    """

    def __init__(self) -> None:
        self.questions: list[tuple[tuple[Tensor, ...], Then]] = []

    def ask(self, numbers: Sequence[Tensor], then: Then) -> None:
        """Have `then` called with the values of `numbers`, one after the other, at the next :meth:`fetch`."""
        self.questions.append((tuple(numbers), then))

    def fetch(self) -> None:
        """Read all back in one copy, and act on each in the order in which they were asked for."""
        asked, self.questions = self.questions, []
        if not asked:
            return
        values = iter(on_host([number for numbers, _ in asked for number in numbers]))
        for numbers, then in asked:
            then([float(value) for _ in numbers for value in next(values).tolist()])


def on_host(numbers: Sequence[Tensor]) -> list[Tensor]:
    """The same on the CPU, `[n]` each: read back as bytes, which are put together by one launch whatever they mean."""
    flat = [each.detach().reshape(-1) for each in numbers]
    read = torch.cat([each.view(torch.uint8) for each in flat]).cpu().split([each.nbytes for each in flat])
    return [part.clone().view(each.dtype) for part, each in zip(read, flat, strict=True)]

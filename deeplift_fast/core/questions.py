"""Questions about the numbers in a batch: answered at once on a CPU, together in one read-back on a GPU.

A read-back waits for the GPU. One before the result serves the checks of the batch, the watch over the weights, the
warnings and the report.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, override

import torch
from torch import Tensor

Then = Callable[[list[float]], None]
Taken = Callable[[list[Tensor]], None]


class Questions(Protocol):
    """Collects questions about tensors, and functions that take the answers.

    Attributes:
        static: whether answers come later. Shapes and paths then depend on the batch's shapes alone.
    """

    static: bool

    def ask(self, numbers: Sequence[Tensor], then: Then) -> None:
        """Call `then` with the values of all `numbers` in one list, now or at :meth:`fetch`; it may raise."""
        ...

    def bring(self, tensors: Sequence[Tensor], then: Taken) -> None:
        """Call `then` with the tensors, now, or with copies on the CPU at :meth:`fetch`; it may raise."""
        ...

    def total(self, values: Tensor, then: Callable[[float], None]) -> None:
        """Call `then` with a number that is finite only if all `values` are, now or at :meth:`fetch`; it may raise.

        A number that is not finite settles nothing: sums overflow, and later answers are one sum over several tensors.
        """
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
        then([float(value) for each in numbers for value in each.flatten().tolist()])

    @override
    def bring(self, tensors: Sequence[Tensor], then: Taken) -> None:
        then(list(tensors))

    @override
    def total(self, values: Tensor, then: Callable[[float], None]) -> None:
        then(float(values.sum()))

    @override
    def fetch(self) -> None:
        pass

    @override
    def within(self, tokens: Tensor, size: int) -> Tensor:
        return tokens.long().contiguous()  # the checks of the batch were answered before


@dataclass(frozen=True)
class Open:
    """An open question.

    Attributes:
        tensors: the tensors, on one device.
        then: takes copies of them on the CPU.
        summed: whether only the sum of the tensors matters, which all such questions share.
    """

    tensors: tuple[Tensor, ...]
    then: Taken
    summed: bool = False


class Later(Questions):
    """Collects questions until the next :meth:`fetch`.

    Attributes:
        open: the open questions.
    """

    static = True

    def __init__(self) -> None:
        self.open: list[Open] = []

    @override
    def ask(self, numbers: Sequence[Tensor], then: Then) -> None:
        self.bring(numbers, lambda found: then([float(value) for each in found for value in each.tolist()]))

    @override
    def bring(self, tensors: Sequence[Tensor], then: Taken) -> None:
        self.open.append(Open(tuple(tensors), then))

    @override
    def total(self, values: Tensor, then: Callable[[float], None]) -> None:
        self.open.append(Open((values,), lambda found: then(float(found[0])), summed=True))

    @override
    def fetch(self) -> None:
        asked, self.open = self.open, []
        if not asked:
            return
        answers = iter(on_host(wanted(asked)))
        total = sum((next(answers) for _ in _dtypes(asked)), torch.zeros(1, device="cpu"))
        for each in asked:
            each.then([total] if each.summed else [next(answers) for _ in each.tensors])

    @override
    def within(self, tokens: Tensor, size: int) -> Tensor:
        return tokens.long().contiguous().clamp(0, size - 1)  # the next read-back reports tokens outside


NOW = Now()


def wanted(asked: Sequence[Open]) -> list[Tensor]:
    """The tensors of a read-back: one sum for each dtype of the questions for sums, then the others' tensors."""
    values = [each.tensors[0].detach().reshape(-1) for each in asked if each.summed]
    found = []
    for dtype in _dtypes(asked):
        first, *others = [each for each in values if each.dtype == dtype]
        found.append((torch.cat([first, *others]) if others else first).sum(dtype=torch.float64))
    return found + [tensor for each in asked if not each.summed for tensor in each.tensors]


def _dtypes(asked: Sequence[Open]) -> list[torch.dtype]:
    """The dtypes of the questions for sums, each once."""
    return list(dict.fromkeys(each.tensors[0].dtype for each in asked if each.summed))


def on_host(numbers: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to the CPU in one transfer, `[n]` each; joined as bytes, they may differ in dtype."""
    flat = [each.detach().reshape(-1) for each in numbers]
    read = torch.cat([each.view(torch.uint8) for each in flat]).cpu().split([each.nbytes for each in flat])
    return [part.clone().view(each.dtype) for part, each in zip(read, flat, strict=True)]

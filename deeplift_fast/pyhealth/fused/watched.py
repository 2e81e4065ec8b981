"""Detects changed weights, also changes that PyTorch does not count (`weight.data.mul_(2)`)."""

from collections.abc import Iterable, Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from deeplift_fast.core.questions import Questions
from deeplift_fast.errors import WeightsChanged
from deeplift_fast.ops.registry import checksum


class Watched:
    """Weights, compared with their state when this object was made.

    On the CPU, a checksum of each weight is compared before a call: one fast pass over memory. Other devices would make
    the call wait. There each call compares every bit with a copy, and the one read-back of the call has the answer.

    Args:
        modules: the modules with the weights; `None` is skipped. Make this object before the weights are packed: then a
            change during the packing is noticed too.
    """

    def __init__(self, modules: Iterable[nn.Module | None]) -> None:
        weights = [weight for module in modules if module is not None for weight in module.parameters()]
        weights = [weight for weight in weights if weight.numel()]  # empty weights have no sum
        self._weights = [weight for weight in weights if on_cpu(weight)]
        self._elsewhere = [weight for weight in weights if not on_cpu(weight)]
        with torch.inference_mode(False), torch.no_grad():
            self._sums = list(map(_sum, self._weights))
            self._bits = _bits(self._elsewhere) if self._elsewhere else None

    def is_outdated(self) -> bool:
        """Whether a weight on the CPU has changed since this object was made."""
        with torch.no_grad():
            return not all(map(_same, self._sums, map(_sum, self._weights)))

    def watch(self, questions: Questions) -> None:
        """Ask whether a weight elsewhere has changed since this object was made.

        This costs three launches for up to 128 weights, and a copy of the weights. The answer raises
        :class:`deeplift_fast.errors.WeightsChanged` if one has changed.
        """
        if self._bits is not None:
            with torch.inference_mode(False), torch.no_grad():
                changed = (_bits(self._elsewhere) != self._bits).any()
            questions.ask([changed], lambda found: _again() if found[0] else None)


def _sum(weight: Tensor) -> int | Tensor:
    """A checksum; without the C++ library or memory of its own, a sum of each row with a factor per column."""
    found = checksum(weight)
    if found is not None:
        return found
    factors = torch.linspace(0.5, 1.5, weight[0].numel(), dtype=weight.dtype, device="cpu").sin_()
    return weight.flatten(1) @ factors if weight.dim() > 1 else weight * factors


def _same(a: int | Tensor, b: int | Tensor) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bool(a == b)


def on_cpu(weight: Tensor) -> bool:
    """Whether the CPU reads a weight without waiting for a device."""
    return weight.device.type == "cpu"


def _bits(weights: Sequence[Tensor]) -> Tensor:
    """The weights, of one dtype, as one tensor of integers: a comparison of these takes NaN and -0.0 as they are."""
    dtype = torch.int32 if weights[0].dtype.itemsize == 4 else torch.int64
    return torch.cat([weight.detach().reshape(-1).view(dtype) for weight in weights])


def _again() -> NoReturn:
    raise WeightsChanged("the weights have changed since they were packed")

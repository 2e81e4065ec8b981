"""Weights that something was packed from, and whether they have changed since."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Watched:
    """Tells whether weights have changed, also where PyTorch keeps no count (`weight.data.mul_(2)`).

    Args:
        modules: whose weights to watch.
    """

    def __init__(self, modules: Iterable[nn.Module | None]) -> None:
        weights = [weight for module in modules if module is not None for weight in module.parameters()]
        # Few hidden units have no theme. On a GPU looking would take a read-back: only counted changes are seen there.
        self._weights = [weight for weight in weights if weight.numel() and weight.device.type == "cpu"]
        with torch.no_grad():
            self._factors = [_factors(weight[0].numel(), weight) for weight in self._weights]
            self._sums = self._summed()

    def is_outdated(self) -> bool:
        """Whether a weight is another one than when this was made."""
        with torch.no_grad():
            return not all(map(torch.equal, self._sums, self._summed()))

    def _summed(self) -> list[Tensor]:
        """The rows of each weight, summed up with other factors for each column: one quick pass over memory."""
        return [
            weight.flatten(1) @ f if weight.dim() > 1 else weight * f
            for weight, f in zip(self._weights, self._factors, strict=True)
        ]


def _factors(count: int, like: Tensor) -> Tensor:
    return torch.linspace(0.5, 1.5, count, dtype=like.dtype, device=like.device).sin_()

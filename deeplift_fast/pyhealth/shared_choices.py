"""The same choices in both streams, for a model that clusters its batch anew in every forward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_INDICES = frozenset((torch.argmax, Tensor.argmax, torch.argmin, Tensor.argmin))
_EXTREMES = frozenset((torch.max, Tensor.max, torch.min, Tensor.min))


class SharedChoices(TorchFunctionMode):
    """Records the index of each maximum and minimum in the first run, and repeats it in later runs.

    Then all runs share the clusters of k-means and the class of a hard Gumbel softmax, as they share random draws.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: list[Tensor] = []
        self._position = 0
        self._settled = False

    def start(self) -> None:
        """Begin a run; the first run ends with :meth:`settle`."""
        self._position = 0

    def settle(self) -> None:
        """Repeat the recorded choices from here on."""
        self._settled = True

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func` with the shared choice; see :class:`torch.overrides.TorchFunctionMode`."""
        found = func(*args, **(kwargs or {}))
        if func in _INDICES:
            return self._shared(found)
        if func in _EXTREMES and isinstance(found, tuple):
            indices = self._shared(found.indices)  # type: ignore[attr-defined]
            dim = args[1] if len(args) > 1 else (kwargs or {})["dim"]
            kept = found.values.dim() == args[0].dim()  # type: ignore[attr-defined]
            values = args[0].gather(dim, indices if kept else indices.unsqueeze(dim))
            return type(found)((values if kept else values.squeeze(dim), indices))
        return found

    def _shared(self, indices: Tensor) -> Tensor:
        if not self._settled:
            self._found.append(indices)
            return indices
        kept = self._found[self._position] if self._position < len(self._found) else indices
        self._position += 1
        return kept if kept.shape == indices.shape else indices

"""The split that each sample of a dataset belongs to, as `attribute_cohort(splits=…)` takes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from deeplift_fast.cohort.hashing import digest
from deeplift_fast.cohort.identifiers import as_text
from deeplift_fast.errors import CohortError

ACCEPTED = 'accepted: a dict such as {"train": numbers, "test": numbers}, of the numbers of samples in the dataset'


@dataclass(frozen=True)
class Splits:
    """Numbers of samples by split; a sample may be in none.

    Attributes:
        numbers: by name, int64, ascending.
    """

    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The digest of names and numbers; "none" without any."""
        return digest(self.numbers) if self.numbers else "none"

    def of(self, numbers: np.ndarray) -> list[str | None]:
        """The split of each sample, by number, int64 `[samples]`."""
        found: list[str | None] = [None] * len(numbers)
        for name, mine in self.numbers.items():
            for place in np.flatnonzero(np.isin(numbers, mine)):
                found[place] = name
        return found

    def merged(self, numbers: np.ndarray, said: Sequence[str | None]) -> list[str | None]:
        """The split of each sample, from here or from the sample itself.

        Args:
            numbers: numbers of the samples, int64 `[samples]`.
            said: what each sample says.

        Raises:
            CohortError: if a sample says another split.
        """
        mine = self.of(numbers)
        for number, here, there in zip(numbers.tolist(), mine, said, strict=True):
            if here is not None and there is not None and here != there:
                raise CohortError(
                    f"splits has sample {number} in another split than the sample's own field 'split'; accepted: one "
                    "of the two, or both alike"
                )
        return [there if here is None else here for here, there in zip(mine, said, strict=True)]


def checked_splits(given: Any) -> Splits:
    """The argument `splits`, checked.

    Args:
        given: numbers of samples by the name of their split, or `None`.

    Raises:
        CohortError: if it is something else, or a sample is in two splits.
    """
    if given is None:
        return Splits()
    if not isinstance(given, Mapping):
        raise CohortError(f"splits is a {type(given).__name__}; {ACCEPTED}")
    found: dict[str, np.ndarray] = {}
    for name, numbers in given.items():
        if not isinstance(name, str):
            raise CohortError(f"splits has a key that is a {type(name).__name__}; {ACCEPTED}")
        found[as_text(name)] = _numbers(name, numbers)
    every = np.concatenate([np.empty(0, np.int64), *found.values()])
    twice, counts = np.unique(every, return_counts=True)
    if len(again := twice[counts > 1]):
        names = [name for name, numbers in found.items() if again[0] in numbers]
        raise CohortError(f"splits has sample {again[0]} in {' and '.join(map(repr, names))}; {ACCEPTED}, each once")
    return Splits({name: found[name] for name in sorted(found)})


def check_length(splits: Splits, length: int) -> None:
    """Raise CohortError if a number lies beyond a dataset of this length."""
    for name, numbers in splits.numbers.items():
        if len(numbers) and numbers[-1] >= length:
            raise CohortError(
                f"splits[{name!r}] has the number {numbers[-1]}; accepted: 0 to {length - 1}, as the dataset has "
                f"{length} samples"
            )


def _numbers(name: str, given: Any) -> np.ndarray:
    try:
        numbers = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(_listed(given))
    except (TypeError, ValueError):
        raise CohortError(f"splits[{name!r}] is a {type(given).__name__}; {ACCEPTED}") from None
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise CohortError(f"splits[{name!r}] holds something else than ints; {ACCEPTED}")
    if numbers.size and numbers.min() < 0:
        raise CohortError(f"splits[{name!r}] has the number {numbers.min()}; accepted: 0 or more")
    return np.unique(numbers.astype(np.int64))


def _listed(given: Any) -> Any:
    return given if isinstance(given, np.ndarray | str | Mapping) else list(given)

"""Means of the interactions of pairs of codes, from a cohort's table `interactions`.

A pair has a row in the samples in which both codes are among the strongest. The tables are read several times: first
to choose the strongest pairs, then to add up what each group has of them. So memory depends neither on the number of
samples nor on the number of pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import pandas as pd

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.bootstrap import REPLICATES
from deeplift_fast.report.cells import encoded
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.grouped_sums import GroupedSums
from deeplift_fast.report.members import Assigner, Members
from deeplift_fast.report.per_sample import PATIENT_BITS
from deeplift_fast.report.spool import Spool

MOST_PAIRS = 5000
"""The largest number of pairs whose means are made; each costs memory."""

FEWEST = 10
"""Samples from which on a pair is chosen before those of fewer samples, whose means are noise."""

AT_ONCE = 1 << 19
"""Pairs that are counted in one reading of the tables, in about 80 MB."""

PAIR = ("first_feature", "first_code", "second_feature", "second_code")
"""Columns that name a pair."""

COLUMNS = (
    *("grouping", "group", "target", *PAIR),
    *("samples", "patients", "mean", "mean_abs", "share_positive", "low", "high"),
)

_FEW = 1 << 16
_READ = ("sample", *PAIR, "interaction")


@dataclass(frozen=True)
class PairRows:
    """The rows of a part.

    Attributes:
        sample: number of the sample, int64 `[rows]`.
        pair: number of the pair by :class:`PairReader`, int64 `[rows]`.
        interaction: float64 `[rows]`.
    """

    sample: np.ndarray
    pair: np.ndarray
    interaction: np.ndarray


class PairReader:
    """Reads parts of a cohort, and numbers codes and pairs of them."""

    def __init__(self, folder: CohortFolder) -> None:
        self.folder = folder
        self.codes: dict[tuple[str, str], int] = {}
        """The number of each feature and code."""

    def read(self, part: int) -> PairRows:
        """The rows of a finished part.

        Raises:
            SummaryError: if its interactions are missing or damaged.
        """
        table = self.folder.interactions(part, _READ)
        first, second = (self._numbers(table[f"{name}_feature"], table[f"{name}_code"]) for name in ("first", "second"))
        interaction = table["interaction"].to_numpy().astype(np.float64)
        return PairRows(table["sample"].to_numpy(), (first << 32) | second, interaction)

    def names(self, pairs: np.ndarray) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Feature and code of the first and of the second code of each pair."""
        codes = list(self.codes)
        return [codes[n] for n in (pairs >> 32).tolist()], [codes[n] for n in (pairs & 0xFFFFFFFF).tolist()]

    def _numbers(self, features, codes) -> np.ndarray:  # type: ignore[no-untyped-def]
        """The number of each row's code, int64 `[rows]`."""
        (feature, of_features), (code, of_codes) = (encoded(each.combine_chunks()) for each in (features, codes))
        packed, row = np.unique((feature << 32) | code, return_inverse=True)
        named = [(of_features[n >> 32], of_codes[n & 0xFFFFFFFF]) for n in packed.tolist()]
        return np.array([self.codes.setdefault(each, len(self.codes)) for each in named], np.int64)[row]


class _Counted:
    """Pairs with their number of samples and the sum of their |interactions|."""

    def __init__(self) -> None:
        self.pairs, self.samples, self.size = np.empty(0, np.int64), np.empty(0), np.empty(0)
        self._new: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, pairs: np.ndarray, samples: np.ndarray, size: np.ndarray) -> None:
        """Adds pairs, some of them several times."""
        self._new.append((pairs, samples, size))
        if sum(len(each) for each, _, _ in self._new) > max(_FEW, len(self.pairs) // 2):  # sorts each a few times
            self.settle()

    def settle(self) -> None:
        """Makes the pairs that were added one of each."""
        every, samples, size = map(np.concatenate, zip((self.pairs, self.samples, self.size), *self._new, strict=True))
        self.pairs, place = np.unique(every, return_inverse=True)
        self.samples, self.size = (np.bincount(place, each, len(self.pairs)) for each in (samples, size))
        self._new = []

    def keep(self, which: np.ndarray) -> None:
        """Keeps these pairs: places, or a bool for each."""
        self.pairs, self.samples, self.size = self.pairs[which], self.samples[which], self.size[which]

    def strongest(self, most: int) -> np.ndarray:
        """The places of pairs with the largest mean |interaction|, those of at least `FEWEST` samples first."""
        order = np.lexsort((self.pairs, -self.size / np.maximum(self.samples, 1), self.samples < FEWEST))
        return np.sort(order[:most])


def strongest_pairs(reader: PairReader, most: int = MOST_PAIRS, at_once: int = AT_ONCE) -> tuple[np.ndarray, int]:
    """The pairs with the largest mean |interaction|, and the number of all pairs.

    If there are more pairs than may be counted at once, the tables are read again for the others: each time for pairs
    whose hash ends in certain bits.

    Args:
        reader: the cohort's reader.
        most: the largest number of pairs.
        at_once: the largest number of pairs that are counted at once.

    Returns:
        Numbers of pairs, int64, ascending; and how many there are in all.
    """
    best, known, waiting = _Counted(), 0, [(0, 0)]
    while waiting:
        depth, ending = waiting.pop()
        counted = _Counted()
        for part in reader.folder.parts:
            rows = reader.read(part)
            mine = _ends(rows.pair, depth) == ending
            counted.add(rows.pair[mine], np.ones(int(mine.sum())), np.abs(rows.interaction[mine]))
            while len(counted.pairs) > at_once:
                waiting.append((depth + 1, ending | 1 << depth))
                depth += 1
                counted.keep(_ends(counted.pairs, depth) == ending)
        counted.settle()
        known += len(counted.pairs)
        best.add(counted.pairs, counted.samples, counted.size)
        best.settle()
        best.keep(best.strongest(most))
    return best.pairs, known


def _ends(pairs: np.ndarray, depth: int) -> np.ndarray:
    """The last bits of the hash of each pair, uint64."""
    ends: np.ndarray = pd.util.hash_array(pairs) & np.uint64((1 << depth) - 1)
    return ends


class PairMeans:
    """Sums of interactions per group and pair, added up part by part; a context manager.

    A temporary file holds 8 bytes per grouping, part, patient and pair.

    Args:
        folder: a cohort with interactions; `None` for one without, which has no means.
        replicates: replicates of the bootstrap.
        seed: seed of the bootstrap.
    """

    def __init__(self, folder: CohortFolder | None, replicates: int = REPLICATES, seed: int = 0) -> None:
        self._reader = None if folder is None else PairReader(folder)
        self.pairs, self.known = np.empty(0, np.int64), 0
        """The pairs, int64 `[pairs]`, ascending; and the number of all pairs of the cohort."""
        if self._reader is not None:
            self.pairs, self.known = strongest_pairs(self._reader)
        self._sums = GroupedSums(("samples", "sum", "size", "positive"), ("sum", "samples"), replicates, seed)
        self._patients = Spool(PATIENT_BITS)

    def __enter__(self) -> "PairMeans":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patients.__exit__(kind, error, trace)

    def add(self, part: int, members: Members) -> None:
        """Adds a part; `members` are its samples, ascending by number.

        Raises:
            SummaryError: if its interactions are missing or damaged, or name other samples.
        """
        if self._reader is None:
            return
        rows = self._reader.read(part)
        sample = np.searchsorted(members.number, rows.sample)
        if len(sample) and (np.append(members.number, -1)[sample] != rows.sample).any():
            raise SummaryError(
                f"part {part}: its interactions name samples that its samples table lacks; start the cohort over with "
                "--force"
            )
        place = np.searchsorted(self.pairs, rows.pair)
        mine = np.append(self.pairs, -1)[place] == rows.pair
        place, sample, interaction = place[mine], sample[mine], rows.interaction[mine]
        columns = {
            "samples": np.ones(len(place)),
            "sum": interaction,
            "size": np.abs(interaction),
            "positive": (interaction > 0).astype(np.float64),
        }
        for inside, row in self._sums.add(members, place, sample, columns):
            self._patients.add(row, members.patient[sample[inside]], once=True)

    def notes(self) -> list[str]:
        """Notes for the reader, one sentence each."""
        if self.known <= len(self.pairs):
            return []
        return [f"of {self.known:,} pairs of codes, the {len(self.pairs):,} strongest have means"]

    def table(self, assigner: Assigner) -> pd.DataFrame | None:
        """One row per group, target and pair: the columns `COLUMNS`, in no particular order.

        `samples` and `patients` are the numbers of those in which both codes are among the strongest. `mean`,
        `mean_abs` and `share_positive` are over these samples. `low` and `high` are the ends of the mean's 95 %
        interval over patients, NaN for too few patients.
        """
        if self._reader is None:
            return None
        sums, keys = self._sums.sums(), list(self._sums.keys)
        groupings, targets = assigner.groupings, list(assigner.targets)
        first, second = self._reader.names(self.pairs[[pair for *_, pair in keys]])
        found: dict[str, object] = {
            "grouping": [groupings[g].name for g, *_ in keys],
            "group": [groupings[g].groups[i] for g, i, *_ in keys],
            "target": np.array([targets[t] for _, _, t, _ in keys], np.int64),
            "samples": sums["samples"].astype(np.int64),
            "patients": self._patients.distinct(len(keys)),
            "mean": sums["sum"] / sums["samples"],
            "mean_abs": sums["size"] / sums["samples"],
            "share_positive": sums["positive"] / sums["samples"],
            "low": sums["low"],
            "high": sums["high"],
        }
        for name, codes in (("first", first), ("second", second)):
            found |= _texts(name, codes)
        return pd.DataFrame(found, columns=list(COLUMNS))


def _texts(name: str, codes: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
    """The columns of the first or the second codes."""
    of_features, of_codes = ([each[place] for each in codes] for place in (0, 1))
    return {f"{name}_feature": np.array(of_features, object), f"{name}_code": np.array(of_codes, object)}

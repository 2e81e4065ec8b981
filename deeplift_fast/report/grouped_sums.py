"""Sums of cells per grouping, group, target and name. Their size does not depend on samples or patients.

Each row has its sums, and a weighted sum and count for each replicate of the bootstrap (1.6 kB for 200 replicates).
Sums of one part are float64. Replicates are added in float32, whose rounding error is far below the bootstrap's own.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import sparse

from deeplift_fast.report.bootstrap import interval, weights
from deeplift_fast.report.members import Members

_BLOCK = 4096  # samples whose bootstrap weights are held at a time: 3 MB for 200 replicates

Key = tuple[int, int, int, int]
"""Grouping, group, target and name."""


class GroupedSums:
    """Sums of columns, and the bootstrap of the quotient of two of them.

    Args:
        columns: names of the columns.
        quotient: the two columns whose quotient is a mean.
        replicates: replicates of the bootstrap over patients.
        seed: seed of the bootstrap.
    """

    def __init__(self, columns: Sequence[str], quotient: tuple[str, str], replicates: int, seed: int) -> None:
        self.keys: dict[Key, int] = {}
        """The row of each key, in the order of their first use."""
        self._columns, self._quotient = tuple(columns), quotient
        self._replicates, self._seed = replicates, seed
        self._sums = np.zeros((0, len(self._columns)))
        self._drawn = [np.zeros((0, replicates), np.float32) for _ in quotient]

    def add(
        self, members: Members, name: np.ndarray, sample: np.ndarray, cells: Mapping[str, np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Adds a part's cells.

        Args:
            members: the part's samples.
            name: name of each cell, int64 `[cells]`.
            sample: its sample, a place in `members`, int64 `[cells]`.
            cells: its columns, float64 `[cells]` each.

        Returns:
            Per grouping, the cells that are in one of its groups, bool `[cells]`, and the row of each of them, int64.
        """
        placed = [self._place(members, number, name, sample) for number in range(len(members.groups))]
        used = [np.unique(rows, return_inverse=True) for _, rows in placed]
        for (inside, _), (which, row) in zip(placed, used, strict=True):
            for column, key in enumerate(self._columns):
                self._sums[which, column] += np.bincount(row, cells[key][inside], len(which))
        for first in range(0, len(members.patient), _BLOCK):
            patients = members.patient[first : first + _BLOCK]
            weighing = weights(patients, self._replicates, self._seed).astype(np.float64)
            for (inside, _), (which, row) in zip(placed, used, strict=True):
                here = sample[inside] // _BLOCK == first // _BLOCK
                place = row[here], sample[inside][here] - first
                for key, total in zip(self._quotient, self._drawn, strict=True):
                    matrix = sparse.csr_array((cells[key][inside][here], place), shape=(len(which), len(weighing)))
                    total[which] += (matrix @ weighing).astype(np.float32)
        return placed

    def _place(
        self, members: Members, number: int, name: np.ndarray, sample: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        group, target = members.groups[number][sample], members.target[sample]
        inside = (group >= 0) & (target >= 0)
        shape = tuple(int(each.max(initial=0)) + 1 for each in (group, target, name))
        packed = np.ravel_multi_index((group[inside], target[inside], name[inside]), shape)
        keys, place = np.unique(packed, return_inverse=True)
        group, target, name = (each.tolist() for each in np.unravel_index(keys, shape))
        rows = self._rows_of((number, *key) for key in zip(group, target, name, strict=True))
        return inside, rows[place]

    def sums(self) -> dict[str, np.ndarray]:
        """The sums by column, float64 `[rows]` each, and `low` and `high`: the quotient's 95 % interval over patients.

        Ends of the interval are NaN for too few patients.
        """
        size = len(self.keys)
        low, high = interval(self._drawn[0][:size], self._drawn[1][:size])
        return dict(zip(self._columns, self._sums[:size].T, strict=True)) | {"low": low, "high": high}

    def _rows_of(self, keys: Iterable[Key]) -> np.ndarray:
        """The row of each key in the arrays, int64; arrays grow for new keys."""
        rows = np.array([self.keys.setdefault(key, len(self.keys)) for key in keys], dtype=np.int64)
        missing = len(self.keys) - len(self._sums)
        if missing > 0:
            more = max(missing, len(self._sums) // 2)
            self._sums = np.pad(self._sums, ((0, more), (0, 0)))
            self._drawn = [np.pad(drawn, ((0, more), (0, 0))) for drawn in self._drawn]
        return rows

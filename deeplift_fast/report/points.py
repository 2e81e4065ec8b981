"""A sample of contributions, for figures that draw each as a point."""

from collections.abc import Iterator, Mapping
from typing import override

import numpy as np
import pandas as pd

MOST_POINTS = 400
"""The largest number of points of a row."""

_FEW = 1 << 12
_POINT = np.dtype([("row", np.int32), ("hash", np.uint64), ("contribution", np.float32), ("value", np.float32)])
_LARGEST = np.iinfo(np.uint64).max

Key = tuple[int, str, str]
"""Target, feature and code or dimension."""


class PointTables(Mapping[Key, pd.DataFrame]):
    """The points of each key: a table that is made when it is asked for, because few of thousands are drawn.

    Args:
        rows: the row of each key.
        points: `_POINT` `[points]`, ascending by row.
    """

    def __init__(self, rows: Mapping[Key, int], points: np.ndarray) -> None:
        self._rows, self._points = rows, points

    @override
    def __getitem__(self, key: Key) -> pd.DataFrame:
        row = self._rows[key]
        begin, end = np.searchsorted(self._points["row"], [row, row + 1])
        return pd.DataFrame({name: self._points[name][begin:end] for name in ("contribution", "value")})

    @override
    def __iter__(self) -> Iterator[Key]:
        return iter(self._rows)

    @override
    def __len__(self) -> int:
        return len(self._rows)


class Points:
    """At most `MOST_POINTS` contributions of each row: those whose samples' numbers have the smallest hashes.

    The choice depends on the samples' numbers alone, so it is the same in every run and for every size of parts.
    """

    def __init__(self) -> None:
        self._kept = np.zeros(0, _POINT)
        self._new: list[np.ndarray] = []
        self._limits = np.zeros(0, np.uint64)  # of a row's hashes

    def add(self, rows: np.ndarray, samples: np.ndarray, sums: np.ndarray, values: np.ndarray) -> None:
        """Adds contributions.

        Args:
            rows: row of each, int64 `[points]`.
            samples: number of its sample, int64 `[points]`.
            sums: the contribution, floating point `[points]`.
            values: the newest measured value, floating point `[points]`; NaN without one.
        """
        missing = int(rows.max(initial=-1)) + 1 - len(self._limits)
        self._limits = np.pad(self._limits, (0, max(0, missing)), constant_values=_LARGEST)
        hashes = pd.util.hash_array(samples)
        low = hashes <= self._limits[rows]
        new = np.zeros(int(low.sum()), _POINT)
        for name, column in zip(_POINT.names or (), (rows, hashes, sums, values), strict=True):
            new[name] = column[low]
        self._new.append(new)
        if sum(map(len, self._new)) > max(_FEW, len(self._kept) // 2):  # sorts each point a few times, not once a part
            self._choose()

    def tables(self, rows: Mapping[Key, int]) -> PointTables:
        """The points by key: the columns `contribution` and `value`, float32, in the order of the hashes.

        Args:
            rows: the row of each key.
        """
        self._choose()
        return PointTables(rows, self._kept)

    def _choose(self) -> None:
        table = np.concatenate([self._kept, *self._new])
        table = table[np.lexsort((table["hash"], table["row"]))]
        _, first, counts = np.unique(table["row"], return_index=True, return_counts=True)
        rank = np.arange(len(table)) - np.repeat(first, counts)
        self._kept, self._new = table[rank < MOST_POINTS], []
        last = rank == MOST_POINTS - 1
        self._limits[table["row"][last]] = table["hash"][last]

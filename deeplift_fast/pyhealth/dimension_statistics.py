"""Medians and means of a feature's dimensions, patient by patient; only one patient's record is in memory."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

Values = tuple[np.ndarray, np.ndarray]
"""Values, float64 `[n, dimensions]`, and whether each was measured, bool."""

Result = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Centre and spread, float64 `[dimensions]`, NaN without measurements; and the number of patients, int64."""


class Statistic(ABC):
    """A statistic of one feature. If samples differ in the number of dimensions, the most frequent number counts."""

    def __init__(self) -> None:
        self._samples: Counter[int] = Counter()

    def add(self, samples: Iterable[Values | None]) -> None:
        """Add the samples of one patient; `None` is a sample without values."""
        by_width: dict[int, list[Values]] = {}
        for each in samples:
            width = 0 if each is None else each[0].shape[1]
            self._samples[width] += 1
            if each is not None:
                by_width.setdefault(width, []).append(each)
        for width, found in by_width.items():
            values, measured = (np.concatenate(parts) for parts in zip(*found, strict=True))
            self._add(width, values, measured)

    @property
    def left_out(self) -> int:
        """The number of samples without values, or with another number of dimensions."""
        return self._samples.total() - self._samples[self._width()]

    def result(self) -> Result:
        """The statistic; arrays of length 0 if no sample had values."""
        width = self._width()
        return self._result(width) if width else (np.empty(0), np.empty(0), np.empty(0, np.int64))

    def _width(self) -> int:
        return max((width for width in self._samples if width), key=lambda width: self._samples[width], default=0)

    @abstractmethod
    def _add(self, width: int, values: np.ndarray, measured: np.ndarray) -> None:
        """Add a patient's samples of one width."""

    @abstractmethod
    def _result(self, width: int) -> Result:
        """As :meth:`result`, for one width."""


class MedianOfPatients(Statistic):
    """The median of patients' medians, and the distance between their quartiles."""

    def __init__(self) -> None:
        super().__init__()
        self._medians: dict[int, list[np.ndarray]] = {}

    def _add(self, width: int, values: np.ndarray, measured: np.ndarray) -> None:
        self._medians.setdefault(width, []).append(medians(values, measured))

    def _result(self, width: int) -> Result:
        each = np.stack(self._medians[width])
        known = ~np.isnan(each)
        columns = [column[sure] for column, sure in zip(each.T, known.T, strict=True)]
        quartiles = [np.quantile(column, (0.25, 0.75)) if len(column) else (np.nan, np.nan) for column in columns]
        spread = np.array([high - low for low, high in quartiles])
        return medians(each, known), spread, known.sum(0)


class MeanOfValues(Statistic):
    """The mean of all measured values, and their standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}

    def _add(self, width: int, values: np.ndarray, measured: np.ndarray) -> None:
        nothing = np.zeros(width)
        count, mean, squares, patients = self._sums.get(width, (nothing, nothing, nothing, nothing))
        more = measured.sum(0)
        divisor = np.maximum(more, 1)
        their_mean = np.where(measured, values, 0).sum(0) / divisor
        their_squares = (np.where(measured, values - their_mean, 0) ** 2).sum(0)
        # Chan, Golub, LeVeque 1983: sums of squares about the mean of each part, added without cancellation.
        total = np.maximum(count + more, 1)
        apart = their_mean - mean
        self._sums[width] = (
            count + more,
            mean + apart * more / total,
            squares + their_squares + apart**2 * count * more / total,
            patients + (more > 0),
        )

    def _result(self, width: int) -> Result:
        count, mean, squares, patients = self._sums[width]
        sure = count > 0
        deviation = np.sqrt(squares / np.maximum(count, 1))
        return np.where(sure, mean, np.nan), np.where(sure, deviation, np.nan), patients.astype(np.int64)


def medians(values: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """The median of the measured values in each column of `[n, columns]`; NaN for a column without any.

    For an even number of values it is the mean of the middle two.
    """
    if not len(values):
        return np.full(values.shape[1], np.nan)
    ordered = np.sort(np.where(measured, values, np.nan), axis=0)  # NaN comes last
    count = measured.sum(0)
    places: Sequence[np.ndarray] = (np.maximum(count - 1, 0) // 2, count // 2)
    low, high = (np.take_along_axis(ordered, np.minimum(at, len(values) - 1)[None], 0)[0] for at in places)
    return np.where(count > 0, (low + high) / 2, np.nan)

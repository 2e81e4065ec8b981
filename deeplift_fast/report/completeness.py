"""How complete a cohort's attributions are, in bounded memory."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from deeplift_fast.report.folder import CohortFolder

TOLERANCE = 0.01
"""Share of the change in output that a complete sample's contributions may miss."""

LARGEST_FACTOR = 10.0
"""A larger rescaling factor than this misleads."""

COLUMNS = ("output", "baseline_output", "convergence_delta")
"""Columns of `samples` that totals are made of."""


@dataclass(frozen=True)
class Completeness:
    """Totals over samples.

    Attributes:
        samples: number of samples attributed.
        complete: share of them whose |convergence delta| is at most `TOLERANCE` of |output − baseline output|.
        median_delta: median of |convergence delta|, in logits.
        max_delta: the largest.
        misscaled: share of them whose rescaling turns signs or exceeds `LARGEST_FACTOR`, where rules rescale.
        failures: number of samples that could not be attributed, by reason.
        parts: number of parts finished.
        parts_in_all: number of parts of the finished cohort; `None` if nobody knows.
        median_cancellation: median of `Σ|attribution| / |output − baseline output|`, infinite where half of the samples
            have no change in output; see `deeplift_fast.report.cancellation`.
        p90_cancellation: its 90th percentile.

    Shares, medians, percentile and maximum are NaN where there is no sample.
    """

    samples: int
    complete: float
    median_delta: float
    max_delta: float
    misscaled: float
    failures: dict[str, int]
    parts: int
    parts_in_all: int | None
    median_cancellation: float
    p90_cancellation: float


def misscaled(output: np.ndarray, baseline_output: np.ndarray, convergence_delta: np.ndarray) -> np.ndarray:
    """Which samples were rescaled by a negative factor or by one beyond `LARGEST_FACTOR`: their signs mislead.

    Args:
        output: floating point `[samples]`, as all three are.
        baseline_output: alike.
        convergence_delta: alike, before any rescaling.

    Returns:
        bool `[samples]`.
    """
    change = output.astype(np.float64) - baseline_output
    raw = change + convergence_delta
    # change / raw is the factor; written without a division, which may be by 0.
    return (change * raw < 0) | (np.abs(change) > LARGEST_FACTOR * np.abs(raw))


class Totals:
    """Totals that grow part by part.

    Args:
        folder: the cohort, whose failures are read.

    Raises:
        SummaryError: if `failures.parquet` is missing or damaged.
    """

    def __init__(self, folder: CohortFolder) -> None:
        self._failures = folder.failures()
        self._parts, self._parts_in_all = len(folder.parts), folder.expected
        self._samples = self._within = self._bent = 0
        self._largest = 0.0

    def add(self, samples: pa.Table) -> np.ndarray:
        """Adds a part's samples, with the columns `COLUMNS`; returns |convergence delta| of each, float32."""
        output, baseline, delta = (samples[name].to_numpy() for name in COLUMNS)
        change = np.abs(output.astype(np.float64) - baseline)
        sizes = np.abs(delta)
        self._samples += len(delta)
        self._within += int((sizes <= TOLERANCE * change).sum())
        self._bent += int(misscaled(output, baseline, delta).sum())
        self._largest = max(self._largest, float(sizes.max(initial=0.0)))
        return sizes.astype(np.float32, copy=False)

    def found(self, median_delta: float, median_cancellation: float, p90_cancellation: float) -> Completeness:
        """The totals, with quantiles that were found elsewhere."""
        nothing, count = math.nan, self._samples
        return Completeness(
            samples=count,
            complete=self._within / count if count else nothing,
            median_delta=median_delta,
            max_delta=self._largest if count else nothing,
            misscaled=self._bent / count if count else nothing,
            failures=self._failures,
            parts=self._parts,
            parts_in_all=self._parts_in_all,
            median_cancellation=median_cancellation,
            p90_cancellation=p90_cancellation,
        )


def completeness(folder: CohortFolder) -> Totals:
    """The totals of a folder, before any part is added."""
    return Totals(folder)


def streaming_median(pieces: Callable[[], Iterable[np.ndarray]]) -> float:
    """The exact median of float32 numbers that are never held together; see :func:`streaming_quantiles`."""
    return streaming_quantiles(pieces, (0.5,))[0]


def streaming_quantiles(pieces: Callable[[], Iterable[np.ndarray]], shares: Sequence[float]) -> list[float]:
    """Exact quantiles of float32 numbers that are never held together, interpolated linearly as NumPy does.

    The bits of floats that are not negative sort as the floats do: one pass finds the upper 16 bits of the numbers that
    are looked for, a second one the lower 16.

    Args:
        pieces: called twice; float32 arrays of numbers ≥ 0, alike both times.
        shares: which quantiles, each in [0, 1].

    Returns:
        One number for each share; NaN of no numbers.
    """
    upper = np.zeros(1 << 16, dtype=np.int64)
    for piece in pieces():
        upper += np.bincount(_bits(piece) >> 16, minlength=1 << 16)
    total = int(upper.sum())
    if not total:
        return [float("nan")] * len(shares)
    places = [share * (total - 1) for share in shares]
    ranks = {rank for place in places for rank in (math.floor(place), math.ceil(place))}
    before = np.r_[0, np.cumsum(upper)]
    buckets = {rank: int(np.searchsorted(before, rank, side="right")) - 1 for rank in ranks}
    lower = {bucket: np.zeros(1 << 16, dtype=np.int64) for bucket in buckets.values()}
    for piece in pieces():
        bits = _bits(piece)
        for bucket, counts in lower.items():
            counts += np.bincount(bits[bits >> 16 == bucket] & 0xFFFF, minlength=1 << 16)
    found = {}
    for rank, bucket in buckets.items():
        low = int(np.searchsorted(np.cumsum(lower[bucket]), rank - before[bucket], side="right"))
        found[rank] = float(np.array([bucket << 16 | low], dtype=np.uint32).view(np.float32)[0])
    return [_between(found[math.floor(place)], found[math.ceil(place)], place % 1) for place in places]


def _between(low: float, high: float, share: float) -> float:
    return low if low == high or not share else low * (1 - share) + high * share  # either may be infinite


def _bits(numbers: np.ndarray) -> np.ndarray:
    # + 0 turns a negative zero into a positive one.
    return (numbers.astype(np.float32) + np.float32(0)).view(np.uint32).astype(np.int64)

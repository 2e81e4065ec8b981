"""How complete a cohort's attributions are, and how far they cancel."""

import math
from dataclasses import dataclass
from typing import BinaryIO

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
            have no change in output; see :func:`cancellation`.
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


def cancellation(samples: pa.Table, sizes: np.ndarray) -> np.ndarray:
    """How far each sample's contributions cancel: `Σ|attribution| / |output − baseline output|`, float32.

    A sample in which nothing changed and nothing was attributed has no ratio and is left out.

    Args:
        samples: `output` and `baseline_output` of a part's samples.
        sizes: `Σ|attribution|` of each, `[samples]`.
    """
    change = samples["output"].to_numpy().astype(np.float64) - samples["baseline_output"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = (sizes / np.abs(change)).astype(np.float32)
    return found[~np.isnan(found)]


def quantiles(file: BinaryIO, *shares: float) -> list[float]:
    """The quantiles at `shares` of the numbers in a file; NaN if there are none.

    They are interpolated linearly, as NumPy's, but between two infinite numbers lies an infinite one, not NaN.

    Args:
        file: float32 numbers, which are sorted where they lie, so that memory need not hold them all.
        shares: which quantiles, each in [0, 1].
    """
    file.flush()
    if not file.tell():
        return [math.nan] * len(shares)
    numbers = np.memmap(file, np.float32, "r+")
    numbers.sort()
    places = np.array(shares) * (len(numbers) - 1)
    low, high = (numbers[place.astype(int)].astype(np.float64) for place in (np.floor(places), np.ceil(places)))
    with np.errstate(invalid="ignore"):
        between = low * (1 - places % 1) + high * (places % 1)
    found: list[float] = np.where((low == high) | (places % 1 == 0), low, between).tolist()
    return found

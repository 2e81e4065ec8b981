"""How complete a cohort's attributions are, and how far they cancel."""

import math
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from deeplift_fast.report.folder import CohortFolder

TOLERANCE = 0.01
"""The largest |convergence delta| of a complete sample, as a share of its change in output."""

LARGEST_FACTOR = 10.0
"""A rescaling factor above this misleads."""

COLUMNS = ("output", "baseline_output", "convergence_delta")
"""The columns of `samples` that `Totals` and `misscaled` read."""


@dataclass(frozen=True)
class Completeness:
    """Totals over samples.

    Attributes:
        samples: number of attributed samples.
        complete: share of samples whose |convergence delta| is at most `TOLERANCE` of |output − baseline output|.
        median_delta: median of |convergence delta|, in logits.
        max_delta: largest |convergence delta|, in logits.
        misscaled: share of samples whose rescaling factor is negative or exceeds `LARGEST_FACTOR`; it matters where the
            rule set rescales.
        failures: number of failed samples, by reason.
        parts: number of finished parts.
        parts_in_all: number of parts of the finished cohort; `None` if unknown.
        median_cancellation: median of `Σ|attribution| / |output − baseline output|`; infinite where half of the samples
            have no change in output; see :func:`cancellation`.
        p90_cancellation: 90th percentile of the same ratio.

    Shares, medians, percentile and maximum are NaN without samples.
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
    """Whether a negative rescaling factor, or one above `LARGEST_FACTOR`, makes a sample's contributions mislead.

    Args:
        output: model output, floating point `[samples]`.
        baseline_output: output at the baseline, of the same shape and dtype.
        convergence_delta: convergence delta before rescaling, of the same shape and dtype.

    Returns:
        bool `[samples]`.
    """
    change = output.astype(np.float64) - baseline_output
    raw = change + convergence_delta
    # The factor is change / raw; raw may be 0, so nothing is divided.
    return (change * raw < 0) | (np.abs(change) > LARGEST_FACTOR * np.abs(raw))


class Totals:
    """Totals over samples, added up part by part.

    Args:
        folder: the cohort; its failures are read here.

    Raises:
        SummaryError: if `failures.parquet` is missing or damaged.
    """

    def __init__(self, folder: CohortFolder) -> None:
        self._failures = folder.failures()
        self._parts, self._parts_in_all = len(folder.parts), folder.expected
        self._samples = self._within = self._misscaled = 0
        self._largest = 0.0

    def add(self, samples: pa.Table) -> np.ndarray:
        """Adds a part's samples, which have the columns `COLUMNS`; returns their |convergence delta|, float32."""
        output, baseline, delta = (samples[name].to_numpy() for name in COLUMNS)
        change = np.abs(output.astype(np.float64) - baseline)
        sizes = np.abs(delta)
        self._samples += len(delta)
        self._within += int((sizes <= TOLERANCE * change).sum())
        self._misscaled += int(misscaled(output, baseline, delta).sum())
        self._largest = max(self._largest, float(sizes.max(initial=0.0)))
        return sizes.astype(np.float32, copy=False)

    def found(self, median_delta: float, median_cancellation: float, p90_cancellation: float) -> Completeness:
        """The totals, with the quantiles that :func:`quantiles` found."""
        count = self._samples
        return Completeness(
            samples=count,
            complete=self._within / count if count else math.nan,
            median_delta=median_delta,
            max_delta=self._largest if count else math.nan,
            misscaled=self._misscaled / count if count else math.nan,
            failures=self._failures,
            parts=self._parts,
            parts_in_all=self._parts_in_all,
            median_cancellation=median_cancellation,
            p90_cancellation=p90_cancellation,
        )


def cancellation(samples: pa.Table, sizes: np.ndarray) -> np.ndarray:
    """The cancellation of each sample's contributions: `Σ|attribution| / |output − baseline output|`, float32.

    Samples where both numbers are 0 have no ratio and are left out.

    Args:
        samples: `output` and `baseline_output` of a part's samples.
        sizes: `Σ|attribution|` of each sample, `[samples]`.
    """
    change = samples["output"].to_numpy().astype(np.float64) - samples["baseline_output"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = (sizes / np.abs(change)).astype(np.float32)
    return found[~np.isnan(found)]


def quantiles(file: BinaryIO, *shares: float) -> list[float]:
    """The quantiles at `shares` of the numbers in a file; NaN if the file is empty.

    Quantiles are interpolated linearly, as by NumPy, except that the middle of two infinite numbers is infinite, not
    NaN.

    Args:
        file: float32 numbers. They are sorted within the file, so that memory need not hold them all.
        shares: positions of the quantiles, each in [0, 1].
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

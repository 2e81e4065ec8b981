"""How far a cohort's contributions cancel: `Σ|attribution| / |output − baseline output|` over samples."""

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np

from deeplift_fast.report.completeness import streaming_quantiles
from deeplift_fast.report.folder import CohortFolder

# Bytes of ratios held in memory (a million samples); more go to a temporary file.
_HELD = 1 << 22
_PIECE = 1 << 18


class Ratios:
    """Each sample's ratio, gathered part by part; a context manager, whose end forgets them."""

    def __init__(self) -> None:
        self._kept = tempfile.SpooledTemporaryFile(_HELD)  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._kept.close()

    def add(self, folder: CohortFolder, part: int, sizes: np.ndarray) -> None:
        """Add a part's samples; those whose ratio is NaN (nothing changed and nothing was attributed) are left out.

        Args:
            folder: the cohort.
            part: the part's number.
            sizes: `Σ|attribution|` of its samples, `[samples]`, in the order of their numbers.

        Raises:
            SummaryError: if the part's file is missing or damaged.
        """
        table = folder.samples(part, ("sample", "output", "baseline_output")).sort_by("sample")
        change = table["output"].to_numpy().astype(np.float64) - table["baseline_output"].to_numpy()
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratios = (sizes / np.abs(change)).astype(np.float32)
        self._kept.write(ratios[~np.isnan(ratios)].tobytes())

    def quantiles(self, *shares: float) -> list[float]:
        """The quantiles at `shares`, interpolated linearly; NaN where there is no sample."""
        return streaming_quantiles(self._pieces, shares)

    def _pieces(self) -> Iterator[np.ndarray]:
        self._kept.seek(0)
        while piece := self._kept.read(_PIECE):
            yield np.frombuffer(piece, dtype=np.float32)

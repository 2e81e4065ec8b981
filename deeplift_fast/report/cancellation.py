"""How far a cohort's contributions cancel: `Σ|attribution| / |output − baseline output|` over samples."""

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from deeplift_fast.report.completeness import streaming_quantiles

# Bytes of numbers held in memory (a million samples); more go to a temporary file.
_HELD = 1 << 22
_PIECE = 1 << 18


def ratios(samples: pa.Table, sizes: np.ndarray) -> np.ndarray:
    """Each sample's ratio, float32; those that are NaN (nothing changed and nothing was attributed) are left out.

    Args:
        samples: `output` and `baseline_output` of a part's samples.
        sizes: `Σ|attribution|` of each, `[samples]`.
    """
    change = samples["output"].to_numpy().astype(np.float64) - samples["baseline_output"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = (sizes / np.abs(change)).astype(np.float32)
    return found[~np.isnan(found)]


class Kept:
    """Numbers of samples, gathered part by part for their quantiles; a context manager, whose end forgets them."""

    def __init__(self) -> None:
        self._kept = tempfile.SpooledTemporaryFile(_HELD)  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._kept.close()

    def add(self, numbers: np.ndarray) -> None:
        """Add numbers that are not negative, float32."""
        self._kept.write(numbers.tobytes())

    def quantiles(self, *shares: float) -> list[float]:
        """The quantiles at `shares`, interpolated linearly; NaN where there is no number."""
        return streaming_quantiles(self._pieces, shares)

    def _pieces(self) -> Iterator[np.ndarray]:
        self._kept.seek(0)
        while piece := self._kept.read(_PIECE):
            yield np.frombuffer(piece, dtype=np.float32)

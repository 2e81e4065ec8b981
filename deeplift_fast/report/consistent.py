"""Reads a cohort's folder in one state, though a run may replace its parts meanwhile."""

import time
from collections.abc import Callable
from pathlib import Path

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.folder import CohortFolder

TRIES = 5
"""Attempts to read a cohort whose parts a run replaces meanwhile."""

PAUSE = 0.3
"""Seconds within which a run's manifest should name a part that it replaced."""


def consistently[T](out: str | Path, read: Callable[[CohortFolder], T]) -> T:
    """The result of reading a folder in one state; it is read again if a run has replaced a part meanwhile.

    Args:
        out: the cohort's folder, a path or an fsspec URL.
        read: reads the folder that it is given, and opens no other.

    Raises:
        SummaryError: as `read` raises it of a folder that no run has changed; or if a run replaces parts faster than
            they are read.
    """
    for _ in range(TRIES):
        folder = CohortFolder(out)
        try:
            found = read(folder)
        except SummaryError:
            time.sleep(PAUSE)  # a part is replaced before its entry in the manifest
            if folder.is_current():
                raise
            continue
        if folder.is_current():
            return found
    raise SummaryError(f"a run replaces parts of {out} faster than they are read; try again later")

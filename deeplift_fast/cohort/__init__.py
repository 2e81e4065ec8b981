"""Attributions of many samples: read, attributed and written part by part; the tables that they become."""

from typing import TYPE_CHECKING, Any

from deeplift_fast.cohort.tables import ATTRIBUTIONS, SAMPLES
from deeplift_fast.errors import CohortError

if TYPE_CHECKING:
    from deeplift_fast.cohort.frames import frame
    from deeplift_fast.cohort.result import Cohort
    from deeplift_fast.cohort.run import attribute_cohort

__all__ = [
    "ATTRIBUTIONS",
    "SAMPLES",
    "Cohort",
    "CohortError",
    "attribute_cohort",
    "frame",
]


def __getattr__(name: str) -> Any:
    # PyHealth takes seconds to import, which the tables alone should not cost.
    if name == "frame":
        from deeplift_fast.cohort.frames import frame

        return frame
    if name not in ("Cohort", "attribute_cohort"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from deeplift_fast.cohort import run

    return getattr(run, name)


def __dir__() -> list[str]:
    return sorted([*globals(), "Cohort", "attribute_cohort", "frame"])

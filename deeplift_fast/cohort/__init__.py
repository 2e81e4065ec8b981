"""Attribution of whole datasets, read, attributed and written to Parquet tables part by part."""

from typing import TYPE_CHECKING, Any

from deeplift_fast.cohort.tables import ATTRIBUTIONS, INTERACTIONS, SAMPLES
from deeplift_fast.errors import CohortError

if TYPE_CHECKING:
    from deeplift_fast.cohort.frames import frame
    from deeplift_fast.cohort.making_caches import make_cache
    from deeplift_fast.cohort.run import Cohort, attribute_cohort

__all__ = [
    "ATTRIBUTIONS",
    "INTERACTIONS",
    "SAMPLES",
    "Cohort",
    "CohortError",
    "attribute_cohort",
    "frame",
    "make_cache",
]


def __getattr__(name: str) -> Any:
    # PyHealth takes seconds to import, and the tables alone do not need it.
    if name == "frame":
        from deeplift_fast.cohort.frames import frame

        return frame
    if name == "make_cache":
        from deeplift_fast.cohort.making_caches import make_cache

        return make_cache
    if name not in ("Cohort", "attribute_cohort"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from deeplift_fast.cohort import run

    return getattr(run, name)


def __dir__() -> list[str]:
    return sorted([*globals(), "Cohort", "attribute_cohort", "frame", "make_cache"])

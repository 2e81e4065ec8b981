"""Summarises a cohort's tables, part by part, and makes HTML pages of them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.grouping import Grouping
from deeplift_fast.report.summary import Summary, summarise

if TYPE_CHECKING:
    from deeplift_fast.report.cohort.page import cohort_page
    from deeplift_fast.report.cohort.patients import patient_pages
    from deeplift_fast.report.patient.page import patient_page

__all__ = ["Grouping", "Summary", "SummaryError", "cohort_page", "patient_page", "patient_pages", "summarise"]

# A summary needs no jinja2.
_PAGES = {
    "cohort_page": "deeplift_fast.report.cohort.page",
    "patient_page": "deeplift_fast.report.patient.page",
    "patient_pages": "deeplift_fast.report.cohort.patients",
}


def __getattr__(name: str) -> Any:
    if name in _PAGES:
        return getattr(import_module(_PAGES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PAGES])

"""Summarises a cohort's tables, part by part, and makes HTML pages of them."""

from typing import TYPE_CHECKING, Any

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.grouping import Grouping
from deeplift_fast.report.summary import Summary, summarise

if TYPE_CHECKING:
    from deeplift_fast.report.patient.page import patient_page

__all__ = ["Grouping", "Summary", "SummaryError", "patient_page", "summarise"]


def __getattr__(name: str) -> Any:
    # A summary needs no jinja2.
    if name == "patient_page":
        from deeplift_fast.report.patient.page import patient_page

        return patient_page
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "patient_page"])

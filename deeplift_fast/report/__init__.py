"""Summarises a cohort's tables, part by part, and makes HTML pages of them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deeplift_fast.errors import SummaryError

if TYPE_CHECKING:
    from deeplift_fast.report.grouping import Grouping
    from deeplift_fast.report.patient.page import patient_page
    from deeplift_fast.report.summary import Summary, summarise

__all__ = ["Grouping", "Summary", "SummaryError", "patient_page", "summarise"]

# Loaded on first use: titles and units of codes are read without PyHealth.
_HOMES = {"Grouping": "grouping", "Summary": "summary", "patient_page": "patient.page", "summarise": "summary"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

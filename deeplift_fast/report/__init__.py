"""Summarises a cohort's tables, part by part."""

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.grouping import Grouping
from deeplift_fast.report.summary import Summary, summarise

__all__ = ["Grouping", "Summary", "SummaryError", "summarise"]

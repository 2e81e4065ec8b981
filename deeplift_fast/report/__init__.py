"""Summarises a cohort's tables, part by part, and makes HTML pages of them."""

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.cohort.page import cohort_page
from deeplift_fast.report.cohort.patients import patient_pages
from deeplift_fast.report.grouping import Grouping
from deeplift_fast.report.patient.page import patient_page
from deeplift_fast.report.summary import Summary, summarise

__all__ = ["Grouping", "Summary", "SummaryError", "cohort_page", "patient_page", "patient_pages", "summarise"]

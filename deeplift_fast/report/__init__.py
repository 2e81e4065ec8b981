"""What a cohort's tables say, computed by streaming over their parts."""

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.grouping import Grouping
from deeplift_fast.report.summary import Summary, summarise

__all__ = ["Grouping", "Summary", "SummaryError", "summarise"]

"""The lines of a summary about pairs of codes that act together."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from deeplift_fast.report.grouping import EMPTY
from deeplift_fast.report.layout import Cells
from deeplift_fast.report.layout import table as lines_of
from deeplift_fast.support.printable import printable

HEADING = "Pairs of codes that act together"
MEANS = (
    "a pair's interaction is the change in logits that two codes make together, beyond the changes that each makes "
    "without the other; its samples are those in which both codes are among the strongest"
)
"""What the numbers of pairs mean, as a note."""

_SORTS = {"mean_abs": "mean |interaction|", "mean": "mean interaction", "count": "samples"}
_SORTED = {"mean_abs": "mean |i|", "mean": "mean", "count": "samples"}


def block(place: str, rows: pd.DataFrame, sort: str, min_samples: int, width: int) -> tuple[str, list[str]]:
    """The heading and the lines of a group's pairs; no lines where there are no pairs.

    Args:
        place: the heading's beginning.
        rows: rows of :attr:`deeplift_fast.report.summary.Summary.pairs`.
        sort: the column that they are sorted by: `"mean_abs"`, `"mean"` or `"count"`.
        min_samples: the smallest number of samples of a row.
        width: columns of the terminal.
    """
    if rows.empty:
        return f"{place}: no two are among the strongest of {min_samples} samples or more", []
    each = list(rows.itertuples(index=False))
    cells = [Cells(name, tuple(text(row) for row in each), name in _NAMES) for name, text in _COLUMNS.items()]
    heading = f"{place}: the first {len(rows)} by {_SORTS[sort]}"
    return heading, lines_of(cells, list(map(_described, each)), width, (_SORTED[sort], "mean", "95 % interval"))


def shown(code: object) -> str:
    """A code as a table shows it."""
    return printable(code) if str(code).strip() else EMPTY


def interval(row: Any) -> str:
    """The 95 % interval of a row's mean."""
    return "too few patients" if pd.isna(row.low) else f"{row.low:+.3g} … {row.high:+.3g}"


def _described(row: Any) -> str:
    """The titles of both codes, as far as they are known."""
    first = _title(row.first_description, row.first_ambiguous, row.first_code)
    second = _title(row.second_description, row.second_ambiguous, row.second_code)
    return printable(f"{first or row.first_code} + {second or row.second_code}") if first or second else ""


def _title(text: str | None, ambiguous: bool, code: str) -> str:
    return "" if text is None or text == code else f"(?) {text}" if ambiguous else text


_NAMES = ("first feature", "first code", "second feature", "second code")

_COLUMNS: dict[str, Callable[[Any], str]] = {
    "first feature": lambda row: printable(row.first_feature),
    "first code": lambda row: shown(row.first_code),
    "second feature": lambda row: printable(row.second_feature),
    "second code": lambda row: shown(row.second_code),
    "samples": lambda row: f"{row.samples:,}",
    "mean": lambda row: f"{row.mean:+.3g}",
    "95 % interval": interval,
    "mean |i|": lambda row: f"{row.mean_abs:.3g}",
    "positive": lambda row: f"{row.share_positive:.0%}",
}

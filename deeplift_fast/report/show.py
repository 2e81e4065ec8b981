"""Prints a summary as tables of aggregates, never one patient's data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from deeplift_fast.report import pair_lines
from deeplift_fast.report.completeness import LARGEST_FACTOR, TOLERANCE, Completeness
from deeplift_fast.report.layout import Cells, wrapped
from deeplift_fast.report.layout import table as lines_of
from deeplift_fast.report.summary import Summary
from deeplift_fast.report.titles import Title
from deeplift_fast.support.printable import printable

Column = Callable[[Any], str]
"""Makes the text of one column from a row, a named tuple."""

MIN_SAMPLES = 10

PIPED = 80
"""Columns of lines that go to a file or a program, unless the variable COLUMNS says otherwise."""

_MEANS = (
    "means are over attributions, in logits (a code twice in a visit counts twice, a value counts where it was "
    "measured); intervals are over patients"
)
_SORTS = {"mean_abs": "mean |attribution|", "mean": "mean attribution", "count": "count"}
_GROUP = 120
"""Columns of the terminal of a group's name; longer ones end in "…"."""

_SORTED = {"mean_abs": "mean |a|", "mean": "mean", "count": "count"}
_KINDS = {"code": "Codes", "value": "Labs and other values"}


def show(
    summary: Summary, console: Console, top: int = 15, sort: str = "mean_abs", min_samples: int = MIN_SAMPLES
) -> None:
    """Prints a summary in lines that fit the console.

    Numbers are whole. Titles and units follow on lines of their own, and those of more than
    `deeplift_fast.report.layout.MOST_LINES` lines end in "…". A column that is the same in each row is said once.

    Args:
        summary: the summary.
        console: the console to print on.
        top: number of rows of each table.
        sort: column to sort by: `"mean_abs"`, `"mean"` or `"count"`.
        min_samples: smallest number of samples that carry a shown code or value.
    """
    width = console.width

    def say(text: str, style: str = "", indent: int = 2) -> None:
        for line in wrapped(text, width, indent=min(indent, width // 3)):
            console.print(Text(line), style=style, soft_wrap=True)

    for label, value in _overview(summary):
        say(f"  {label:19}{value}" if label else value, "" if label else "bold", 21 if label else 2)
    for grouping, group in summary.table[["grouping", "group"]].drop_duplicates().itertuples(index=False):
        for kind in _KINDS:
            if summary.table[(summary.table["grouping"] == grouping) & (summary.table["kind"] == kind)].empty:
                continue
            place = _place(_KINDS[kind], grouping, group)
            rows = summary.top(kind, grouping, group, top, sort, min_samples)
            say("")
            if rows.empty:
                say(f"{place}: none is carried by {min_samples} samples or more; --min-samples sets this number")
                continue
            say(f"{place}: the first {len(rows)} by {_SORTS[sort]}", "bold")
            for line in table(rows, list(COLUMNS), width, _SORTED[sort]):
                console.print(Text(line), soft_wrap=True)
        if summary.pairs is not None:
            place = _place(pair_lines.HEADING, grouping, group)
            rows = summary.top_pairs(grouping, group, top, sort, min_samples)
            heading, lines = pair_lines.block(place, rows, sort, min_samples, width)
            say("")
            say(heading, "bold" if lines else "")
            for line in lines:
                console.print(Text(line), soft_wrap=True)
    say("")
    for note in (*summary.notes, _MEANS, *([] if summary.pairs is None else [pair_lines.MEANS])):
        say(f"Note: {printable(note)}.")


def _overview(summary: Summary) -> Iterator[tuple[str, str]]:
    """Labels and texts of the first lines; the heading has no label."""
    found = summary.completeness
    yield "", f'Cohort {printable(summary.out)}, rules="{printable(summary.rules)}"'
    yield "relative to", printable(summary.baseline)
    yield "parts done", _parts(found)
    failed = sum(found.failures.values())
    yield "samples", f"{found.samples:,} attributed, {failed:,} failed"
    for reason, count in found.failures.items():
        yield f"  {count:,} failed", printable(reason)
    if difference := difference_of(summary.prediction_difference):
        yield "model(**batch)", f"{difference} (docs/models.md)"
    if not found.samples:
        return
    yield "complete", f"{found.complete:.1%} of samples have |delta| ≤ {TOLERANCE:.0%} of the change"
    yield "|delta|, logits", f"median {found.median_delta:.3g}, largest {found.max_delta:.3g}"
    yield (
        "Σ|a| / |change|",
        f"median {found.median_cancellation:.3g}, 90th percentile {found.p90_cancellation:.3g}. Far above 1, large "
        "attributions of both signs cancel, and a single one says little; it is also large wherever the change is "
        "near 0.",
    )
    if summary.rules in ("rescale", "pyhealth"):
        yield (
            "rescaled",
            f"{found.misscaled:.1%} by a negative factor or more than {LARGEST_FACTOR:g} times: their signs and sizes "
            "mislead",
        )


def difference_of(found: dict[str, Any] | None) -> str:
    """The difference between the model's own output and the explained one; empty without a difference."""
    if found is None or not (found["differing"] or found["failure"]):
        return ""
    if not found["differing"]:
        return f"fails ({printable(found['failure'])}), so the explained output was not compared with it"
    size = "an output that is not finite" if found["logit"] is None else f"up to {found['logit']:.3g} in logit"
    probability = "" if found["probability"] is None else f" and {found['probability']:.3g} in probability"
    return (
        f"differs from the explained output by {size}{probability}, for {found['differing']:,} of "
        f"{found['samples']:,} samples compared"
    )


def _parts(found: Completeness) -> str:
    if found.parts_in_all is None:
        return f"{found.parts:,}"
    running = "" if found.parts == found.parts_in_all else " (not finished)"
    return f"{found.parts:,} of {found.parts_in_all:,}{running}"


def _place(heading: str, grouping: str, group: str) -> str:
    if grouping == "overall":
        return heading
    name, value = (wrapped(printable(text), _GROUP, 1)[0] for text in (grouping, group))
    return f"{heading}, {name} = {value}"


def table(
    rows: pd.DataFrame, columns: Sequence[str], width: int, keep: str, more: Mapping[str, Column] | None = None
) -> list[str]:
    """Lines of a table of a summary's rows, in which titles of codes and units follow on lines of their own.

    Args:
        rows: rows of :attr:`Summary.table`.
        columns: names of columns, from `COLUMNS` or `more`.
        width: columns of the terminal.
        keep: the column that rows are sorted by.
        more: further columns, by name.
    """
    known = {**COLUMNS, **(more or {})}
    each = list(rows.itertuples(index=False))
    cells = [Cells(name, tuple(known[name](row) for row in each), name in NAMES) for name in columns]
    return lines_of(cells, [_described(row) for row in each], width, (keep, "mean", "95 % interval"))


def _described(row: Any) -> str:
    """Title, unit and reference range of a code or dimension; empty if none is known."""
    low, high = (None if pd.isna(end) else float(end) for end in (row.ref_low, row.ref_high))
    measure = Title("", False, row.unit, low, high, bool(row.mixed)).measure
    text = "" if row.description is None or row.description == row.code else row.description
    return printable(("(?) " if row.ambiguous else "") + ", ".join(filter(None, (text, measure))))


NAMES = ("feature", "code")
"""Columns of names, which may take several lines."""

COLUMNS: dict[str, Column] = {
    "feature": lambda row: printable(row.feature),
    "code": lambda row: pair_lines.shown(row.code),
    "count": lambda row: f"{row.count:,}",
    "samples": lambda row: f"{row.samples:,}",
    "mean": lambda row: f"{row.mean:+.3g}",
    "95 % interval": pair_lines.interval,
    "mean |a|": lambda row: f"{row.mean_abs:.3g}",
    "positive": lambda row: f"{row.share_positive:.0%}",
}
"""The columns, by name."""

"""Prints a summary as tables of aggregates, never one patient's data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from deeplift_fast.report.completeness import LARGEST_FACTOR, TOLERANCE, Completeness
from deeplift_fast.report.summary import Summary
from deeplift_fast.support.printable import printable

Column = Callable[[Any], str | Text]
"""Makes the text of one column from a row, a named tuple."""

MIN_SAMPLES = 10

_WIDE = 400  # width without a terminal, so that files and other programs get whole lines

_MEANS = (
    "means are over attributions, in logits (a code twice in a visit counts twice, a value counts where it was "
    "measured); intervals are over patients"
)
_SORTS = {"mean_abs": "mean |attribution|", "mean": "mean attribution", "count": "count"}
_KINDS = {"code": "Codes", "value": "Labs and other values"}


def show(
    summary: Summary, console: Console, top: int = 15, sort: str = "mean_abs", min_samples: int = MIN_SAMPLES
) -> None:
    """Prints a summary.

    Args:
        summary: the summary.
        console: the console to print on.
        top: number of rows of each table.
        sort: column to sort by: `"mean_abs"`, `"mean"` or `"count"`.
        min_samples: smallest number of samples that carry a shown code or value.
    """
    if not console.is_terminal:
        console.width = _WIDE
    console.print(Group(*_overview(summary)))
    for grouping, group in summary.table[["grouping", "group"]].drop_duplicates().itertuples(index=False):
        for kind in _KINDS:
            present = summary.table[(summary.table["grouping"] == grouping) & (summary.table["kind"] == kind)]
            if present.empty:
                continue
            rows = summary.top(kind, grouping, group, top, sort, min_samples)
            console.print()
            described = summary.described and bool(present["description"].notna().any())
            if rows.empty:
                console.print(
                    Text(f"{_place(kind, grouping, group)}: none is carried by {min_samples} samples or more")
                )
                continue
            columns = [name for name in COLUMNS if described or name != "description"]
            shown = table(rows, columns)
            heading = f"{_place(kind, grouping, group)}: the first {len(rows)} by {_SORTS[sort]}"
            shown.title = Text(heading, style="bold")
            console.print(shown)
    console.print()
    for note in (*summary.notes, _MEANS):
        console.print(Text(f"Note: {printable(note)}."))


def _overview(summary: Summary) -> Iterator[Text]:
    found = summary.completeness
    yield Text(f'Cohort {printable(summary.out)}, rules="{printable(summary.rules)}"', style="bold")
    yield Text(f"  relative to        {printable(summary.baseline)}")
    yield Text(f"  parts done         {_parts(found)}")
    failed = sum(found.failures.values())
    yield Text(f"  samples            {found.samples:,} attributed, {failed:,} failed")
    for reason, count in found.failures.items():
        yield Text(f"    {count:,}: {printable(reason)}")
    if difference := difference_of(summary.prediction_difference):
        yield Text(f"  model(**batch)     {difference} (docs/models.md)")
    if not found.samples:
        return
    yield Text(f"  complete           {found.complete:.1%} of samples have |delta| ≤ {TOLERANCE:.0%} of the change")
    yield Text(f"  |delta|, logits    median {found.median_delta:.3g}, largest {found.max_delta:.3g}")
    yield Text(
        f"  Σ|a| / |change|    median {found.median_cancellation:.3g}, 90th percentile {found.p90_cancellation:.3g}\n"
        "    Far above 1, large attributions of both signs cancel, and a single one says little; it is also large "
        "wherever the change is near 0."
    )
    if summary.rules in ("rescale", "pyhealth"):
        yield Text(
            f"  rescaled           {found.misscaled:.1%} by a negative factor or more than {LARGEST_FACTOR:g} times: "
            "their signs and sizes mislead"
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


def _place(kind: str, grouping: str, group: str) -> str:
    return _KINDS[kind] if grouping == "overall" else f"{_KINDS[kind]}, {printable(grouping)} = {printable(group)}"


def table(rows: pd.DataFrame, columns: Sequence[str], more: Mapping[str, Column] | None = None) -> Table:
    """Rows of a summary's table, ready to print.

    Args:
        rows: rows of :attr:`Summary.table`.
        columns: names of columns, from `COLUMNS` or `more`.
        more: further columns, by name.
    """
    known = {**COLUMNS, **(more or {})}
    shown = Table(title_justify="left", box=None, pad_edge=False)
    for name in columns:
        left = name in ("feature", "code", "description")
        # On a narrow terminal only descriptions are cut.
        shown.add_column(name, justify="left" if left else "right", no_wrap=name != "description")
    for row in rows.itertuples(index=False):
        shown.add_row(*(known[name](row) for name in columns))
    return shown


def _interval(row: Any) -> str:
    return "too few patients" if pd.isna(row.low) else f"{row.low:+.3g} … {row.high:+.3g}"


def _description(row: Any) -> Text:
    known = printable(row.description or "")
    return Text(f"(?) {known}" if row.ambiguous else known, no_wrap=True, overflow="ellipsis")


COLUMNS: dict[str, Column] = {
    "feature": lambda row: Text(printable(row.feature)),
    "code": lambda row: Text(printable(row.code)),
    "count": lambda row: f"{row.count:,}",
    "samples": lambda row: f"{row.samples:,}",
    "mean": lambda row: f"{row.mean:+.3g}",
    "95 % interval": _interval,
    "mean |a|": lambda row: f"{row.mean_abs:.3g}",
    "positive": lambda row: f"{row.share_positive:.0%}",
    "description": _description,
}
"""The columns, by name."""

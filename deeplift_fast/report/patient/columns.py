"""The columns of a patient's timeline: stays, else days, times or steps; the newest have one each."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from deeplift_fast.report.formats import count, cut, day
from deeplift_fast.report.patient.rows import Row, Sample
from deeplift_fast.support.numbers import short

MOST = 24
"""Columns of their own; older ones share one more."""


@dataclass(frozen=True)
class Column:
    """A column of a timeline.

    Attributes:
        head: its day, time or step.
        label: the stay's label; empty where there is none.
        rows: the rows in it, oldest first.
        older: how many older columns share it; 0 for a column of its own.
    """

    head: str
    label: str
    rows: tuple[Row, ...]
    older: int = 0


@dataclass(frozen=True)
class Columns:
    """The columns of a timeline, oldest first.

    Attributes:
        each: the columns.
        kind: what one is, such as "stay".
        explained: what the heads mean, as a sentence.
    """

    each: tuple[Column, ...]
    kind: str
    explained: str


def moment_of(row: Row, columns: Columns) -> str:
    """When a row was: "day 12", "time 3.5", "step 4", or its stay; empty where not known."""
    if row.day is not None:
        return day(row.day)
    if columns.kind == "stay":
        label = next((column.label or column.head for column in columns.each if row in column.rows), "")
        return label if label.startswith("stay") or not label else f"stay {label}"
    if columns.kind == "time" and row.time is not None:
        return f"time {short(row.time)}"
    return f"step {row.step + 1}" if columns.kind == "step" else ""


def columns_of(sample: Sample, names_stays: bool = True) -> Columns:
    """The columns of a sample's rows.

    Args:
        sample: the sample.
        names_stays: whether stays are called by their labels; otherwise by their number, counted from 1.
    """
    rows = sample.rows
    if any(row.stay is not None for row in rows):
        return _stays(sample, names_stays)
    if any(row.day is not None for row in rows):
        explained = "Each column is a day, counted from the patient's first record."
        return _grouped(rows, lambda row: None if row.day is None else math.floor(row.day), day, "day", explained)
    if _all_timed(rows):
        explained = (
            "Each column is a time as the model was given it: the data do not say in what unit, nor whether it counts "
            "from the first record or from the step before."
        )
        return _grouped(rows, lambda row: row.time, lambda time: f"time {short(time)}", "time", explained)
    explained = (
        "Each column is a step: a place in the sequence of its feature. The data do not say when it was, and equal "
        "steps of two features may be different times."
    )
    return _grouped(rows, lambda row: row.step, lambda step: f"step {int(step) + 1}", "step", explained)


def _all_timed(rows: tuple[Row, ...]) -> bool:
    """Whether every feature of several steps has times, and any has."""
    steps: dict[str, set[int]] = {}
    for row in rows:
        steps.setdefault(row.feature, set()).add(row.step)
    timed = any(row.time is not None for row in rows)
    return timed and all(row.time is not None for row in rows if len(steps[row.feature]) > 1)


def _stays(sample: Sample, names: bool) -> Columns:
    begins: dict[str, float] = {label: math.nan if begin is None else begin for label, begin in sample.stays}
    for row in sample.rows:
        if row.stay is not None and math.isnan(begins.setdefault(row.stay, math.nan)) and row.day is not None:
            begins[row.stay] = row.day
    dated = not any(map(math.isnan, begins.values()))
    order = sorted(begins, key=lambda label: begins[label]) if dated else list(begins)
    inside: dict[str, list[Row]] = {label: [] for label in order}
    outside: list[Row] = []
    for row in sample.rows:
        (outside if row.stay is None else inside[row.stay]).append(row)
    found = [
        Column(
            "no date" if math.isnan(begins[label]) else day(begins[label]),
            cut(label, 24) if names else f"stay {number + 1}",
            tuple(inside[label]),
        )
        for number, label in enumerate(order)
    ]
    explained = "Each column is a stay, under the day on which it began, counted from the patient's first record."
    if not dated:
        explained = "Each column is a stay, in the order of the data, which do not say when all of them began."
    return Columns(_folded(found, outside, "stay", "outside stays"), "stay", explained)


def _grouped(
    rows: tuple[Row, ...],
    place: Callable[[Row], float | None],
    head: Callable[[float], str],
    kind: str,
    explained: str,
) -> Columns:
    inside: dict[Hashable, list[Row]] = {}
    outside: list[Row] = []
    for row in rows:
        found = place(row)
        (outside if found is None else inside.setdefault(found, [])).append(row)
    known: list[float] = sorted(inside)  # type: ignore[type-var, arg-type]
    each = [Column(head(at), "", tuple(inside[at])) for at in known]
    return Columns(_folded(each, outside, kind, "no date"), kind, explained)


def _folded(each: list[Column], outside: list[Row], kind: str, undated: str) -> tuple[Column, ...]:
    """The newest columns, before them one of the older ones, and before all what has no place in time."""
    older, newest = each[:-MOST], each[-MOST:]
    found = [Column(undated, "", tuple(outside))] if outside else []
    if older:
        rows = tuple(row for column in older for row in column.rows)
        found.append(Column(f"to {older[-1].head}", count(len(older), f"older {kind}"), rows, len(older)))
    return (*found, *newest)

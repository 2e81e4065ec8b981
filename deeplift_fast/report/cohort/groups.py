"""Mean contributions by label and by other groups: a table with a column per group."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from deeplift_fast.report.cohort.lines import FEWEST, KINDS, detail_of, interval_of, title_of
from deeplift_fast.report.colour_classes import shade
from deeplift_fast.report.formats import cut
from deeplift_fast.report.grouping import EVERYONE
from deeplift_fast.report.summary import SPECIAL
from deeplift_fast.report.titles import Titles
from deeplift_fast.support.colours import Scale
from deeplift_fast.support.numbers import Numbers

ACROSS = 6
"""Groups that stand beside each other; more go into further tables."""

TOP, MOST = 10, 20
"""Rows of each group that are shown, and of a table in all."""

MOST_TABLES = 40


@dataclass(frozen=True)
class Cell:
    """The mean contribution of a group: number, texts of mean, interval and samples, and its colour."""

    mean: float
    text: str
    interval: str
    samples: int
    style: str


@dataclass(frozen=True)
class Row:
    """A code or value: title, detail, and a cell per group, `None` where too few have it."""

    title: str
    detail: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class GroupTable:
    """A table.

    Attributes:
        heading: what groups differ by, the kind of rows, and the target where there are several.
        heads: names of the groups.
        rows: its rows, those with the largest mean |contribution| in any group first.
        limit: the mean of the darkest cell, as text.
        hidden: number of cells that are left out because too few have the code.
    """

    heading: str
    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    limit: str
    hidden: int


def tables_of(
    by_group: pd.DataFrame, titles: Titles, fewest_patients: int, most: int = MOST_TABLES
) -> tuple[tuple[GroupTable, ...], int]:
    """The tables, and how many more there are.

    Args:
        by_group: as :attr:`deeplift_fast.report.summary.Summary.by_group`.
        titles: titles of codes.
        fewest_patients: cells of fewer patients are left out, as are those of fewer samples than `FEWEST`.
        most: the largest number of tables.
    """
    table = by_group[(by_group["grouping"] != EVERYONE.name) & ~by_group["code"].isin(SPECIAL)]
    found = list(_tables(table, titles, fewest_patients))
    return tuple(found[:most]), max(0, len(found) - most)


def _tables(table: pd.DataFrame, titles: Titles, fewest: int) -> Iterator[GroupTable]:
    several = table["target"].nunique() > 1
    for (grouping, target, kind), part in table.groupby(["grouping", "target", "kind"], sort=False):
        enough = (part["samples"] >= FEWEST) & (part["patients"] >= fewest)
        known, hidden = part[enough], int((~enough).sum())
        groups = known["group"].drop_duplicates().tolist()
        heading = f"{KINDS[kind]} by {cut(grouping, 60)}" + (f", target {target}" if several else "")
        for first in range(0, len(groups), ACROSS):
            heads = groups[first : first + ACROSS]
            yield _table(known[known["group"].isin(heads)], grouping, heads, heading, titles, hidden)


def _table(
    known: pd.DataFrame, grouping: str, heads: list[str], heading: str, titles: Titles, hidden: int
) -> GroupTable:
    ordered = known.sort_values(["mean_abs", "feature", "code"], ascending=[False, True, True])
    keys = ordered.groupby("group").head(TOP)[["feature", "code"]].drop_duplicates().head(MOST)
    shown = known.merge(keys, on=["feature", "code"])
    scale = Scale.of(shown["mean"].to_numpy())
    numbers = Numbers(scale.limit, 3)
    cells = {
        (row.feature, row.code, row.group): Cell(
            row.mean,
            numbers.signed(row.mean),
            interval_of(row.low, row.high, numbers),
            row.samples,
            shade(row.mean, scale.limit),
        )
        for row in shown.itertuples(index=False)
    }
    rows = tuple(
        Row(
            title_of(titles, feature, code),
            detail_of(titles.find(feature, code), feature, code),
            tuple(cells.get((feature, code, head)) for head in heads),
        )
        for feature, code in keys.itertuples(index=False)
    )
    return GroupTable(heading, tuple(cut(f"{grouping} {head}", 40) for head in heads), rows, f"{scale.limit:g}", hidden)

"""The rows of a cohort's page: a code or value with its numbers and its distribution."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deeplift_fast.report.cohort.swarm import Swarm, swarm_of
from deeplift_fast.report.colour_classes import sign
from deeplift_fast.report.formats import cut
from deeplift_fast.report.summary import SPECIAL
from deeplift_fast.report.titles import Title, Titles
from deeplift_fast.support.colours import Scale
from deeplift_fast.support.numbers import Numbers

KINDS = {"code": "Codes", "value": "Labs and other values"}
FEWEST = 10
"""Samples, and on a pseudonymous page patients, below which a row is left out."""

Points = Mapping[tuple[int, str, str], pd.DataFrame]


@dataclass(frozen=True)
class Line:
    """A row.

    Attributes:
        title: what it is called.
        detail: code, feature, unit and reference range.
        samples: number of samples.
        patients: number of patients.
        mean: mean contribution, as number and as text with sign and mark.
        interval: its interval, as text.
        mean_abs: mean |contribution|, as number and as text.
        style: "p", "n" or "".
        quantiles: the 5 %, 50 % and 95 % quantiles, as text.
        median: the median, as number.
        swarm: the distribution.
        levels: the medians of samples with low and high values, as text; empty for codes.
    """

    title: str
    detail: str
    samples: int
    patients: int
    mean: tuple[float, str]
    interval: str
    mean_abs: tuple[float, str]
    style: str
    quantiles: tuple[str, str, str]
    median: float
    swarm: Swarm
    levels: str


@dataclass(frozen=True)
class Block:
    """A table of codes, or of values.

    Attributes:
        heading: "Codes" or "Labs and other values", with the target where there are several.
        lines: the rows with the largest mean |contribution|, the largest first.
        known: number of rows that could be shown.
        hidden: number of rows of too few samples or patients.
        limit: the contribution at the ends of the axis, as text.
        is_valued: whether dots have the colours of values.
    """

    heading: str
    lines: tuple[Line, ...]
    known: int
    hidden: int
    limit: str
    is_valued: bool


def blocks_of(
    table: pd.DataFrame, points: Points, titles: Titles, fewest_patients: int, rows: int, most_points: int
) -> tuple[Block, ...]:
    """The tables, by target and kind.

    Args:
        table: as :attr:`deeplift_fast.report.distribution.CohortTable.table`.
        points: as :attr:`deeplift_fast.report.summary.Summary.points`.
        titles: titles of codes.
        fewest_patients: rows of fewer patients are left out, as are those of fewer samples than `FEWEST`.
        rows: the largest number of rows in all tables together.
        most_points: the largest number of dots of a row.
    """
    table = table[~table["code"].isin(SPECIAL)]
    several = table["target"].nunique() > 1
    parts = [
        (f"{KINDS[kind]}, target {target}" if several else KINDS[kind], part)
        for (target, kind), part in table.groupby(["target", "kind"])
    ]
    each = max(1, min(100, rows // max(1, len(parts))))
    return tuple(_block(heading, part, points, titles, fewest_patients, each, most_points) for heading, part in parts)


def _block(
    heading: str, table: pd.DataFrame, points: Points, titles: Titles, fewest: int, rows: int, most_points: int
) -> Block:
    known = table[(table["samples"] >= FEWEST) & (table["patients"] >= fewest)]
    shown = known.sort_values(["mean_abs", "feature", "code"], ascending=[False, True, True]).head(rows)
    ends = shown[["q01", "q99", "low", "high"]].to_numpy()
    scale = Scale.of(ends[np.isfinite(ends)])
    means = shown[["mean", "low", "high", "mean_abs"]].abs().to_numpy()
    numbers = Numbers(float(np.nanmax(means, initial=0.0)), 3), Numbers(scale.limit, 3)
    drawn = [(row, points[row.target, row.feature, row.code]) for row in shown.itertuples(index=False)]
    lines = tuple(_line(row, mine, titles, scale.limit, numbers, most_points) for row, mine in drawn)
    is_valued = any(level in ("low", "middle", "high") for line in lines for level, _ in line.swarm.paths)
    return Block(heading, lines, len(known), len(table) - len(known), f"{scale.limit:g}", is_valued)


def _line(row, points, titles: Titles, limit: float, numbers: tuple[Numbers, Numbers], most: int) -> Line:  # type: ignore[no-untyped-def]
    swarm = swarm_of(points, limit, row.mean, (row.low, row.high), most)
    means, sums = numbers
    return Line(
        title=title_of(titles, row.feature, row.code),
        detail=detail_of(titles.find(row.feature, row.code), row.feature, row.code),
        samples=row.samples,
        patients=row.patients,
        mean=(row.mean, means.signed(row.mean)),
        interval=interval_of(row.low, row.high, means),
        mean_abs=(row.mean_abs, means.level(row.mean_abs)),
        style=sign(row.mean),
        quantiles=(sums.plain(row.q05), sums.plain(row.q50), sums.plain(row.q95)),
        median=row.q50,
        swarm=swarm,
        levels="; ".join(f"{level} values {sums.plain(median)}" for level, median in swarm.text),
    )


def title_of(titles: Titles, feature: str, code: str) -> str:
    """What a code is called: its title, marked (?) if several fit; else itself."""
    found = titles.find(feature, code)
    return code if found is None else f"(?) {found.text}" if found.ambiguous else found.text


def detail_of(found: Title | None, feature: str, code: str) -> str:
    """Code, feature, unit and reference range of a row, as far as they are not its title."""
    named = "" if found is None or found.text == code else f"{cut(code, 40)}, "
    unit = "" if found is None or found.unit is None else f", {found.unit}"
    between = f", reference {found.range}" if found is not None and found.range else ""
    return f"{named}{cut(feature, 40)}{unit}{between}"


def interval_of(low: float, high: float, numbers: Numbers) -> str:
    """A 95 % interval as text."""
    return "too few patients" if np.isnan(low) else f"{numbers.plain(low)} … {numbers.plain(high)}"

"""The pairs of codes that act together most, for the cohort's page."""

from dataclasses import dataclass

import pandas as pd

from deeplift_fast.report.cohort.lines import FEWEST, detail_of, interval_of, title_of
from deeplift_fast.report.colour_classes import sign
from deeplift_fast.report.grouping import EVERYONE
from deeplift_fast.report.summary import SPECIAL
from deeplift_fast.report.titles import Titles
from deeplift_fast.support.numbers import Numbers

TOP = 20
"""Pairs of a table."""

MOST_TABLES = 5
"""Tables: one, or one for each target."""


@dataclass(frozen=True)
class Code:
    """What a code is called, and more about it."""

    title: str
    detail: str


@dataclass(frozen=True)
class PairLine:
    """A row.

    Attributes:
        first: the first code.
        second: the second code.
        samples: number of samples in which both are among the strongest codes.
        patients: number of their patients.
        mean: mean interaction, as number and as text with sign and mark.
        interval: its interval, as text.
        mean_abs: mean |interaction|, as number and as text.
        style: "p", "n" or "".
    """

    first: Code
    second: Code
    samples: int
    patients: int
    mean: tuple[float, str]
    interval: str
    mean_abs: tuple[float, str]
    style: str


@dataclass(frozen=True)
class PairTable:
    """A table: the target where there are several, and its rows, those with the largest mean |interaction| first."""

    target: str
    lines: tuple[PairLine, ...]


def pair_tables(pairs: pd.DataFrame | None, titles: Titles, fewest_patients: int) -> tuple[PairTable, ...] | None:
    """The tables of pairs; `None` for a cohort without interactions.

    Args:
        pairs: as :attr:`deeplift_fast.report.summary.Summary.pairs`.
        titles: titles of codes.
        fewest_patients: rows of fewer patients are left out, as are those of fewer samples than `FEWEST`.
    """
    if pairs is None:
        return None
    known = pairs[(pairs["samples"] >= FEWEST) & (pairs["patients"] >= fewest_patients)]
    known = known[~known["first_code"].isin(SPECIAL) & ~known["second_code"].isin(SPECIAL)]
    known = known[known["grouping"].isin([EVERYONE.name, "target"])]
    groups = known["group"].drop_duplicates().tolist()[:MOST_TABLES]
    return tuple(
        PairTable(
            "" if (known["grouping"] == EVERYONE.name).any() else group, _lines(known[known["group"] == group], titles)
        )
        for group in groups
    )


def _lines(rows: pd.DataFrame, titles: Titles) -> tuple[PairLine, ...]:
    shown = rows.head(TOP)
    numbers = Numbers(float(shown["mean_abs"].max()), 3)

    def code(feature: str, text: str) -> Code:
        return Code(title_of(titles, feature, text), detail_of(titles.find(feature, text), feature, text))

    return tuple(
        PairLine(
            first=code(row.first_feature, row.first_code),
            second=code(row.second_feature, row.second_code),
            samples=row.samples,
            patients=row.patients,
            mean=(row.mean, numbers.signed(row.mean)),
            interval=interval_of(row.low, row.high, numbers),
            mean_abs=(row.mean_abs, numbers.level(row.mean_abs)),
            style=sign(row.mean),
        )
        for row in shown.itertuples(index=False)
    )

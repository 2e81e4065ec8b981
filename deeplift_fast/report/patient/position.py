"""Where a patient lies among the cohort's samples that have the same code or dimension."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplift_fast.report.colour_classes import sign
from deeplift_fast.report.formats import count
from deeplift_fast.report.patient.items import Item
from deeplift_fast.support.numbers import Numbers

SHARES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
"""The quantiles of the cohort's table, in percent: its columns `q00` to `q100`."""

FEWEST = 10
"""Patients below which a pseudonymous page says nothing of a code."""


@dataclass(frozen=True)
class Position:
    """One code or dimension; places are percents of the width, all on one scale.

    Attributes:
        title: what it is called.
        text: the position in words.
        low: the place of the 5 % quantile.
        high: the place of the 95 % quantile.
        first: the place of the first quartile.
        third: the place of the third.
        median: the place of the median.
        zero: the place of 0.
        own: the patient's place.
        style: "p" or "n".
    """

    title: str
    text: str
    low: float
    high: float
    first: float
    third: float
    median: float
    zero: float
    own: float
    style: str


def positions_of(items: Sequence[Item], table: Any, target: int, fewest: int = 1) -> tuple[Position, ...]:
    """The positions of a patient's items.

    Args:
        items: the items.
        table: the cohort's table, a pandas data frame: see `deeplift_fast.report.cohort_table`.
        target: the explained target.
        fewest: items that fewer patients have are left out.
    """
    rows = {(row.feature, row.code): row for row in table[table["target"] == target].itertuples(index=False)}
    known = [(item, rows.get((item.feature, item.code))) for item in items]
    each = [(item, row, [float(getattr(row, f"q{share:02d}")) for share in SHARES]) for item, row in known if row]
    each = [(item, row, quantiles) for item, row, quantiles in each if row.patients >= fewest]
    if not each:
        return ()
    ends = [0.0]
    for item, _, quantiles in each:
        ends += [item.attribution, quantiles[2], quantiles[8]]
    low, spread = min(ends), (max(ends) - min(ends)) or 1.0

    def at(value: float) -> float:
        return round(2 + 96 * (value - low) / spread, 2)

    numbers = Numbers(max(map(abs, ends)) or 1.0, 2)
    return tuple(
        Position(
            item.title,
            _text(item, row, quantiles, numbers),
            low=at(quantiles[2]),
            high=at(quantiles[8]),
            first=at(quantiles[4]),
            third=at(quantiles[6]),
            median=at(quantiles[5]),
            zero=at(0),
            own=at(item.attribution),
            style=sign(item.attribution),
        )
        for item, row, quantiles in each
    )


def _text(item: Item, row: Any, quantiles: Sequence[float], numbers: Numbers) -> str:
    of = f"{count(row.patients, 'patient')} with it"
    median = f"their median is {numbers.plain(quantiles[5])}"
    own = f"{numbers.plain(item.attribution)} here"
    if quantiles[0] == quantiles[-1]:
        return f"{own}, as for all {of}" if row.samples > 1 else f"{own}: nobody else has it"
    below = float(np.interp(item.attribution, quantiles, SHARES))
    if 1 <= below <= 99:
        place = f"above {below:.0f} %" if below >= 50 else f"below {100 - below:.0f} %"
        return f"{own}, {place} of the {of}; {median}"
    return f"{own}, among the {'highest' if below > 99 else 'lowest'} of the {of}; {median}"

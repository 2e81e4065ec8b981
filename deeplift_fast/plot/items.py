"""A patient's contributions per code or dimension: what a bar or a row of a figure stands for."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from deeplift_fast.plot.rows import Named, Rows, measure_of, namer
from deeplift_fast.report.titles import Title
from deeplift_fast.support.numbers import short
from deeplift_fast.support.printable import printable


@dataclass(frozen=True)
class Item:
    """One code or dimension of one patient.

    Attributes:
        key: its feature and name.
        name: what it is called.
        details: how often it occurs, or its newest value, in one or more forms, the longest first.
        attribution: the sum of its contributions.
        units: its unit and reference range, in one or more forms, the longest first.
    """

    key: tuple[str, str]
    name: str
    details: tuple[str, ...]
    attribution: float
    units: tuple[str, ...] = ("",)


def items_of(rows: Rows, titles: Named = None) -> list[Item]:
    """The codes and dimensions of a patient, the largest |sum| first."""
    called = namer(titles, rows.table)
    table = rows.table.assign(valued=rows.valued)
    found = [
        _item(key, part, called(*key), measure_of(titles, *key))
        for key, part in table.groupby(["feature", "name"], sort=False)
    ]
    return sorted(found, key=lambda item: -abs(item.attribution))


def _item(key: tuple[str, str], part: pd.DataFrame, name: str, measure: Title | None) -> Item:
    attribution = float(part["attribution"].sum())
    if not part["valued"].iloc[0]:
        return Item(key, name, (f" ×{len(part)}" if len(part) > 1 else "",), attribution)
    return Item(key, name, _values(part["value"].to_numpy(), measure), attribution, _units(measure))


def _values(values: np.ndarray, measure: Title | None) -> tuple[str, ...]:
    """The newest value, with its unit, its reference range and the number of values if there is room."""
    measured = values[~np.isnan(values)]
    if not len(measured):
        return (" (not measured)", "")
    newest, last = f" = {short(measured[-1])}", f", last of {len(measured)}" if len(measured) > 1 else ""
    forms = [newest + last, newest]
    if measure is not None:
        with_unit = newest + (_units(measure)[0] if measure.mixed else f" {printable(measure.unit)}")
        ranged = [f"{with_unit} ({measure.range})" + last] if measure.range and not measure.mixed else []
        forms = [*ranged, with_unit + last, with_unit, newest]
    return tuple(dict.fromkeys(forms))


def _units(measure: Title | None) -> tuple[str, ...]:
    if measure is None:
        return ("",)
    unit = printable(measure.unit)
    if measure.mixed:  # the range is for one of the units
        return (f" (mostly {unit})", "")
    return (*([f" ({unit}, {measure.range})"] if measure.range else []), f" ({unit})", "")

"""A patient's contributions per code or dimension: what a bar or a row of a figure stands for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deeplift_fast.plot.rows import Named, Rows, namer
from deeplift_fast.support.numbers import short


@dataclass(frozen=True)
class Item:
    """One code or dimension of one patient.

    Attributes:
        key: its feature and name.
        name: what it is called.
        details: how often it occurs, or its newest value, in one or more forms, the longest first.
        attribution: the sum of its contributions.
    """

    key: tuple[str, str]
    name: str
    details: tuple[str, ...]
    attribution: float


def items_of(rows: Rows, titles: Named = None) -> list[Item]:
    """The codes and dimensions of a patient, the largest |sum| first."""
    called = namer(titles, rows.table)
    table = rows.table.assign(valued=rows.valued)
    found = [_item(key, part, called) for key, part in table.groupby(["feature", "name"], sort=False)]
    return sorted(found, key=lambda item: -abs(item.attribution))


def _item(key: tuple[str, str], part: pd.DataFrame, called: Callable[[str, str], str]) -> Item:
    return Item(key, called(*key), _details(part), float(part["attribution"].sum()))


def _details(part: pd.DataFrame) -> tuple[str, ...]:
    if not part["valued"].iloc[0]:
        return (f" ×{len(part)}" if len(part) > 1 else "",)
    values = part["value"].to_numpy()
    measured = values[~np.isnan(values)]
    if not len(measured):
        return (" (not measured)", "")
    newest = f" = {short(measured[-1])}"
    return (f"{newest}, last of {len(measured)}", newest) if len(measured) > 1 else (newest,)

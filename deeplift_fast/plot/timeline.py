"""When a patient's codes and values moved the output: a table of cells, coloured by their contributions."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from deeplift_fast.plot.columns import Columns, columns_of
from deeplift_fast.plot.items import Item, items_of
from deeplift_fast.plot.panel import LEAST_PITCH, PITCH, Panel, numbers_of
from deeplift_fast.plot.rows import Dimensions, Named, patient_rows
from deeplift_fast.plot.text import SIZE, shortened, width_of, write
from deeplift_fast.support.colours import FAINT, INK, Scale, ink_on, mark
from deeplift_fast.support.numbers import Numbers, short

_ABOVE, _BELOW, _KEY = 24.0, 19.0, 11.0
_TWO_LINES = 20.5
"""Units of a row with a value above its contribution."""

_WITH_VALUES = [
    "contribution, above it the newest value; hollow: not measured",
    "contribution; hollow: not measured",
    "hollow: not measured",
]
_WITHOUT = ["contribution"]

_NAMES = 0.36
_TOTALS_FROM = 320.0
"""Units of width from which on rows have their totals."""


def timeline(
    data: Any,
    *,
    sample: int | None = None,
    patient: str | None = None,
    top: int = 12,
    titles: Named = None,
    limit: float | None = None,
    ax: Axes | None = None,
    width: float = 7.0,
    size: float = SIZE,
    dimensions: Dimensions = None,
) -> Axes:
    """Draws a patient's codes and values over time.

    A row is a code or dimension; a column is a stay, day, time or step (see `deeplift_fast.plot.columns`). A cell's
    colour and signed number are its contribution: the sum where several fall into it. Above it stands the newest value
    measured. A cell in which nothing was measured, such as a value carried forward, is hollow.

    Args:
        data: an :class:`deeplift_fast.Attribution`; a table with the columns of a cohort's `attributions` (pandas,
            polars, pyarrow); or a cohort's folder.
        sample: which sample, by its number; needed where there are several.
        patient: which patient, by `patient_id`, likewise.
        top: the most codes and dimensions; fewer where `ax` is too small.
        titles: what codes are called: by code, or by (feature, code); or `deeplift_fast.report.titles.Titles`.
        limit: the contribution at both ends of the scale of colours; `None` for a round number.
        ax: axes to draw in; `None` for a figure of its own.
        width: inches of a figure of its own; 3.5 and 7 are a journal's columns.
        size: points of every text, 5 to 24.
        dimensions: of an :class:`deeplift_fast.Attribution`, the names of a continuous feature's dimensions, by feature
            key, as `to_dataframe` takes them.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: if data or arguments do not fit; the message names them.

    Example:
        >>> from deeplift_fast import plot
        >>> ax = plot.timeline("mortality", sample=0, width=3.5)
        >>> ax.figure.savefig("timeline.pdf")
    """
    if top < 1:
        raise ValueError(f"top is {top}; accepted: 1 or more")
    rows = patient_rows(data, sample, patient, dimensions)
    items = items_of(rows, titles)[:top]
    table = rows.table.assign(valued=rows.valued)
    has_values = bool(table["valued"].any())
    pitch, least = (_TWO_LINES, _TWO_LINES - 1.5) if has_values else (PITCH, LEAST_PITCH + 1)
    panel = Panel(ax, width, len(items), _ABOVE, _BELOW, pitch, least, size)
    items = items[: panel.rows]
    cells = _cells(table, items, columns_of(table, 10**9))
    numbers = _numbers(_scale(cells, limit))
    totals = [numbers.signed(item.attribution) if panel.box[2] >= _TOTALS_FROM else "" for item in items]
    panel.lay([(item.name, item.units) for item in items], totals, _NAMES, [item.key[1] for item in items])
    widest = 5 + _widest(panel.ax, list(cells.values()), numbers)
    columns = columns_of(table, max(2, int(panel.middle / widest)))
    cells = _cells(table, items, columns)
    scale = _scale(cells, limit)
    _draw(panel, cells, columns, scale, has_values, len(items))
    _heads(panel, columns, bool(totals[0]))
    panel.key(scale, _KEY, _WITH_VALUES if has_values else _WITHOUT)
    return panel.ax


def _scale(cells: dict[tuple[int, int], dict[str, Any]], limit: float | None) -> Scale:
    return Scale.of(np.array([cell["attribution"] for cell in cells.values()]), limit)


def _numbers(scale: Scale) -> Numbers:
    """Contributions with two digits; three if the scale ends at 1 to 1.99, as two would round by up to 5 % of it."""
    return numbers_of(scale, 3 if f"{scale.limit:e}".startswith("1") else 2)


def _widest(ax: Axes, cells: list[dict[str, Any]], numbers: Numbers) -> float:
    """How wide the texts of cells are, in units."""
    longest = max(cells, key=lambda cell: abs(cell["attribution"]))
    values = [short(cell["value"]) for cell in cells if not np.isnan(cell["value"])]
    texts = [numbers.signed(-abs(longest["attribution"])).replace(" ", ""), max(values, key=len, default="")]
    return max(width_of(ax, text) for text in texts)


def _cells(table: pd.DataFrame, items: list[Item], columns: Columns) -> dict[tuple[int, int], dict[str, Any]]:
    """By row and column: the contribution, the newest value measured or NaN, and whether it is hollow."""
    place = {item.key: number for number, item in enumerate(items)}
    keys = list(zip(table["feature"], table["name"], strict=True))
    table = table.assign(row=[place.get(key, -1) for key in keys], column=columns.of)
    found = {}
    for (row, column), part in table[table["row"] >= 0].groupby(["row", "column"]):
        said = part["measured"]
        taken = np.where(said.notna(), said.eq(True), part["value"].notna()) | ~part["valued"]
        values = part.loc[taken & part["value"].notna(), "value"]
        found[int(row), int(column)] = {
            "attribution": float(part["attribution"].sum()),
            "value": float(values.iloc[-1]) if len(values) else float("nan"),
            "hollow": not taken.any(),
        }
    return found


def _draw(
    panel: Panel,
    cells: dict[tuple[int, int], dict[str, Any]],
    columns: Columns,
    scale: Scale,
    two_lines: bool,
    count: int,
) -> None:
    ax, numbers = panel.ax, _numbers(scale)
    ax.set_xlim(-0.5, len(columns.heads) - 0.5)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    ax.hlines(np.arange(count + 1) - 0.5, -0.5, len(columns.heads) - 0.5, color=FAINT, lw=0.5, zorder=0)
    for (row, column), cell in cells.items():
        value, hollow = cell["attribution"], cell["hollow"]
        fill = (1.0, 1.0, 1.0) if hollow else scale.colour(value)
        box = Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fc=fill, ec=mark(value), lw=0.9 if hollow else 0.4)
        ax.add_patch(box)
        ink = INK if hollow else ink_on(fill)
        known = not np.isnan(cell["value"])
        spread = 4.3 if two_lines and known else 0.0
        text = numbers.signed(value).replace(" ", "")
        write(ax, text, (column, row), (0, -spread), "data", ha="center", color=ink)
        if known:
            write(ax, short(cell["value"]), (column, row), (0, spread), "data", ha="center", color=ink)


def _heads(panel: Panel, columns: Columns, has_totals: bool) -> None:
    ax = panel.ax
    room = panel.middle / len(columns.heads) - 2
    at_top = ax.get_xaxis_transform()
    for place, head in enumerate(columns.heads):
        write(ax, shortened(ax, head, room), (place, 1), (0, 6), at_top, ha="center")
    write(ax, columns.label, (0.5, 1), (0, 17), ax.transAxes, ha="center")
    if has_totals:
        write(ax, "sum", (1, 1), (panel.right, 6), ax.transAxes, ha="right")

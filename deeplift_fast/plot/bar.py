"""A cohort's codes and values by their mean contribution, with intervals."""

import os
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from deeplift_fast.plot.panel import Panel, numbers_of
from deeplift_fast.plot.rows import Dimensions, Named, check_unnamed, cohort_rows, namer
from deeplift_fast.plot.text import SIZE, write
from deeplift_fast.report.bootstrap import REPLICATES, hash_texts, interval, weights
from deeplift_fast.report.summary import SPECIAL, Summary, summarise
from deeplift_fast.support.colours import INK, Scale, mark

_BELOW, _NOTE = 24.0, 11.0


def bar(
    data: Any,
    *,
    top: int = 15,
    min_samples: int = 10,
    grouping: str = "overall",
    group: str = "all",
    titles: Named = None,
    limit: float | None = None,
    ax: Axes | None = None,
    width: float = 7.0,
    size: float = SIZE,
    dimensions: Dimensions = None,
) -> Axes:
    """Draws the mean contribution of codes and values, with its 95 % interval over patients.

    Those with the largest mean |contribution| are shown, in this order. Means are over attributions, as `deeplift-fast
    summary` prints them.

    Args:
        data: a cohort's folder; a :class:`deeplift_fast.report.Summary`; a table with the columns of a cohort's
            `attributions` (pandas, polars, pyarrow); or an :class:`deeplift_fast.Attribution` of a batch.
        top: the most codes and dimensions; fewer where `ax` is too small.
        min_samples: the fewest samples that must carry a code.
        grouping: of a folder or summary, the column that groups samples, such as "label".
        group: the group shown.
        titles: what codes are called: by code, or by (feature, code); or `deeplift_fast.report.titles.Titles`.
        limit: the contribution at both ends of the axis; `None` for a round number.
        ax: axes to draw in; `None` for a figure of its own.
        width: inches of a figure of its own; 3.5 and 7 are a journal's columns.
        size: points of every text, 5 to 24.
        dimensions: of an :class:`deeplift_fast.Attribution`, the names of a continuous feature's dimensions, by feature
            key, as `to_dataframe` takes them.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: if data or arguments do not fit; the message names them.
        SummaryError: if the folder is no cohort's.

    Example:
        >>> from deeplift_fast import plot
        >>> ax = plot.bar("mortality", top=5, width=7)
        >>> ax.figure.savefig("bar.svg")
    """
    if top < 1:
        raise ValueError(f"top is {top}; accepted: 1 or more")
    table = _ranked(_table(data, grouping, group, dimensions), min_samples).head(top)
    without = table["low"].isna().to_numpy()
    note = _NOTE if without.any() else 0
    panel = Panel(ax, width, len(table), 4.0, _BELOW + note, size=size)
    table, without = table.head(panel.rows), without[: panel.rows]
    ends = table[["mean", "low", "high"]].to_numpy(float)
    scale = Scale.of(ends[np.isfinite(ends)], limit)
    called = _named(titles, table)
    labels = [(called(*key), (" *" if lone else "",)) for key, lone in zip(_keys(table), without, strict=True)]
    panel.lay(
        labels, [numbers_of(scale).signed(mean) for mean in table["mean"]], codes=[code for _, code in _keys(table)]
    )
    panel.guide(len(table))
    colours = [mark(mean) for mean in table["mean"]]
    panel.ax.barh(range(len(table)), table["mean"], height=0.62, color=colours, zorder=2)
    _whiskers(panel.ax, ends)
    panel.symmetric_axis(scale, "▼ lowers   mean contribution   raises ▲")
    if without.any():
        text = "* too few patients for an interval"
        write(panel.ax, text, (0.5, 0), (0, -_BELOW - 6), panel.ax.transAxes, ha="center")
    return panel.ax


def _table(data: Any, grouping: str, group: str, dimensions: Dimensions) -> pd.DataFrame:
    """Columns as of a summary's table, of one group."""
    if isinstance(data, str | os.PathLike):
        data = summarise(data)  # type: ignore[arg-type]
    if not isinstance(data, Summary):
        if (grouping, group) != ("overall", "all"):
            raise ValueError(
                f"grouping is {grouping!r} and data a {type(data).__name__}; groups are known of a cohort's folder "
                "or a Summary: give one, or the rows of the group alone"
            )
        return _means(cohort_rows(data, dimensions))
    check_unnamed(data, dimensions)
    table = data.table[(data.table["grouping"] == grouping) & (data.table["group"] == group)]
    if table.empty:
        known = [f"{a} = {b}" for a, b in data.table[["grouping", "group"]].drop_duplicates().itertuples(index=False)]
        raise ValueError(f"grouping is {grouping!r} and group {group!r}; accepted: {', '.join(known[:30]) or 'none'}")
    return table


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Means and intervals of a table in memory; a value counts where it was measured."""
    valued = rows.groupby("feature")["value"].transform(lambda values: values.notna().any())
    rows = rows[rows["value"].notna() | ~valued]
    lone = "sample " + rows["sample"].astype(str)
    patient = rows["patient_id"].astype(object).where(rows["patient_id"].notna(), lone).astype(str)
    number, patients = pd.factorize(patient)
    drawn = weights(hash_texts(np.asarray(patients, object)), REPLICATES).astype(np.float64)
    found = []
    for (feature, name), part in rows.groupby(["feature", "name"], sort=False):
        values, drawn_of = part["attribution"].to_numpy(), drawn[number[rows.index.get_indexer(part.index)]]
        (low,), (high,) = interval((values @ drawn_of)[None], drawn_of.sum(0)[None])
        about = (feature, name, part["sample"].nunique(), values.mean(), np.abs(values).mean(), low, high)
        found.append(about)
    return pd.DataFrame(found, columns=["feature", "code", "samples", "mean", "mean_abs", "low", "high"])


def _ranked(table: pd.DataFrame, min_samples: int) -> pd.DataFrame:
    kept = table[(table["samples"] >= min_samples) & ~table["code"].isin(SPECIAL)]
    if kept.empty:
        raise ValueError(
            f"no code or value is carried by {min_samples} samples or more; give more samples, or a lower min_samples"
        )
    return kept.sort_values(["mean_abs", "feature", "code"], ascending=[False, True, True])


def _keys(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(table["feature"].astype(str), table["code"].astype(str), strict=True))


def _named(titles: Named, table: pd.DataFrame) -> Any:
    return namer(titles, table.assign(name=table["code"].astype(str), feature=table["feature"].astype(str)))


def _whiskers(ax: Axes, ends: np.ndarray) -> None:
    rows = np.flatnonzero(np.isfinite(ends).all(1))
    _, low, high = ends[rows].T
    ax.hlines(rows, low, high, color=INK, lw=1.0, zorder=4)
    for edge in (low, high):
        ax.vlines(edge, rows - 0.2, rows + 0.2, color=INK, lw=1.0, zorder=4)

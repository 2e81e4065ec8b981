"""How a cohort's contributions are spread, code by code."""

import os
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from deeplift_fast.plot.panel import Panel
from deeplift_fast.plot.rows import Dimensions, Named, check_unnamed, cohort_rows, namer, normalised
from deeplift_fast.plot.text import SIZE, write
from deeplift_fast.report.cohort.swarm import swarmed
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.summary import SPECIAL, summarise
from deeplift_fast.support.colours import LOWERS, NEUTRAL, RAISES, Scale
from deeplift_fast.support.numbers import Numbers

_ABOVE, _BELOW, _PITCH = 13.0, 24.0, 18.0
_MARK = 3.4
"""Units across a mark."""

_TOO_FEW = "no code or value is carried by {} samples or more; give more samples, or a lower min_samples"


def beeswarm(
    data: Any,
    *,
    top: int = 12,
    points: int = 400,
    min_samples: int | None = None,
    titles: Named = None,
    limit: float | None = None,
    ax: Axes | None = None,
    width: float = 7.0,
    size: float = SIZE,
    dimensions: Dimensions = None,
) -> Axes:
    """Draws the contributions of the codes and values with the largest mean |contribution|, one mark each.

    Marks that would overlap are set above each other. Of more contributions than `points`, evenly spread quantiles are
    drawn, the least and the largest among them.

    Args:
        data: a cohort's folder; a table with the columns of a cohort's `attributions` (pandas, polars, pyarrow); or an
            :class:`deeplift_fast.Attribution` of a batch.
        top: the most codes and dimensions; fewer where `ax` is too small.
        points: the most marks of a row.
        min_samples: the fewest samples that must carry a code. `None` for 10, or for a tenth of the samples if there
            are fewer than 100: else codes of one or two patients would come first in a large cohort.
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
        >>> ax = plot.beeswarm("mortality", top=5, width=7)
        >>> ax.figure.savefig("beeswarm.svg")
    """
    if top < 1 or points < 2:
        raise ValueError(f"top is {top} and points {points}; accepted: top of 1 or more, points of 2 or more")
    if isinstance(data, str | os.PathLike):
        check_unnamed(data, dimensions)
        table = _of_folder(data, top, min_samples)
        groups = _largest(table, top, 1)  # the folder's rows are those of enough samples
    else:
        table = cohort_rows(data, dimensions)
        groups = _largest(table, top, _fewest(min_samples, table["sample"].nunique()))
    panel = Panel(ax, width, len(groups), _ABOVE, _BELOW, _PITCH, 11.0, size)
    groups = groups[: panel.rows]
    scale = Scale.of(np.concatenate([values for _, values in groups]), limit)
    called = namer(titles, table)
    means = [float(np.abs(values).mean()) for _, values in groups]
    sizes = [Numbers(means[0]).level(mean) for mean in means]
    panel.lay([(called(*key), ("",)) for key, _ in groups], sizes, codes=[code for (_, code), _ in groups])
    write(panel.ax, "mean |c|", (1, 1), (panel.right, 7), panel.ax.transAxes, ha="right")
    panel.guide(len(groups))
    panel.symmetric_axis(scale, "▼ lowers   contribution   raises ▲")
    low, high = panel.ax.get_xlim()
    per_point, pitch = (high - low) / panel.middle, panel.height / len(groups)
    for row, (_, values) in enumerate(groups):
        _marks(panel, row, _thinned(values, points), per_point, pitch)
    return panel.ax


def _fewest(min_samples: int | None, samples: int) -> int:
    """The fewest samples of a code that is shown."""
    return max(1, min(10, samples // 10)) if min_samples is None else min_samples


def _of_folder(data: str | os.PathLike, top: int, min_samples: int | None) -> pd.DataFrame:
    """The rows of the codes with the largest mean |contribution| of a cohort, read part by part."""
    found = summarise(data)  # type: ignore[arg-type]
    fewest = _fewest(min_samples, found.completeness.samples)
    summary = found.table
    summary = summary[(summary["grouping"] == "overall") & ~summary["code"].isin(SPECIAL)]
    if len(summary) and not (summary["samples"] >= fewest).any():
        raise ValueError(_TOO_FEW.format(fewest))
    summary = summary[summary["samples"] >= fewest]
    first = summary.sort_values("mean_abs", ascending=False).head(top)
    wanted = pd.MultiIndex.from_frame(first[["feature", "code"]])
    folder = CohortFolder(data)  # type: ignore[arg-type]
    pieces = []
    for part in folder.parts:
        for batch in folder.attributions(part, ["feature", "slot", "code", "value", "attribution"]):
            piece = normalised(batch.to_pandas())
            pieces.append(piece[pd.MultiIndex.from_frame(piece[["feature", "name"]]).isin(wanted)])
    if not pieces or not len(wanted):
        raise ValueError(
            f"{data} has no samples, or explains several classes; accepted: a cohort that was run with one class, by "
            "--target or target_class_idx"
        )
    return pd.concat(pieces, ignore_index=True)


def _largest(table: pd.DataFrame, top: int, fewest: int) -> list[tuple[tuple[str, str], np.ndarray]]:
    """Contributions of each code with the largest means of |contribution|; of values those measured."""
    valued = table.groupby("feature")["value"].transform(lambda values: values.notna().any())
    table = table[(table["value"].notna() | ~valued) & ~table["name"].isin(SPECIAL)]
    parts = [each for each in table.groupby(["feature", "name"], sort=False) if each[1]["sample"].nunique() >= fewest]
    if not parts:
        raise ValueError(_TOO_FEW.format(fewest))
    found = [(key, part["attribution"].to_numpy()) for key, part in parts]
    return sorted(found, key=lambda each: -float(np.abs(each[1]).mean()))[:top]


def _thinned(values: np.ndarray, points: int) -> np.ndarray:
    """The values in order; of more than `points`, evenly spread quantiles."""
    ordered = np.sort(values)
    if len(ordered) <= points:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, points).round().astype(int)]


def _marks(panel: Panel, row: int, values: np.ndarray, per_point: float, pitch: float) -> None:
    """Draws a row: one path of marks per sign."""
    shifts = swarmed(values / per_point, _MARK) * (0.5 * pitch - 0.5 * _MARK - 0.3)
    at = row + shifts / pitch
    for chosen, marker, colour in (
        (values > 0, "^", RAISES),
        (values < 0, "v", LOWERS),
        (values == 0, "o", NEUTRAL),
    ):
        if chosen.any():
            x, y = values[chosen], at[chosen]
            panel.ax.scatter(x, y, s=panel.area(_MARK), marker=marker, color=colour, alpha=0.85, lw=0, zorder=3)

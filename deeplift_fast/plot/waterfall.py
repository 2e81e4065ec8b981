"""From the output at the baseline to the output, code by code."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from deeplift_fast.plot.items import Item, items_of
from deeplift_fast.plot.panel import GAP, LEAST_PITCH, TICK, Panel, numbers_of
from deeplift_fast.plot.rows import Dimensions, Named, Rows, patient_rows
from deeplift_fast.plot.text import SIZE, width_of, write
from deeplift_fast.support.colours import INK, NEUTRAL, Scale, mark

_BELOW, _ABOVE, _KEY = 42.0, 5.0, 35.0
_STEPS = (20, 50, 100, 200, 500, 1000)
"""Steps of the grids of probabilities on an axis that shows fewer than two of `_PROBABILITIES`."""

_PROBABILITIES = (0.5, 0.1, 0.9, 0.01, 0.99, 0.2, 0.8, 0.05, 0.95, 0.3, 0.7, 0.02, 0.98, 0.4, 0.6, 0.001, 0.999)


def waterfall(
    data: Any,
    *,
    sample: int | None = None,
    patient: str | None = None,
    top: int = 10,
    titles: Named = None,
    limit: float | None = None,
    ax: Axes | None = None,
    width: float = 7.0,
    size: float = SIZE,
    dimensions: Dimensions = None,
) -> Axes:
    """Draws how a patient's codes and values lead from the output at the baseline to the output.

    A bar is a code or dimension, with all its contributions; the largest come first, and the others are one bar. Bars
    add up in logits. Probabilities, which do not add up, are ticks above the bars. Where the contributions do not sum
    to the change in output, a grey bar says by how much.

    Args:
        data: an :class:`deeplift_fast.Attribution`; a table with the columns of a cohort's `attributions` (pandas,
            polars, pyarrow), where bars begin at 0 as the outputs are not known; or a cohort's folder.
        sample: which sample, by its number; needed where there are several.
        patient: which patient, by `patient_id`, likewise.
        top: the most codes and dimensions with a bar of their own; fewer where `ax` is too small.
        titles: what codes are called: by code, or by (feature, code); or `deeplift_fast.report.titles.Titles`.
        limit: the contribution at the end of the scale of colours; `None` for a round number.
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
        >>> ax = plot.waterfall("mortality", sample=0, width=3.5)
        >>> ax.figure.savefig("waterfall.pdf")
    """
    if top < 1:
        raise ValueError(f"top is {top}; accepted: 1 or more")
    rows = patient_rows(data, sample, patient, dimensions)
    items = items_of(rows, titles)
    begin, end, gap = _ends(rows, items)
    scale = Scale.of(np.array([item.attribution for item in items]), limit)
    known = rows.output is not None
    extra = 2 * known + (gap != 0)
    wanted = min(top, len(items)) + (len(items) > top) + extra
    likely = rows.probability is not None
    panel = Panel(ax, width, wanted, _ABOVE + TICK * likely, _BELOW, size=size)
    if panel.rows < (least := extra + 1 + (len(items) > 1)):
        needed = panel.inches(_ABOVE + TICK * likely + _BELOW + least * LEAST_PITCH)
        raise ValueError(
            f"ax is {panel.inches(panel.box[3])} inches high; accepted for this waterfall: at least {needed} inches"
        )
    bars = _shown(items, panel.rows - extra)
    if gap:
        bars.append(Item(("", ""), "not accounted for", ("",), gap))
    numbers = numbers_of(scale)
    labels = [(bar.name, bar.details) for bar in bars]
    texts = [numbers.signed(bar.attribution) for bar in bars]
    if known:
        labels = [
            (f"Baseline: {rows.compared_with}" if rows.baseline else "Baseline", ("",)),
            *labels,
            ("Output", ("",)),
        ]
        texts = [numbers.level(begin), *texts, numbers.level(end)]
    codes = [bar.key[1] for bar in bars]
    panel.lay(labels, texts, codes=["", *codes, ""] if known else codes)
    panel.guide(len(labels))
    _bars(panel, bars, begin, end, scale, known, bool(gap))
    _axis(panel, rows, known)
    panel.key(scale, _KEY, ["contribution of a bar"])
    return panel.ax


def _ends(rows: Rows, items: Sequence[Item]) -> tuple[float, float, float]:
    """The outputs at the baseline and at the input, and what the contributions leave of their difference."""
    total = math.fsum(item.attribution for item in items)
    if rows.output is None or rows.baseline_output is None:
        return 0.0, total, 0.0
    gap = rows.output - rows.baseline_output - total
    largest = max(abs(total), *(abs(item.attribution) for item in items), abs(gap))
    return rows.baseline_output, rows.output, gap if abs(gap) > 0.005 * largest else 0.0


def _shown(items: Sequence[Item], room: int) -> list[Item]:
    """The largest items, and the others as one."""
    if len(items) <= room:
        return list(items)
    rest = items[room - 1 :]
    others = Item(("", ""), f"{len(rest)} others", ("",), math.fsum(item.attribution for item in rest))
    return [*items[: room - 1], others]


def _bars(
    panel: Panel, bars: Sequence[Item], begin: float, end: float, scale: Scale, known: bool, has_gap: bool
) -> None:
    ax, at = panel.ax, begin
    for place, bar in enumerate(bars):
        row, value = place + known, bar.attribution
        unexplained = has_gap and place == len(bars) - 1
        colour = "#ffffff" if unexplained else scale.colour(value)
        edge = NEUTRAL if unexplained else mark(value)
        hatch = "//////" if unexplained else None
        ax.barh(row, value, left=at, height=0.72, color=colour, edgecolor=edge, lw=0.8, hatch=hatch, zorder=3)
        at += value
        if place < len(bars) - 1 or known:
            ax.vlines(at, row - 0.36, row + 1.36, color=INK, lw=0.5, zorder=2)
    edges = np.concatenate([[begin, end], begin + np.cumsum([bar.attribution for bar in bars])])
    low, high = float(edges.min()), float(edges.max())
    spare = 0.05 * (high - low) or max(0.05 * abs(high), 0.05)
    ax.set_xlim(low - spare, high + spare)
    if known:
        ax.scatter([begin, end], [0, len(bars) + 1], marker="D", s=panel.area(4), color=INK, zorder=4, clip_on=False)


def _axis(panel: Panel, rows: Rows, known: bool) -> None:
    low, high = panel.ax.get_xlim()
    ticks = [t for t in MaxNLocator(max(2, int(panel.middle / 55))).tick_values(low, high) if low <= t <= high]
    texts = [f"{tick:.4g}".replace("-", "−") for tick in ticks]
    what = "output" if known else "sum of contributions"
    panel.axis(ticks, texts, f"{what}, {rows.unit}")
    if rows.probability is not None:
        _probabilities(panel, low, high)


def _shares(low: float, high: float) -> list[float]:
    """Probabilities between two logits, the plainest first: of a grid of which at least two are there."""
    begin, end = (0.5 + 0.5 * math.tanh(0.5 * logit) for logit in (low, high))
    grids = (_PROBABILITIES, *([n / steps for n in range(1, steps)] for steps in _STEPS))
    found = ([share for share in grid if begin <= share <= end] for grid in grids)
    return next((shares for shares in found if len(shares) > 1), [])


def _probabilities(panel: Panel, low: float, high: float) -> None:
    """Ticks of probabilities at their logits, above the bars."""
    ax = panel.ax
    free: list[tuple[float, float]] = []
    shares = _shares(low, high)
    if shares:
        write(ax, "probability", (0, 1), (-GAP, 8), ax.transAxes, ha="right")
    for share in shares:
        logit, text = math.log(share / (1 - share)), f"{100 * share:g} %"
        half = width_of(ax, text) / 2 + 3
        centre = (logit - low) / (high - low) * panel.middle
        if 0 <= centre <= panel.middle and all(abs(centre - other) > half + room for other, room in free):
            free.append((centre, half))
            at_top = ax.get_xaxis_transform()
            write(ax, text, (logit, 1), (0, 8), at_top, ha="center")
            ax.plot([logit], [1], marker=2, ms=2.5 * panel.unit, color=INK, transform=at_top, clip_on=False)

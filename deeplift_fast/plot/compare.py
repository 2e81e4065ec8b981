"""One patient attributed twice: by two rule sets, or against two baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from deeplift_fast.plot.items import items_of
from deeplift_fast.plot.panel import Panel, numbers_of
from deeplift_fast.plot.rows import Dimensions, Named, Rows, patient_rows
from deeplift_fast.plot.text import SIZE, shortened, width_of, write
from deeplift_fast.support.colours import NEUTRAL, Scale, mark

_ABOVE, _BELOW = 17.0, 24.0
_NARROW = 230.0
"""Units of width below which numbers stand without ▲ and ▼."""


def compare(
    first: Any,
    second: Any,
    *,
    labels: Sequence[str] | None = None,
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
    """Draws two attributions of one patient: filled marks the first, hollow ones the second.

    A row is a code or dimension, with the sum of its contributions; those where either sum is largest come first.

    Args:
        first: an :class:`deeplift_fast.Attribution`; a table with the columns of a cohort's `attributions` (pandas,
            polars, pyarrow); or a cohort's folder.
        second: likewise, of the same patient.
        labels: what the two are called; `None` for their rule sets, their baselines, or "first" and "second".
        sample: which sample, by its number; needed where there are several.
        patient: which patient, by `patient_id`, likewise.
        top: the most codes and dimensions; fewer where `ax` is too small.
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
        TypeError, ValueError: if data or arguments do not fit, or the two hold different codes; the message names them.

    Example:
        >>> from deeplift_fast import DeepLift, plot
        >>> deeplift = DeepLift(model, rules="complete")
        >>> first, second = (deeplift.explain(name, **batch) for name in ("removed", "unk"))
        >>> ax = plot.compare(first, second, labels=("removed", "unk"), sample=0)
    """
    if top < 1:
        raise ValueError(f"top is {top}; accepted: 1 or more")
    both = [patient_rows(data, sample, patient, dimensions) for data in (first, second)]
    names = _names(labels, both)
    _check_same(both)
    items = [{item.key: item for item in items_of(rows, titles)} for rows in both]
    pairs = {key: (items[0][key].attribution, items[1][key].attribution) for key in items[0]}
    order = sorted(pairs, key=lambda key: -max(map(abs, pairs[key])))[:top]
    panel = Panel(ax, width, len(order), _ABOVE, _BELOW, 14.0, size=size)
    order = order[: panel.rows]
    values = np.array([pairs[key] for key in order])
    scale = Scale.of(values, limit)
    numbers = numbers_of(scale)
    form = numbers.plain if panel.box[2] < _NARROW else numbers.signed  # the marks show ▲ and ▼ too
    written = [f"{form(one)} | {form(other)}" for one, other in values]
    shown = [(items[0][key].name, items[0][key].details) for key in order]
    panel.lay(shown, written, 0.36, [code for _, code in order])
    panel.guide(len(order))
    panel.symmetric_axis(scale, "▼ lowers   contribution   raises ▲")
    _marks(panel, values)
    _legend(panel, names)
    return panel.ax


def _names(labels: Sequence[str] | None, both: Sequence[Rows]) -> list[str]:
    if labels is not None:
        if isinstance(labels, str) or len(labels) != 2:
            raise ValueError(f"labels is {labels!r}; accepted: two names")
        return [str(label) for label in labels]
    names = ("rules", "compared_with", "baseline")
    for known in ([getattr(rows, name) for rows in both] for name in names):
        if all(known) and known[0] != known[1]:
            return known
    return ["first", "second"]


def _check_same(both: Sequence[Rows]) -> None:
    """Raise unless both hold the same codes at the same steps."""
    places = [set(rows.table[["feature", "step", "slot", "name"]].itertuples(index=False, name=None)) for rows in both]
    if apart := places[0] ^ places[1]:
        raise ValueError(
            f"first and second differ in {len(apart)} token(s) or value(s); give two attributions of one patient's data"
        )


def _marks(panel: Panel, values: np.ndarray) -> None:
    ax = panel.ax
    for row, (one, other) in enumerate(values):
        ax.plot([one, other], [row, row], color=NEUTRAL, lw=1.0, zorder=2)
        ax.scatter(other, row, s=panel.area(5.8), marker=_marker(other), fc="white", ec=mark(other), lw=1.2, zorder=3)
        ax.scatter(one, row, s=panel.area(4.5), marker=_marker(one), color=mark(one), lw=0, zorder=4)


def _marker(value: float) -> str:
    return "^" if value > 0 else "v" if value < 0 else "o"


def _legend(panel: Panel, names: Sequence[str]) -> None:
    """Above the rows: a filled mark and the first name, a hollow one and the second."""
    ax, room = panel.ax, panel.box[2] / 2 - 2 * SIZE - 14
    texts = [shortened(ax, name, room) for name in names]
    at = panel.box[0] - panel.left + 6
    for text, sign in zip(texts, "▲△", strict=True):
        write(ax, sign, (0, 1), (at, 9), ax.transAxes, ha="left")
        write(ax, text, (0, 1), (at + SIZE + 3, 9), ax.transAxes, ha="left")
        at += SIZE + 3 + width_of(ax, text) + 14

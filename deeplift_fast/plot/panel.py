"""A figure's layout: names on the left, marks in the middle, numbers on the right, row by row.

Everything is laid out in units of length (:data:`deeplift_fast.plot.text.SIZE`) within the box that the axes have, so
that nothing overlaps or is cut off, whether the axes stand alone or beside others, and with or without one of
matplotlib's layout engines.
"""

from collections.abc import Sequence
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.transforms import Affine2D, Bbox, ScaledTranslation, Transform

from deeplift_fast.plot.text import (
    LARGEST,
    SIZE,
    SMALLEST,
    figure_of,
    set_size,
    shortened,
    style,
    unit_of,
    width_of,
    write,
)
from deeplift_fast.support.colours import FAINT, INK, Scale
from deeplift_fast.support.numbers import Numbers
from deeplift_fast.support.printable import printable

PITCH = 12.0
"""From one row to the next in a figure of its own, in units."""

LEAST_PITCH = 9.0
"""The same in axes that are given: rows that do not fit are left out."""

GAP, MARGIN, TICK = 4.0, 3.0, 13.0
"""Units between parts, at the edges of a figure of its own, and from one tick's text to the next line."""

LABELS_AT_MOST = 0.42
"""Part of the width that names may take."""

Label = tuple[str, Sequence[str]]
"""A name and its details, as :func:`deeplift_fast.plot.text.shortened` takes them."""

_LEAST_MIDDLE, _LEAST_WIDTH = 24.0, 136.0
_KEY_WIDTH, _KEY_CELLS = 64.0, 16


class Panel:
    """Axes with rows.

    Args:
        ax: axes to draw in; `None` for a figure of its own.
        width: inches of a figure of its own.
        rows: the number of rows wished for.
        above: room needed above the rows, in units, as all lengths here.
        below: room needed below them.
        pitch: from one row to the next in a figure of its own.
        least: the same in axes that are given.
        size: points of every text.

    Raises:
        ValueError: if not even two rows fit, or `width` or `size` is out of range.
    """

    def __init__(
        self,
        ax: Axes | None,
        width: float,
        rows: int,
        above: float,
        below: float,
        pitch: float = PITCH,
        least: float = LEAST_PITCH,
        size: float = SIZE,
    ) -> None:
        if not SMALLEST <= size <= LARGEST:
            raise ValueError(f"size is {size}; accepted: {SMALLEST:g} to {LARGEST:g} points of text")
        margin = MARGIN if ax is None else 0.0
        if ax is None:
            if not 2 <= width <= 40:
                raise ValueError(f"width is {width}; accepted: 2 to 40 inches")
            height = (rows * pitch + above + below + 2 * margin) / 72 * size / SIZE
            ax = plt.figure(figsize=(width, height), layout="none").add_axes((0, 0, 1, 1))
        self.ax = ax
        set_size(ax, size)
        self.unit = unit_of(ax)
        """Points of one unit of length."""
        self.box = _box(ax, margin)
        """Left, bottom, width and height, in units."""
        self._above, self._below = above, below
        room = self.box[3] - above - below
        self.rows = min(rows, int(room / least + 1e-6))
        """How many rows fit."""
        if self.rows < min(rows, 2):
            raise ValueError(
                f"ax is {self.inches(self.box[2])} by {self.inches(self.box[3])} inches, where no rows fit; give "
                f"axes of at least {self.inches(above + below + 2 * least)} inches in height"
            )

    def lay(
        self,
        labels: Sequence[Label],
        numbers: Sequence[str],
        most: float = LABELS_AT_MOST,
        codes: Sequence[str] | None = None,
    ) -> None:
        """Places the axes, and writes names and numbers.

        Args:
            labels: of each row.
            numbers: the text on the right of each row.
            most: part of the width that names may take.
            codes: what follows a name of each row if it would be cut to the same text as another one.

        Raises:
            ValueError: if the axes are too narrow.
        """
        ax, (left, bottom, width, height) = self.ax, self.box
        shown = [shortened(ax, name, most * width - GAP, details) for name, details in labels]
        if codes is not None:
            alike = [shown.count(text) > 1 for text in shown]
            labels = [
                (name, [f" ({printable(code)}){details[-1]}" if code else details[-1]])
                for (name, details), code in zip(labels, codes, strict=True)
            ]
            again = [shortened(ax, name, most * width - GAP, details) for name, details in labels]
            shown = [new if twice else old for old, new, twice in zip(shown, again, alike, strict=True)]
        names = min(max([20.0, *(width_of(ax, text) for text in shown)]), most * width) + GAP
        self.right = right = max([12.0, *(width_of(ax, text) for text in numbers)]) + GAP
        """From the axes' right edge to the ends of the numbers, in units."""
        self.middle = width - names - right
        """Width that the marks have, in units."""
        if self.middle < _LEAST_MIDDLE or width < _LEAST_WIDTH:
            raise ValueError(
                f"ax is {self.inches(width)} inches wide, where names, marks and numbers do not fit; give wider axes"
            )
        self.height = height - self._above - self._below
        ax.set_position(_fraction(ax, left + names, bottom + self._below, self.middle, self.height))
        ax.set_ylim(len(labels) - 0.5, -0.5)
        ax.set_yticks([])
        for side in ("left", "right", "top"):
            ax.spines[side].set_visible(False)
        ax.spines["bottom"].set_color(INK)
        at_row = ax.get_yaxis_transform()
        for row, (name, number) in enumerate(zip(shown, numbers, strict=True)):
            write(ax, name, (0, row), (-GAP, 0), at_row, ha="right")
            write(ax, number, (1, row), (right, 0), at_row, ha="right")

    def guide(self, rows: int) -> None:
        """Faint lines along the rows, from names to numbers."""
        self.ax.hlines(range(rows), 0, 1, color=FAINT, lw=0.5, zorder=0, transform=self.ax.get_yaxis_transform())

    def axis(self, ticks: Sequence[float], texts: Sequence[str], label: str) -> None:
        """Ticks and the label of the horizontal axis."""
        self.ax.set_xticks(list(ticks), list(texts), **style(self.ax))
        unit = self.unit
        self.ax.tick_params(axis="x", length=2.5 * unit, pad=2 * unit, color=INK, labelcolor=INK)
        write(self.ax, label, (0.5, 0), (0, -TICK - 6), self.ax.transAxes, ha="center")

    def symmetric_axis(self, scale: Scale, label: str) -> None:
        """A printed scale from −limit to +limit."""
        limit = scale.limit
        ticks = np.linspace(-limit, limit, 5 if self.middle >= 150 else 3).tolist()
        self.ax.set_xlim(-limit * 1.04, limit * 1.04)
        self.ax.axvline(0, color=INK, lw=0.7, zorder=1)
        self.axis(ticks, [_round_number(tick) for tick in ticks], label)

    def key(self, scale: Scale, below: float, labels: Sequence[str]) -> None:
        """The scale of colours, printed: "▼ −0.5 [colours] +0.5 ▲".

        Args:
            scale: the scale.
            below: from the rows down to the middle of the key, in units.
            labels: what to write behind the colours: the first that fits, if any does.
        """
        ax, limit = self.ax, scale.limit
        low, high = f"▼ {_round_number(-limit)}", f"{_round_number(limit)} ▲"
        before, after = width_of(ax, low) + GAP, width_of(ax, high) + GAP
        room = self.box[2] - before - _KEY_WIDTH - after - 2 * GAP
        label = next((each for each in labels if width_of(ax, each) <= room), "")
        total = before + _KEY_WIDTH + after + (2 * GAP + width_of(ax, label) if label else 0)
        start = self.box[0] + (self.box[2] - total) / 2 - self.left + before
        cell = _KEY_WIDTH / _KEY_CELLS
        points = self._points(0, 0)
        for number in range(_KEY_CELLS):
            value = limit * (2 * (number + 0.5) / _KEY_CELLS - 1)
            patch = Rectangle((start + number * cell, -below - 3.5), cell, 7, fc=scale.colour(value), ec="none")
            self._add(patch, points)
        self._add(Rectangle((start, -below - 3.5), _KEY_WIDTH, 7, fc="none", ec=INK, lw=0.5), points)
        write(ax, low, (0, 0), (start - GAP, -below), ax.transAxes, ha="right")
        write(ax, high, (0, 0), (start + _KEY_WIDTH + GAP, -below), ax.transAxes, ha="left")
        if label:
            write(ax, label, (0, 0), (start + _KEY_WIDTH + after + 2 * GAP, -below), ax.transAxes, ha="left")

    @property
    def left(self) -> float:
        """From the figure's edge to the axes', in units."""
        return float(self.ax.get_window_extent().x0 * 72 / figure_of(self.ax).dpi) / self.unit

    def area(self, side: float) -> float:
        """The `s` of a mark whose side is a length in units."""
        return (side * self.unit) ** 2

    def inches(self, length: float) -> str:
        """A length in units, as text in inches."""
        return f"{length * self.unit / 72:.2g}"

    def _add(self, patch: Rectangle, points: Transform) -> None:
        patch.set_transform(points)
        patch.set_clip_on(False)
        self.ax.add_artist(patch)

    def _points(self, x: float, y: float) -> Transform:
        """Units from a place of the axes, in parts of it."""
        figure: Any = figure_of(self.ax)
        return (
            Affine2D().scale(self.unit / 72)
            + figure.dpi_scale_trans
            + ScaledTranslation(x, y, cast(Any, self.ax.transAxes))
        )


def _box(ax: Axes, margin: float) -> tuple[float, float, float, float]:
    figure = figure_of(ax)
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()  # which places the axes
    box: Bbox = ax.get_window_extent()
    x, y, width, height = (each * 72 / figure.dpi / unit_of(ax) for each in box.bounds)
    return x + margin, y + margin, width - 2 * margin, height - 2 * margin


def _fraction(ax: Axes, x: float, y: float, width: float, height: float) -> Bbox:
    """A box in units as parts of the (sub)figure that holds the axes."""
    scale = figure_of(ax).dpi / 72 * unit_of(ax)
    pixels = Bbox.from_bounds(x * scale, y * scale, width * scale, height * scale)
    holder: Any = ax.get_figure()
    return pixels.transformed(holder.transSubfigure.inverted())


def _round_number(value: float) -> str:
    return "0" if value == 0 else f"{value:+.3g}".replace("-", "−")


def numbers_of(scale: Scale, digits: int = 3) -> Numbers:
    """Texts of the contributions on a scale."""
    return Numbers(scale.limit, digits)

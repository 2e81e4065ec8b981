"""Texts of figures: names as they are, never as formulas or commands."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from deeplift_fast.support.colours import INK
from deeplift_fast.support.printable import printable

SIZE = 7.0
"""Points of every text, where nothing else is asked for.

Lengths of a figure are in units: parts of the text's size, points where it is `SIZE`. A figure with larger text is the
same figure, larger, in a page of the same width.
"""

SMALLEST, LARGEST = 5.0, 24.0
"""Points that text may have."""

_SPARE = 1.05
"""Part by which a text may be wider in another format or resolution than where it was measured."""

MOST_LETTERS = 300
"""Letters of a name that are looked at: what is longer fits nowhere."""


def set_size(ax: Axes, size: float) -> None:
    """Sets the size of every text of axes, in points. The axes' own label keeps it."""
    ax.xaxis.label.set_fontsize(size)


def unit_of(ax: Axes) -> float:
    """Points of one unit of length."""
    return float(ax.xaxis.label.get_fontsize()) / SIZE


def style(ax: Axes) -> dict[str, Any]:
    """How every text is drawn: no mathematics, no LaTeX, with a font that has ▲ and ▼ behind the user's own."""
    families = [*mpl.rcParams["font.family"], "DejaVu Sans"]
    return {"fontsize": SIZE * unit_of(ax), "parse_math": False, "usetex": False, "family": families}


def write(
    ax: Axes, text: str, xy: tuple[float, float], offset: tuple[float, float], coords: Any, **how: Any
) -> Annotation:
    """A text beside a point of the axes.

    Args:
        ax: the axes.
        text: what to write, as it is.
        xy: the point.
        offset: from the point to the text, in units.
        coords: what `xy` is in, as `Axes.annotate` takes it.
        **how: further properties of the text.
    """
    how = {"color": INK, "va": "center_baseline", **style(ax), **how}
    points = (offset[0] * unit_of(ax), offset[1] * unit_of(ax))
    return ax.annotate(text, xy, points, xycoords=coords, textcoords="offset points", annotation_clip=False, **how)


def figure_of(ax: Axes) -> Figure:
    """The figure that axes are in, or in a part of."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def width_of(ax: Axes, text: str) -> float:
    """How wide a text is, in units."""
    if not text:
        return 0.0
    figure = figure_of(ax)
    probe = Text(0, 0, text, figure=figure, **style(ax))
    return float(probe.get_window_extent().width * 72 / figure.dpi) / unit_of(ax) * _SPARE


def shortened(ax: Axes, name: str, width: float, details: Sequence[str] = ("",)) -> str:
    """A name and a detail that fit a width in units.

    The first detail beside which the name fits whole is taken. Where there is none, the name is cut with "…" beside the
    last. Control characters, formatting and bidirectional ones are shown as escapes.
    """
    whole = printable(name[:MOST_LETTERS])
    shown, cut = whole[:MOST_LETTERS], len(name) > MOST_LETTERS or len(whole) > MOST_LETTERS
    for detail in () if cut else details:
        if width_of(ax, shown + detail) <= width:
            return shown + detail
    low, high, last = 0, len(shown), details[-1]
    while low < high:
        middle = (low + high + 1) // 2
        fits = width_of(ax, shown[:middle].rstrip() + "…" + last) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return shown[:low].rstrip() + "…" + last

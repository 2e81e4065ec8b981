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
"""Points of every text."""

_SPARE = 1.05
"""Part by which a text may be wider in another format or resolution than where it was measured."""

MOST_LETTERS = 300
"""Letters of a name that are looked at: what is longer fits nowhere."""


def style() -> dict[str, Any]:
    """How every text is drawn: no mathematics, no LaTeX, with a font that has ▲ and ▼ behind the user's own."""
    families = [*mpl.rcParams["font.family"], "DejaVu Sans"]
    return {"fontsize": SIZE, "parse_math": False, "usetex": False, "family": families}


def write(
    ax: Axes, text: str, xy: tuple[float, float], offset: tuple[float, float], coords: Any, **how: Any
) -> Annotation:
    """A text beside a point of the axes.

    Args:
        ax: the axes.
        text: what to write, as it is.
        xy: the point.
        offset: from the point to the text, in points.
        coords: what `xy` is in, as `Axes.annotate` takes it.
        **how: further properties of the text.
    """
    how = {"color": INK, "va": "center_baseline", **style(), **how}
    return ax.annotate(text, xy, offset, xycoords=coords, textcoords="offset points", annotation_clip=False, **how)


def figure_of(ax: Axes) -> Figure:
    """The figure that axes are in, or in a part of."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def width_of(ax: Axes, text: str) -> float:
    """How wide a text is, in points."""
    if not text:
        return 0.0
    figure = figure_of(ax)
    probe = Text(0, 0, text, figure=figure, **style())
    return float(probe.get_window_extent().width * 72 / figure.dpi) * _SPARE


def shortened(ax: Axes, name: str, width: float, details: Sequence[str] = ("",)) -> str:
    """A name and a detail that fit a width in points.

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

"""The distribution of one code's contributions as SVG: a dot per sample, one path per colour."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

WIDTH, HEIGHT = 1200, 102
"""Units of the drawing; three units are one pixel where the drawing is 400 pixels wide."""

MARK = 10.0
"""Units across a dot."""

_EDGE = 12
"""Units that stay free at both ends."""

LEVELS = ("low", "middle", "high")
"""Thirds of a row's measured values, which have a colour each."""


@dataclass(frozen=True)
class Swarm:
    """A drawing.

    Attributes:
        paths: class and path of each colour: "p" and "n" for the sign of a code's contribution; of a value "low",
            "middle" and "high", and "none" where it was not measured.
        mean: place of the mean.
        low: place of the lower end of its interval; `None` without an interval.
        high: place of its upper end, likewise.
        text: the colours in words, for values; empty for codes.
    """

    paths: tuple[tuple[str, str], ...]
    mean: int
    low: int | None
    high: int | None
    text: tuple[tuple[str, float], ...]


def swarm_of(points: pd.DataFrame, limit: float, mean: float, interval: tuple[float, float], most: int) -> Swarm:
    """The drawing of a row.

    Args:
        points: samples of its contributions: the columns `contribution` and `value`.
        limit: the contribution at both ends; points beyond it are drawn at the end.
        mean: mean contribution.
        interval: ends of its interval; NaN for none.
        most: the largest number of points; the first ones are drawn.
    """
    points = points.head(most).sort_values("contribution")
    x = np.array([place(each, limit) for each in points["contribution"]], np.int64)
    y = np.rint(HEIGHT / 2 + swarmed(x.astype(float), MARK) * (HEIGHT / 2 - MARK / 2 - 1)).astype(np.int64)
    levels = _levels(points["value"].to_numpy()) if points["value"].notna().any() else _signs(points["contribution"])
    paths = tuple((level, _path(x[levels == level], y[levels == level])) for level in np.unique(levels).tolist())
    named = [(level, points["contribution"][levels == level]) for level in ("low", "high")]
    text = tuple((level, float(values.median())) for level, values in named if len(values))
    ends = [None if np.isnan(end) else place(end, limit) for end in interval]
    return Swarm(paths, place(mean, limit), ends[0], ends[1], text)


def place(contribution: float, limit: float) -> int:
    """The place of a contribution on an axis from `-limit` to `limit`."""
    share = max(-1.0, min(1.0, contribution / limit))
    return round(WIDTH / 2 + share * (WIDTH / 2 - _EDGE))


def swarmed(places: np.ndarray, mark: float) -> np.ndarray:
    """How far each mark lies from its row's middle, from −1 to 1.

    Marks within one mark's width are set alternately above and below the middle.

    Args:
        places: places of marks along the row, floating point `[marks]`.
        mark: width of a mark.
    """
    cells = np.floor(places / mark).astype(int)
    rank = pd.Series(cells).groupby(cells).cumcount().to_numpy()
    step = (rank + 1) // 2 * np.where(rank % 2, 1, -1)
    # Few marks stand close together; many fill the row.
    return step / max(float(np.abs(step).max(initial=0)), 2.0)


def _levels(values: np.ndarray) -> np.ndarray:
    """The third of each value, as text; "none" for one that was not measured."""
    low, high = np.nanquantile(values, [1 / 3, 2 / 3])
    third = np.where(values < low, "low", np.where(values > high, "high", "middle"))
    return np.where(np.isnan(values), "none", third)


def _signs(contributions: Sequence[float] | pd.Series) -> np.ndarray:
    return np.where(np.asarray(contributions) < 0, "n", "p")


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Dots as segments without length, each relative to the one before."""
    steps = np.stack([np.diff(x, prepend=0), np.diff(y, prepend=0)], axis=1).tolist()
    return "".join(f"m{across}{'' if down < 0 else ' '}{down}h0" for across, down in steps)

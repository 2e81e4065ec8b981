"""Colours of contributions, and the scale that they are on: symmetric about 0.

Orange raises the output and purple lowers it, after ColorBrewer's PuOr, which people with every kind of colour
blindness can tell apart; the two also differ in lightness.
"""

import math

import numpy as np

Colour = tuple[float, float, float]

RAISES, LOWERS = "#b35806", "#542788"
"""Marks of positive and of negative contributions."""

INK, FAINT = "#1a1a1a", "#d9d9d9"
"""Text and axes; lines that guide the eye."""

NEUTRAL = "#6b6b6b"
"""Marks without a sign."""

CELLS = (LOWERS, "#998ec3", "#d8daeb", "#ffffff", "#fee0b6", "#f1a340", RAISES)
"""Colours of cells at equal distances, from the most negative to the most positive."""

_NICE = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


class Scale:
    """A symmetric scale of contributions.

    Args:
        limit: the contribution at its end, above 0.

    Raises:
        ValueError: if `limit` is not above 0, or not finite.
    """

    def __init__(self, limit: float) -> None:
        if not (math.isfinite(limit) and limit > 0):
            raise ValueError(f"limit is {limit}; accepted: a finite number above 0, where the scale ends")
        self.limit = float(limit)

    @classmethod
    def of(cls, values: np.ndarray, limit: float | None = None) -> "Scale":
        """The scale that holds these contributions and ends at a round number, unless a limit is given."""
        if limit is not None:
            return cls(limit)
        largest = float(np.abs(values).max(initial=0.0))
        if largest == 0:
            return cls(1.0)
        unit = 10.0 ** math.floor(math.log10(largest))
        return cls(next((n * unit for n in _NICE if n * unit >= largest * (1 - 1e-9)), 10 * unit))

    def colour(self, value: float) -> Colour:
        """The colour of a cell; contributions beyond the limit have that of the limit."""
        place = (0.5 + 0.5 * max(-1.0, min(1.0, value / self.limit))) * (len(CELLS) - 1)
        first = min(int(place), len(CELLS) - 2)
        low, high = np.array(rgb(CELLS[first])), np.array(rgb(CELLS[first + 1]))
        red, green, blue = (low + (place - first) * (high - low)).tolist()
        return red, green, blue


def rgb(colour: Colour | str) -> Colour:
    """Red, green and blue from 0 to 1 of such a colour, or of a text such as "#b35806"."""
    if not isinstance(colour, str):
        return colour
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue


def text_of(colour: Colour) -> str:
    """A colour as a text such as "#b35806"."""
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in colour)


def mark(value: float) -> str:
    """The colour of a mark, by the sign of what it shows."""
    return RAISES if value > 0 else LOWERS if value < 0 else NEUTRAL


def ink_on(background: Colour) -> str:
    """Black or white, whichever stands out more: always at least 4.5 to 1."""
    black, white = contrast(background, (0, 0, 0)), contrast(background, (1, 1, 1))
    return "black" if black >= white else "white"


def contrast(one: Colour | str, other: Colour | str) -> float:
    """The contrast of two colours, from 1 to 21 (WCAG 2.2, "contrast ratio")."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: Colour | str) -> float:
    """The relative luminance of a colour, from 0 to 1 (WCAG 2.2)."""
    channels = np.array(rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])

"""Texts of pages: names as they are, days and counts. Filters of the templates, and their models' too."""

import math
from typing import Any

from deeplift_fast.report.grouping import EMPTY
from deeplift_fast.support.printable import printable

LONGEST = 120
"""Characters of a name that a page shows; a longer one says how long it is."""


def cut(text: object, longest: int = LONGEST) -> str:
    """A text in one line, with control, formatting and bidirectional characters as escapes.

    Of a text longer than `longest`, the beginning and its length are shown; "(empty)" stands for nothing to see.
    """
    whole = str(text)
    shown = printable(whole[: longest + 1]).strip()
    if len(whole) <= longest and len(shown) <= longest:
        return shown or EMPTY
    return f"{shown[:longest].rstrip()}… ({len(whole):,} characters)"


def name(text: object, longest: int = LONGEST) -> Any:
    """A name from data as HTML: as by :func:`cut`, and apart from the direction of the text around it."""
    from markupsafe import Markup

    return Markup("<bdi>{}</bdi>").format(cut(text, longest))


def day(days: float | None) -> str:
    """Days from the first record, in whole days: "day 12"; "no date" where unknown."""
    if days is None or math.isnan(days):
        return "no date"
    return f"day {math.floor(days):,}".replace("-", "−")


def count(number: int, one: str, several: str | None = None) -> str:
    """A number of things: "1 stay", "12 stays"."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def sig(number: float) -> str:
    """A number for a script to sort by, with five digits."""
    return f"{number:.5g}"


def share(part: float) -> str:
    """A probability in percent: "34 %", "2.3 %", "0.04 %"; "< 0.01 %" and "> 99.99 %" at its ends."""
    percent = 100 * part
    if percent < 0.01:
        return "< 0.01 %" if percent > 0 else "0 %"
    if percent > 99.99:
        return "> 99.99 %" if percent < 100 else "100 %"
    outside = min(percent, 100 - percent)
    digits = 0 if outside >= 9.5 else 1 if outside >= 0.95 else 2
    return f"{percent:.{digits}f} %"

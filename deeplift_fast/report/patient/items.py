"""What a row of the timeline or a bar of the waterfall stands for: a code or dimension, with all its rows."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from deeplift_fast.report.formats import cut
from deeplift_fast.report.patient.rows import Row, Sample
from deeplift_fast.report.titles import Title, Titles
from deeplift_fast.support.numbers import short

_LEAST_LETTERS = 5
"""An identifier shorter than this is not looked for within names: it may be part of any code."""

HIDDEN = "[identifier]"
"""What stands for an identifier within a name on a pseudonymous page."""


@dataclass(frozen=True)
class Item:
    """A code or dimension of a sample.

    Attributes:
        feature: key of its feature.
        code: its text in the table.
        title: what it is called.
        detail: its code where the title is another text, or its unit and reference range; may be empty.
        is_value: whether it is a dimension of a feature of values.
        unit: unit of its values; may be empty.
        low: lower end of the reference range; `None` where not known, or where values come in several units.
        high: its upper end.
        attribution: sum of its rows' contributions.
        rows: its rows, oldest first.
        count: how many codes it stands for: more than one for the rare codes of a pseudonymous page.
    """

    feature: str
    code: str
    title: str
    detail: str
    is_value: bool
    unit: str
    low: float | None
    high: float | None
    attribution: float
    rows: tuple[Row, ...]
    count: int = 1

    def flag(self, value: float) -> str:
        """ "H" for a value above the reference range, "L" for one below, else nothing."""
        if self.high is not None and value > self.high:
            return "H"
        return "L" if self.low is not None and value < self.low else ""

    def before(self, rows: Sequence[Row]) -> Row | None:
        """The newest measured row before each of these rows of values; `None` if there is none, or not the same."""
        steps = [row.step for row in self.rows]
        if self.count > 1 or len(set(steps)) < len(steps):  # two dimensions of one name
            return None
        measured = [row for row in self.rows if row.value is not None and row.measured is not False]
        found = {max((row.step for row in measured if row.step < each.step), default=None) for each in rows}
        step = found.pop() if len(found) == 1 else None
        return next((row for row in measured if row.step == step), None)

    def shown(self, value: float) -> str:
        """A value with its unit."""
        return f"{short(value)} {self.unit}".strip()


def items_of(
    sample: Sample, titles: Titles | None, rare: Collection[tuple[str, str]] = (), hidden: Collection[str] = ()
) -> list[Item]:
    """The codes and dimensions of a sample, the largest |sum| first.

    Args:
        sample: the sample.
        titles: what codes are called; `None` where nothing is known.
        rare: features and codes that must not be named; they become one item for each feature.
        hidden: identifiers that must not be part of a name.
    """
    grouped: dict[tuple[str, str | None], list[Row]] = {}
    for row in sample.rows:
        key = (row.feature, None if (row.feature, row.name) in rare else row.name)
        grouped.setdefault(key, []).append(row)
    found = [_item(key, rows, sample, titles, hidden) for key, rows in grouped.items()]
    called = [item.title for item in found]
    found = [_apart(item) if called.count(item.title) > 1 else item for item in found]
    return sorted(found, key=lambda item: -abs(item.attribution))


def _item(
    key: tuple[str, str | None], rows: Sequence[Row], sample: Sample, titles: Titles | None, hidden: Collection[str]
) -> Item:
    feature, code = key
    total = math.fsum(row.attribution for row in rows)
    is_value = feature in sample.valued
    if code is None:
        count = len({row.name for row in rows})
        title = f"{count} rare {'value' if is_value else 'code'}{'s' if count > 1 else ''}"
        return Item(feature, "", title, "not named", is_value, "", None, None, total, tuple(rows), count)
    about = None if titles is None else titles.find(feature, code)
    unit, low, high = "", None, None
    if about is not None and is_value:
        unit = about.unit or ""
        low, high = (None, None) if about.mixed else (about.low, about.high)
    title = cut(_without(about.text if about is not None else code, hidden))
    detail = "" if about is None else _range(about) if is_value else _code(about, code, hidden)
    return Item(feature, code, title, detail, is_value, unit, low, high, total, tuple(rows))


def _code(about: Title, code: str, hidden: Collection[str]) -> str:
    shown = cut(_without(code, hidden), 24)
    return f"{shown} (?)" if about.ambiguous else shown


def _range(about: Title) -> str:
    """ "0.5–1.2 mg/dL", "mg/dL", or "mostly mg/dL" where there are other units too, and no range holds for all."""
    if about.mixed:
        return f"mostly {about.unit}" if about.unit else ""
    return f"{about.range} {about.unit or ''}".strip()


def _apart(item: Item) -> Item:
    """An item whose title others have too: it says its feature."""
    from dataclasses import replace

    return replace(item, title=f"{item.title} ({cut(item.feature, 24)})")


def _without(text: str, hidden: Collection[str]) -> str:
    """A text without the identifiers in it, as whole words."""
    for each in sorted(hidden, key=len, reverse=True):
        if len(each) >= _LEAST_LETTERS and each in text:
            text = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)", HIDDEN, text)
    return text

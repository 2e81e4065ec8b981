"""Units and reference ranges of laboratory items."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deeplift_fast.report.release import Range

CATEGORIES: dict[str, tuple[str, ...]] = {
    "Sodium": ("50824", "52455", "50983", "52623"),
    "Potassium": ("50822", "52452", "50971", "52610"),
    "Chloride": ("50806", "52434", "50902", "52535"),
    "Bicarbonate": ("50803", "50804"),
    "Glucose": ("50809", "52027", "50931", "52569"),
    "Calcium": ("50808", "51624"),
    "Magnesium": ("50960",),
    "Anion Gap": ("50868", "52500"),
    "Osmolality": ("52031", "50964", "51701"),
    "Phosphate": ("50970",),
}
"""Items of each dimension of PyHealth's `MortalityPredictionStageNetMIMIC4`, copied from its `LAB_CATEGORIES`."""


@dataclass(frozen=True)
class Measure:
    """The unit and the reference range of one or more items.

    Attributes:
        unit: the most common unit; `None` if none is recorded.
        low: lower end of the most common reference range in this unit; `None` if none is recorded.
        high: its upper end.
        mixed: whether values come in other units too.
    """

    unit: str | None = None
    low: float | None = None
    high: float | None = None
    mixed: bool = False


def measure(items: Iterable[str], ranges: Mapping[str, Counter[Range]]) -> Measure:
    """The unit and range of items that share a dimension.

    Args:
        items: their item ids.
        ranges: units and ranges by item, as :func:`deeplift_fast.report.release.lab_ranges` counts them. Units that
            differ in capitals or spaces alone count as one.
    """
    units: dict[str, Counter[Range]] = {}
    for item in items:
        for key, count in ranges.get(item, {}).items():
            units.setdefault("".join(key[0].split()).casefold(), Counter())[key] += count
    named = {name: counts for name, counts in units.items() if name} or units
    if not named:
        return Measure()
    counts = max(named.values(), key=Counter.total)
    spelled: Counter[str] = Counter()
    known: Counter[tuple[float | None, float | None]] = Counter()
    for (unit, low, high), count in counts.items():
        spelled[unit] += count
        if low is not None or high is not None:
            known[low, high] += count
    low, high = known.most_common(1)[0][0] if known else (None, None)
    return Measure(spelled.most_common(1)[0][0] or None, low, high, len(named) > 1)

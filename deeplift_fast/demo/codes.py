"""Codes of the synthetic hospital: ICD-10-CM diagnoses, ICD-10-PCS procedures and laboratory items.

They are read from `codes.csv` and `lab_items.csv` of `deeplift_fast.support`. Codes have no dots, as in MIMIC-IV; titles
are the official ones of the 2024 release. Laboratory items are those of
:attr:`MortalityPredictionStageNetMIMIC4.LAB_CATEGORIES`, with MIMIC-IV's labels.
"""

from dataclasses import dataclass

from deeplift_fast.support.packaged import packaged_rows


@dataclass(frozen=True)
class LabItem:
    """One row of ``d_labitems``, and the distribution of its values in the synthetic hospital.

    Attributes:
        itemid: MIMIC-IV's item id.
        label: MIMIC-IV's name of the item.
        category: Laboratory section, ``"Chemistry"`` or ``"Blood Gas"``.
        analyte: The lab category of PyHealth's StageNet task that the item belongs to.
        unit: Unit of ``mean`` and ``spread``.
        mean: Mean value among patients.
        spread: Standard deviation among patients.
        decimals: Digits after the point that the laboratory reports.
        low: Lower end of the reference range; values outside are flagged abnormal.
        high: Its upper end.
        share: Share of blood draws of its section on which the item is measured.
    """

    itemid: int
    label: str
    category: str
    analyte: str
    unit: str
    mean: float
    spread: float
    decimals: int
    low: float
    high: float
    share: float


def _titles(kind: str) -> dict[str, str]:
    return {row["code"]: row["title"] for row in packaged_rows("codes.csv") if row["kind"] == kind}


DIAGNOSES = _titles("diagnosis")
"""Titles of diagnoses by code."""

PROCEDURES = _titles("procedure")
"""Titles of procedures by code."""

LAB_ITEMS = tuple(
    LabItem(**{name: LabItem.__annotations__[name](text) for name, text in row.items()})
    for row in packaged_rows("lab_items.csv")
)
"""The items that the laboratory measures."""

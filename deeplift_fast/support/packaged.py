"""Codes and laboratory items that the package holds: those of the synthetic hospital, and ICD-9 codes like them."""

import csv
from importlib.resources import files


def packaged_rows(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file of this package, `codes.csv`, `icd9_codes.csv` or `lab_items.csv`."""
    return list(csv.DictReader(files("deeplift_fast.support").joinpath(name).read_text(encoding="utf-8").splitlines()))

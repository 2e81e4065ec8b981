"""Titles of codes, and units and reference ranges of laboratory items, from a MIMIC-IV release or from this package.

ICD-9 and ICD-10 share code strings, and so do diagnoses and procedures (0040 is a disease in one dictionary and a
procedure in another; E871 is a diagnosis in both versions). A token's text may name the version (`9_4019`,
`ICD10CM_I10`), and its feature's name the dictionary (`procedures`). Else `hosp/diagnoses_icd` and
`hosp/procedures_icd` decide: what never occurs there is left out. If several entries still match, all are shown and
marked, the most frequent first.
"""

import re
from collections import Counter
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from deeplift_fast.errors import SummaryError
from deeplift_fast.report.lab_items import CATEGORIES, Measure, measure
from deeplift_fast.report.release import (
    DIAGNOSES,
    LABS,
    PROCEDURES,
    Range,
    code_uses,
    find_table,
    lab_ranges,
    plain,
    read_columns,
)
from deeplift_fast.support.home import expanded
from deeplift_fast.support.packaged import packaged_rows

DICTIONARIES = (DIAGNOSES, PROCEDURES, LABS)

_VERSION = re.compile(r"^(?:ICD[-_ ]?)?(9|10)(?:[-_ ]?(CM|PCS|PROC))?[_:/| -]\s*(.+)$", re.IGNORECASE)
_FEATURES = {
    DIAGNOSES: re.compile("diag|cond", re.IGNORECASE),
    PROCEDURES: re.compile("proc", re.IGNORECASE),
    LABS: re.compile("lab", re.IGNORECASE),
}
_NO_LABS = re.compile("diag|cond|proc|drug|presc|medic|atc|ndc", re.IGNORECASE)


@dataclass(frozen=True)
class Title:
    """The description of a code or dimension.

    Attributes:
        text: the description; several are joined by " / ", each with its origin. A dimension that has the name of a
            laboratory item is described by this name.
        ambiguous: whether several entries match.
        unit: of laboratory items, the most common unit; else `None`.
        low: of laboratory items, the lower end of the most common reference range in this unit; else `None`.
        high: its upper end.
        mixed: whether values come in other units too, so that unit and range hold for a part of them.
    """

    text: str
    ambiguous: bool = False
    unit: str | None = None
    low: float | None = None
    high: float | None = None
    mixed: bool = False

    @property
    def range(self) -> str:
        """The reference range as text: "133–145", "≤ 5", "≥ 60"; empty if unknown."""
        low, high = (None if end is None else f"{end:.6g}".replace("-", "−") for end in (self.low, self.high))
        if low is not None and high is not None:
            return f"{low}–{high}"
        return f"≥ {low}" if low is not None else f"≤ {high}" if high is not None else ""

    @property
    def measure(self) -> str:
        """Unit and range as text: "mEq/L, reference 133–145"; "mostly" if units are mixed; empty if unknown."""
        unit = f"mostly {self.unit}" if self.unit and self.mixed else self.unit or ""
        return ", ".join(filter(None, (unit, f"reference {self.range}" if self.range else "")))


@dataclass(frozen=True)
class _Entry:
    code: str
    dictionary: str
    version: int  # 9 or 10; 0 for laboratory items
    title: str

    def origin(self) -> str:
        if not self.version:
            return "laboratory item"
        return f"ICD-{self.version} {'diagnosis' if self.dictionary == DIAGNOSES else 'procedure'}"


class Titles:
    """The dictionaries of a MIMIC-IV release.

    The tables of codes are read, in whole and a block at a time, once a code has several meanings. The first
    `deeplift_fast.report.release.LAB_ROWS` rows of `hosp/labevents` are read once an item is looked up.

    Args:
        root: its folder, which holds `hosp` and at least one of its dictionaries.

    Raises:
        SummaryError: if no dictionary is found, or one cannot be read.

    Example:
        >>> titles = Titles.packaged().renamed({"E119": "Type 2 diabetes"})  # or Titles("mimic-iv-3.1")
        >>> titles.find("codes", "E119").text
        'Type 2 diabetes'
    """

    _names: Mapping[Any, str] = MappingProxyType({})

    def __init__(self, root: Path | str) -> None:
        self._root: Path | None = expanded(Path(root), "--mimic-root")
        self._entries: dict[str, list[_Entry]] = {}
        found = [name for name in DICTIONARIES if self._read(self._root, name)]
        if not found:
            raise SummaryError(
                f"--mimic-root {self._root} holds none of hosp/{', hosp/'.join(DICTIONARIES)} (.csv.gz or .csv); give "
                "the folder of a MIMIC-IV release"
            )

    @classmethod
    def of(cls, root: Path | str | None) -> Self:
        """The titles of a MIMIC-IV release; of this package for `None`. Errors are those of the class."""
        return cls.packaged() if root is None else cls(root)

    @classmethod
    def packaged(cls) -> Self:
        """Titles, units and ranges of the synthetic hospital: 303 codes of ICD-10 and 15 laboratory items.

        The codes of ICD-9 that are written like one of these have their titles too: without a version in the token's
        text, both are shown.
        """
        self = cls.__new__(cls)
        self._root, self._entries = None, {}
        for version, name in ((10, "codes.csv"), (9, "icd9_codes.csv")):
            for row in packaged_rows(name):
                self._add(row["code"], DIAGNOSES if row["kind"] == "diagnosis" else PROCEDURES, version, row["title"])
        for row in packaged_rows("lab_items.csv"):
            self._add(row["itemid"], LABS, 0, row["label"])
        return self

    def renamed(self, names: Mapping[Any, str]) -> Self:
        """These titles with some of your own, such as short ones for a figure. Units and ranges stay.

        Args:
            names: your titles, by code or by (feature, code).

        Example:
            >>> from deeplift_fast.report.titles import Titles
            >>> titles = Titles.packaged().renamed({"I10": "Hypertension"})
            >>> titles.find("conditions", "I10").text
            'Hypertension'
        """
        new = copy(self)
        new._names = {**self._names, **names}
        return new

    @property
    def is_packaged(self) -> bool:
        """Whether these are the titles of this package."""
        return self._root is None

    def find(self, feature: str, code: str) -> Title | None:
        """The description of a feature's code or dimension; `None` if there is none.

        Args:
            feature: key of the feature.
            code: text of the token; or name of the dimension: an item id, the label of an item, or a category of
                PyHealth's `MortalityPredictionStageNetMIMIC4.LAB_CATEGORIES`.

        Raises:
            SummaryError: if a table of the release, read at the first need, cannot be read.
        """
        found = self._found(feature, code)
        own = self._names.get((feature, code), self._names.get(code))
        return found if own is None else replace(found or Title(""), text=own, ambiguous=False)

    def _found(self, feature: str, code: str) -> Title | None:
        """The description that the dictionaries have."""
        version, kind, bare = _split(code)
        entries = self._entries.get(plain(code), []) if not version else []
        entries = entries or [e for e in self._entries.get(plain(bare), []) if e.version in (version, 0)]
        hinted = {name for name, pattern in _FEATURES.items() if pattern.search(feature)}
        if not hinted and "icd" in feature.lower():
            hinted = {DIAGNOSES, PROCEDURES}
        if hinted and LABS not in hinted:  # the number of an item may be a code that no dictionary has
            entries = [entry for entry in entries if entry.dictionary != LABS]
        for dictionaries in ({kind}, hinted):
            entries = [entry for entry in entries if entry.dictionary in dictionaries] or entries
        if len({entry.title for entry in entries}) > 1:
            entries = self._occurring(entries)
        if not entries:
            return None if _NO_LABS.search(feature) else self._named(code)
        if len({entry.title for entry in entries}) == 1:
            lab = entries[0].dictionary == LABS
            return _title(entries[0].title, measure([entries[0].code], self._ranges) if lab else Measure())
        return Title(" / ".join(f"{entry.origin()}: {entry.title}" for entry in entries), ambiguous=True)

    def _named(self, name: str) -> Title | None:
        """The description of a dimension that has the name of a category or of a laboratory item."""
        wanted = name.strip().casefold()
        category, labelled = self._items.get(wanted, ((), ()))
        if not (category or labelled):
            return None
        found = measure(category, self._ranges)
        return _title(name.strip(), found if found.unit else measure(labelled, self._ranges))

    @cached_property
    def _items(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """By name in small letters: the known items of the category of this name, and those with this label."""
        labs = [entry for entries in self._entries.values() for entry in entries if entry.dictionary == LABS]
        known = {entry.code for entry in labs}
        labelled: dict[str, list[str]] = {}
        for entry in labs:
            labelled.setdefault(entry.title.casefold(), []).append(entry.code)
        categories = {name.casefold(): tuple(i for i in items if i in known) for name, items in CATEGORIES.items()}
        names = {*labelled, *categories} - {""}
        return {name: (categories.get(name, ()), tuple(labelled.get(name, ()))) for name in names}

    @cached_property
    def _ranges(self) -> dict[str, Counter[Range]]:
        if self._root is not None:
            return lab_ranges(self._root)
        return {
            row["itemid"]: Counter({(row["unit"], float(row["low"]), float(row["high"])): 1})
            for row in packaged_rows("lab_items.csv")
        }

    @cached_property
    def _uses(self) -> Counter[tuple[str, str, int]]:
        return Counter() if self._root is None else code_uses(self._root)

    def _occurring(self, entries: list[_Entry]) -> list[_Entry]:
        """The entries of codes that occur, the most frequent first; all if none occurs."""
        uses = {entry: self._uses[entry.dictionary, entry.code, entry.version] for entry in entries}
        found = [entry for entry in entries if uses[entry]] or entries
        return sorted(found, key=lambda entry: -uses[entry])

    def _read(self, root: Path, name: str) -> bool:
        path = find_table(root, f"hosp/{name}")
        if path is None:
            return False
        wanted = ["itemid", "label"] if name == LABS else ["icd_code", "icd_version", "long_title"]
        for block in read_columns(path, wanted):
            codes, *versions, titles = (column.to_pylist() for column in block.columns)
            for code, version, title in zip(codes, *(versions or [[0] * len(codes)]), titles, strict=True):
                try:
                    self._add(code or "", name, int(version), title or "")
                except (TypeError, ValueError) as error:
                    raise SummaryError(f"{path} cannot be read: icd_version is {version!r}; it is 9 or 10") from error
        return True

    def _add(self, code: str, dictionary: str, version: int, title: str) -> None:
        entry = _Entry(plain(code), dictionary, version, title.strip())
        self._entries.setdefault(entry.code, []).append(entry)


def _title(text: str, found: Measure) -> Title:
    return Title(text, False, found.unit, found.low, found.high, found.mixed)


def _split(code: str) -> tuple[int, str, str]:
    """The ICD version (0: none) and dictionary ("": none) that a token's text names, and the code itself."""
    match = _VERSION.match(code.strip())
    if match is None:
        return 0, "", code
    kinds = {"CM": DIAGNOSES, "PCS": PROCEDURES, "PROC": PROCEDURES}
    return int(match[1]), kinds.get((match[2] or "").upper(), ""), match[3]

"""Groups of samples: all of them, by label, or by a column of a CSV file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as pa_csv

from deeplift_fast.cohort.identifiers import IDENTIFIERS
from deeplift_fast.errors import SummaryError
from deeplift_fast.support.home import expanded
from deeplift_fast.support.printable import printable

MOST_GROUPS = 50
"""The largest number of groups of one column; each group costs memory."""

UNLISTED = "(not in the file)"
EMPTY = "(empty)"

# Columns of `samples` that identify a sample, and their names in data sets; visits are finer than patients.
_KEYS = {"visit_id": IDENTIFIERS["visit_id"], "patient_id": (*IDENTIFIERS["patient_id"], "subject_id")}


class Cut(Protocol):
    """Divides samples into groups."""

    @property
    def name(self) -> str:
        """Name of the property by which groups differ."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of `samples` that :meth:`assign` reads."""

    def assign(self, samples: pa.Table) -> np.ndarray:
        """The group of each sample: int64 `[samples]`, an index into `groups`; −1 for a sample in no group."""


def _same_groups(found: Mapping[str, np.ndarray], members: pd.Series) -> bool:
    """Whether every column assigns each sample to the same group."""
    first, *others = (np.where(place < 0, -1, members.to_numpy()[place]) for place in found.values())
    return all(np.array_equal(first, other) for other in others)


@dataclass(eq=False)
class Grouping:
    """Groups by a column of a CSV file, or one group of all samples.

    Attributes:
        name: name of the property by which groups differ, such as the column's name.
        keys: columns of `samples` that the file's identifiers may match; the column with more matches decides. Empty
            for one group of all samples.
        groups: names of the groups.
        members: group of each identifier, int64 with identifiers as index; `None` for one group of all samples.

    Example:
        >>> from deeplift_fast.report import Grouping
        >>> Grouping("overall", (), ("all",)).groups
        ('all',)
    """

    name: str
    keys: tuple[str, ...]
    groups: tuple[str, ...]
    members: pd.Series | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """As :attr:`Cut.columns`."""
        return self.keys

    def assign(self, samples: pa.Table) -> np.ndarray:
        """The group of each sample.

        Args:
            samples: rows of `samples`, with the columns `keys`.

        Returns:
            int64 `[samples]`, an index into `groups`; −1 for a sample in no group.

        Raises:
            SummaryError: if two columns match equally many samples but give different groups.
        """
        if self.members is None:
            return np.zeros(len(samples), dtype=np.int64)
        found = {key: self.members.index.get_indexer(pd.Index(samples[key].cast(pa.string()).to_pandas()))
                 for key in self.keys}  # fmt: skip
        listed = {key: int((place >= 0).sum()) for key, place in found.items()}
        best = max(listed, key=lambda key: listed[key])
        if len(self.keys) > 1 and listed[best]:
            if list(listed.values()).count(listed[best]) > 1 and not _same_groups(found, self.members):
                raise SummaryError(
                    f"--key: its values match the {' and the '.join(self.keys)} of equally many samples, in different "
                    "groups; rename the file's column to the right one of these names, and leave out --key"
                )
            self.keys = (best,)  # for further parts too
        place = found[best]
        return np.where(place < 0, self.groups.index(UNLISTED), self.members.to_numpy()[place])


EVERYONE = Grouping("overall", (), ("all",))


class ByLabel:
    """Groups by label, found as parts are read; no group where labels have more than `MOST_GROUPS` values."""

    name, columns = "label", ("label",)

    def __init__(self) -> None:
        self._places: dict[float, int] = {}
        self.too_many = False
        """Whether labels have more than `MOST_GROUPS` values; later samples are then in no group."""

    @property
    def groups(self) -> tuple[str, ...]:
        """As :attr:`Cut.groups`, in the order of their first samples."""
        return tuple(f"{label:g}" for label in self._places)

    @property
    def ordered(self) -> tuple[str, ...]:
        """The groups in the order of the summary; empty where labels have too many values."""
        return () if self.too_many else tuple(f"{label:g}" for label in sorted(self._places))

    def assign(self, samples: pa.Table) -> np.ndarray:
        """As :meth:`Cut.assign`; a sample without a label is in no group."""
        labels = samples["label"].to_numpy(zero_copy_only=False).astype(np.float64)
        known, place = np.unique(labels, return_inverse=True)
        numbers = np.array([-1 if np.isnan(label) else self._place(float(label)) for label in known], dtype=np.int64)
        return numbers[place] if len(labels) else np.zeros(0, np.int64)

    def _place(self, label: float) -> int:
        if label not in self._places and len(self._places) == MOST_GROUPS:
            self.too_many = True
        return -1 if self.too_many else self._places.setdefault(label, len(self._places))


def read_grouping(given: str, key: str | None = None) -> Grouping:
    """Groups by a column of a CSV file.

    Args:
        given: `FILE:COLUMN`. The file, gzipped or not, has a column `visit_id` (or `hadm_id`, `admission_id`,
            `record_id`) or `patient_id` (or `subject_id`); with both, the visit decides.
        key: another column that identifies samples, such as `person_id`; `None` to look for the names above. It
            identifies visits or patients, whichever match more samples.

    Raises:
        SummaryError: if the argument or the file is not accepted. Messages name no patient.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("wards.csv").write_text("patient_id,ward\\n10006,ICU\\n10011,CCU\\n")
        >>> read_grouping("wards.csv:ward").groups
        ('CCU', 'ICU', '(not in the file)')
    """
    path, _, column = given.rpartition(":")
    if not path or not column:
        raise SummaryError(f"--by is {given!r}; accepted: FILE.csv:COLUMN")
    table, columns = _read_columns(expanded(path, "--by"), column, key)
    key = key or columns[0]
    rows = table.to_pandas().drop_duplicates()
    if rows["key"].duplicated().any():
        count = rows.loc[rows["key"].duplicated(), "key"].nunique()
        raise SummaryError(
            f"--by {given}: {count} value(s) of {key} have several values of {column}; accepted: one group for each"
        )
    text = rows["group"].fillna(EMPTY).replace("", EMPTY)
    groups = sorted(text.unique())
    if len(groups) > MOST_GROUPS:
        raise SummaryError(
            f"--by {given}: {column} has {len(groups)} values; accepted: at most {MOST_GROUPS} (put values into "
            "ranges first)"
        )
    codes = pd.Series(pd.Index(groups).get_indexer(pd.Index(text)), index=pd.Index(rows["key"]))
    return Grouping(column, columns, (*groups, UNLISTED), codes)


def _read_columns(path: Path, column: str, key: str | None) -> tuple[pa.Table, tuple[str, ...]]:
    """The columns `key` and `group` of a CSV file as text, and the columns of `samples` that `key` may match."""
    if not os.access(path, os.R_OK) or path.is_dir():
        raise SummaryError(f"--by: {path} is not a file that can be read")
    try:
        with pa_csv.open_csv(path) as reader:
            names = reader.schema.names
        if key is not None and key not in names:
            raise SummaryError(f"--key is {key!r}; {path} has the columns {', '.join(map(printable, names))}")
        found: list[tuple[tuple[str, ...], str]]
        found = [((own,), name) for own, accepted in _KEYS.items() for name in accepted if name in names]
        if key is not None:
            found = [(tuple(_KEYS), key)]
        if not found:
            visits, patients = _KEYS["visit_id"], _KEYS["patient_id"]
            wanted = ", ".join([*visits[:2], *patients, *visits[2:]])  # MIMIC-IV's names first
            raise SummaryError(
                f"--by: {path} has no column that names samples; accepted: one of {wanted}, or another that --key names"
            )
        if column not in names:
            raise SummaryError(f"--by: {path} has no column {column!r}; it has {', '.join(map(printable, names))}")
        columns, name = found[0]
        types = pa_csv.ConvertOptions(
            column_types={name: pa.string(), column: pa.string()}, include_columns=[name, column]
        )
        table = pa_csv.read_csv(path, convert_options=types)
    except pa.ArrowInvalid as error:
        # Arrow's message quotes a line of the file, which may be a patient's data.
        raise SummaryError(f"--by: {path} cannot be read as CSV") from error
    keys, groups = table.column(0), table.column(1 if column != name else 0)
    return pa.table({"key": keys, "group": groups}), columns

"""Counts of a MIMIC-IV release's tables, read row by row: which codes of which ICD version, which units and ranges."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as pa_csv

from deeplift_fast.errors import SummaryError

LAB_ROWS = 1_000_000
"""Rows of `hosp/labevents` that are read; they hold every common item (a release has over 100 million rows)."""

DIAGNOSES, PROCEDURES, LABS = "d_icd_diagnoses", "d_icd_procedures", "d_labitems"
"""Dictionaries of a release."""

_USES = {DIAGNOSES: "hosp/diagnoses_icd", PROCEDURES: "hosp/procedures_icd"}

Range = tuple[str, float | None, float | None]
"""A unit, and the lower and upper end of the reference range."""


def find_table(root: Path, name: str) -> Path | None:
    """The file of a table, gzipped or not; `None` if neither is there.

    Args:
        root: folder of a MIMIC-IV release, which holds `hosp` and `icu`.
        name: path of the table under it, without suffix, such as `"hosp/patients"`.
    """
    return next((path for path in table_candidates(root, name) if path.is_file()), None)


def table_candidates(root: Path, name: str) -> tuple[Path, Path]:
    """The paths at which a table is looked for."""
    return root / f"{name}.csv.gz", root / f"{name}.csv"


def plain(code: str) -> str:
    """A code as MIMIC-IV writes it: capitals, no dots."""
    return code.strip().upper().replace(".", "")


def read_columns(path: Path, needed: list[str], optional: tuple[str, ...] = ()) -> Iterator[pa.RecordBatch]:
    """Columns of a table as text, a block of its rows at a time.

    Args:
        path: file of the table, gzipped or not.
        needed: columns that it must have.
        optional: columns that are null where the table lacks them.

    Raises:
        SummaryError: if the file is no such table.
    """
    columns = [*needed, *optional]
    convert = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), include_columns=columns, include_missing_columns=True
    )
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    try:
        with pa_csv.open_csv(path, parse_options=parse) as reader:
            missing = set(needed) - set(reader.schema.names)
        if missing:
            raise SummaryError(f"{path} cannot be read: it lacks the column(s) {', '.join(sorted(missing))}")
        with pa_csv.open_csv(path, parse_options=parse, convert_options=convert) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        row = re.search(r"Row #\d+", str(error))
        where = f", at {row[0].lower()}" if row else ""
        raise SummaryError(
            f"{path} cannot be read as a table of MIMIC-IV: it is no CSV{where}; put back the file of the release"
        ) from None  # the error quotes the row
    except OSError as error:
        raise SummaryError(f"{path} cannot be read as a table of MIMIC-IV ({error})") from error


def code_uses(root: Path) -> Counter[tuple[str, str, int]]:
    """How often each code occurs in a release, by dictionary, code and ICD version.

    All rows of `hosp/diagnoses_icd` and `hosp/procedures_icd` are read, a block at a time.

    Args:
        root: folder of the release.

    Raises:
        SummaryError: if a table cannot be read.
    """
    found: Counter[tuple[str, str, int]] = Counter()
    for dictionary, name in _USES.items():
        if (path := find_table(root, name)) is None:
            continue
        for code, version, count in _counted(path, ["icd_code", "icd_version"]):
            if code and version and version.strip() in ("9", "10"):
                found[dictionary, plain(code), int(version)] += count
    return found


def lab_ranges(root: Path) -> dict[str, Counter[Range]]:
    """How often each unit and reference range occurs in the first `LAB_ROWS` rows of `hosp/labevents`, by item.

    Args:
        root: folder of the release.

    Raises:
        SummaryError: if the table cannot be read.
    """
    found: dict[str, Counter[Range]] = {}
    if (path := find_table(root, "hosp/labevents")) is None:
        return found
    for item, unit, low, high, count in _counted(
        path, ["itemid"], ("valueuom", "ref_range_lower", "ref_range_upper"), LAB_ROWS
    ):
        ends = (unit or "").strip(), _number(low), _number(high)
        found.setdefault((item or "").strip(), Counter())[ends] += count
    return found


def _counted(path: Path, needed: list[str], optional: tuple[str, ...] = (), most: int | None = None) -> Iterator[tuple]:
    """Distinct rows of each block, and how often they occur in it; about the first `most` rows are read."""
    rows = 0
    for block in read_columns(path, needed, optional):
        table = pa.Table.from_batches([block])
        counts = table.group_by([*needed, *optional]).aggregate([([], "count_all")])
        yield from zip(*(counts[name].to_pylist() for name in (*needed, *optional, "count_all")), strict=True)
        rows += len(block)
        if most is not None and rows >= most:
            return


def _number(text: str | None) -> float | None:
    """A finite number; `None` for anything else."""
    try:
        number = float(text or "nan")
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None

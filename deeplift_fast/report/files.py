"""A summary as files: the table as CSV or Parquet, everything as JSON."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as pa_csv

from deeplift_fast.cohort.store import LocalStore, open_store
from deeplift_fast.errors import SummaryError
from deeplift_fast.report.summary import Summary
from deeplift_fast.support.home import expanded
from deeplift_fast.support.printable import cell
from deeplift_fast.support.temporary import temporary_file

SCHEMA = pa.schema(
    {
        "grouping": pa.string(),
        "group": pa.string(),
        "feature": pa.string(),
        "code": pa.string(),
        "kind": pa.string(),
        "count": pa.int64(),
        "samples": pa.int64(),
        "mean": pa.float64(),
        "mean_abs": pa.float64(),
        "share_positive": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "description": pa.string(),
        "ambiguous": pa.bool_(),
        "unit": pa.string(),
        "mixed": pa.bool_(),
        "ref_low": pa.float64(),
        "ref_high": pa.float64(),
        "baseline": pa.string(),
    }
)
"""Columns of the written table. `baseline`, the reference of the cohort's contributions, is the same in each row."""

OWN = {"attributions", "samples", "manifest.json", "failures.parquet", ".lock"}
"""Names in a cohort's folder that belong to the run. No summary is written there."""

ROOT = 0
"""The number of the user root, whose links are followed."""


def write_csv(summary: Summary, path: Path) -> None:
    """Writes the table as CSV, null as an empty field and texts through :func:`deeplift_fast.support.printable.cell`.

    Raises:
        SummaryError: if the path cannot be written, or belongs to the cohort.
    """
    _written(summary, path, lambda file: pa_csv.write_csv(_cells(_arrow(summary)), file))


def write_parquet(summary: Summary, path: Path) -> None:
    """Writes the table as Parquet.

    Raises:
        SummaryError: if the path cannot be written, or belongs to the cohort.
    """
    _written(
        summary, path, lambda file: pq.write_table(_arrow(summary), file, compression="zstd", write_page_checksum=True)
    )


def write_json(summary: Summary, path: Path) -> None:
    """Writes the fields of a `Summary`, except `described`, as JSON; `table` becomes a list of rows.

    Infinite numbers and NaN become null.

    Raises:
        SummaryError: if the path cannot be written, or belongs to the cohort.
    """
    completeness = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(summary.completeness).items()
    }
    content = {
        "out": summary.out,
        "rules": summary.rules,
        "baseline": summary.baseline,
        "prediction_difference": summary.prediction_difference,
        "completeness": completeness,
        "table": _arrow(summary).drop_columns("baseline").to_pylist(),
        "notes": list(summary.notes),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    _written(summary, path, lambda file: file.write(text.encode()))


def _arrow(summary: Summary) -> pa.Table:
    return pa.Table.from_pandas(summary.table.assign(baseline=summary.baseline), schema=SCHEMA, preserve_index=False)


def _cells(table: pa.Table) -> pa.Table:
    """A table whose texts are safe to open in a spreadsheet."""
    for place, field in enumerate(table.schema):
        if field.type == pa.string():
            texts = [None if text is None else cell(text) for text in table.column(place).to_pylist()]
            table = table.set_column(place, field, pa.array(texts, pa.string()))
    return table


def _is_the_cohorts(out: str, path: Path) -> bool:
    """Whether `path` is among the run's own files in the cohort's folder."""
    store = open_store(out)
    if not isinstance(store, LocalStore):
        return False
    folder, found = store.folder.resolve(), path.resolve()
    return folder in found.parents and found.relative_to(folder).parts[0] in OWN


def _written(summary: Summary, given: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a temporary file and renames it, so that readers never see half a file; devices and pipes are written to.

    The file is readable by its owner alone: a row of few samples is nearly one patient's data.
    """
    try:
        path = expanded(given, "path")
        if _is_the_cohorts(summary.out, path):
            raise SummaryError(
                f"{path} belongs to the cohort that is summarised; nothing was written to it; give another path"
            )
        if path.exists() and (path.is_symlink() or not path.is_file()):  # such as /dev/stdout, a pipe, or a folder
            if path.is_symlink() and path.lstat().st_uid not in (ROOT, os.geteuid()):
                raise SummaryError(f"{path} is a link of another user, which is not followed; give another path")
            with path.open("wb") as file:
                write(file)
        else:
            with temporary_file(path.parent) as (beside, file):
                write(file)
                file.flush()
                beside.replace(path)
    except OSError as error:
        raise SummaryError(f"{given} cannot be written ({error.strerror}); give another path") from error

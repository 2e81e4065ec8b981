"""A summary as files: the table as CSV or Parquet, everything as JSON."""

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pyarrow import csv as pa_csv

from deeplift_fast.report.errors import SummaryError
from deeplift_fast.report.summary import Summary

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
        "baseline": pa.string(),
    }
)
"""Columns of the table, every row of it: rows of few samples too. `baseline`, what the cohort's contributions are
relative to, is the same in each."""

OWN = {"attributions", "samples", "manifest.json", "failures.parquet", ".lock"}
"""What a run keeps in its folder: no summary goes there."""


def write_csv(summary: Summary, path: Path) -> None:
    """Writes the table as CSV, null as an empty field.

    Raises:
        SummaryError: if it cannot be written, or is one of the cohort's own files.
    """
    _written(summary, path, lambda file: pa_csv.write_csv(_arrow(summary), file))


def write_parquet(summary: Summary, path: Path) -> None:
    """Writes the table as Parquet.

    Raises:
        SummaryError: if it cannot be written, or is one of the cohort's own files.
    """
    _written(summary, path, lambda file: pq.write_table(_arrow(summary), file, compression="zstd"))


def write_json(summary: Summary, path: Path) -> None:
    """Writes everything as JSON: `out`, `rules`, `baseline`, `completeness`, `table` (a list of rows) and `notes`.

    What is no finite number is null.

    Raises:
        SummaryError: if it cannot be written, or is one of the cohort's own files.
    """
    completeness = {k: None if _is_not_finite(v) else v for k, v in asdict(summary.completeness).items()}
    content = {
        "out": summary.out,
        "rules": summary.rules,
        "baseline": summary.baseline,
        "completeness": completeness,
        "table": _arrow(summary).drop_columns("baseline").to_pylist(),
        "notes": list(summary.notes),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    _written(summary, path, lambda file: file.write(text.encode()))


def _arrow(summary: Summary) -> pa.Table:
    return pa.Table.from_pandas(summary.table.assign(baseline=summary.baseline), schema=SCHEMA, preserve_index=False)


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _is_the_cohorts(out: str, path: Path) -> bool:
    """Whether `path` is what the run itself wrote or will write into its folder."""
    files, root = fsspec.core.url_to_fs(out)
    folder, found = Path(root).resolve(), path.resolve()
    if not isinstance(files, LocalFileSystem) or folder not in found.parents:
        return False
    return found.relative_to(folder).parts[0] in OWN


def _written(summary: Summary, path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write beside `path` and rename, so that a reader never meets half a file; what is no file is written to itself.

    For the owner alone: rows of few samples are nearly one patient's data.
    """
    if _is_the_cohorts(summary.out, path):
        raise SummaryError(
            f"{path} belongs to the cohort that is summed up; nothing was written to it; give another path"
        )
    try:
        if path.exists() and (path.is_symlink() or not path.is_file()):  # such as /dev/stdout, a pipe, or a folder
            with path.open("wb") as file:
                write(file)
        else:
            _replaced(path, write)
    except OSError as error:
        raise SummaryError(f"{path} cannot be written ({error.strerror}); give another path") from error


def _replaced(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.touch(mode=0o600)
        with beside.open("wb") as file:
            write(file)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise

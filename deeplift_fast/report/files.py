"""A summary as files: the table as CSV or Parquet, everything as JSON."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as pa_csv

from deeplift_fast.cohort.about import metadata_of
from deeplift_fast.report.private_file import write_private
from deeplift_fast.report.summary import Summary
from deeplift_fast.support.printable import cell

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

OF_PAIRS = pa.schema(
    {
        "second_feature": pa.string(),
        "second_code": pa.string(),
        "second_description": pa.string(),
        "second_ambiguous": pa.bool_(),
        "patients": pa.int64(),
    }
)
"""Further columns where the cohort has interactions. A pair is a row of the kind "pair": `feature`, `code`,
`description` and `ambiguous` are those of its first code, and `count` is its number of samples."""

_FIRST = {"first_feature": "feature", "first_code": "code", "first_description": "description"}
_FIRST |= {"first_ambiguous": "ambiguous"}


def write_csv(summary: Summary, path: Path) -> None:
    """Writes the table as CSV, null as an empty field and texts through :func:`deeplift_fast.support.printable.cell`.

    Raises:
        SummaryError: if the path cannot be written, or belongs to the cohort.
    """
    write_private(summary.out, path, lambda file: pa_csv.write_csv(_cells(_arrow(summary)), file))


def write_parquet(summary: Summary, path: Path) -> None:
    """Writes the table as Parquet, with the facts about the run as metadata.

    Raises:
        SummaryError: if the path cannot be written, or belongs to the cohort.
    """
    table = _arrow(summary)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata_of(summary.about)})
    write_private(
        summary.out, path, lambda file: pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    )


def write_json(summary: Summary, path: Path) -> None:
    """Writes the fields of a `Summary`, except `described`, as JSON; `table` and `pairs` become lists of rows.

    Infinite numbers and NaN become null. Without interactions there is no `pairs`.

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
        "about": summary.about,
        "prediction_difference": summary.prediction_difference,
        "completeness": completeness,
        "table": _codes(summary).drop_columns("baseline").to_pylist(),
        **({} if summary.pairs is None else {"pairs": pa.Table.from_pandas(summary.pairs).to_pylist()}),
        "notes": list(summary.notes),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_private(summary.out, path, lambda file: file.write(text.encode()))


def _arrow(summary: Summary) -> pa.Table:
    """Every row: codes and values, and the pairs after them."""
    codes = _codes(summary)
    if summary.pairs is None:
        return codes
    rows = summary.pairs.rename(columns=_FIRST).assign(kind="pair", baseline=summary.baseline)
    rows["count"] = rows["samples"]
    schema = pa.schema([*SCHEMA, *OF_PAIRS])
    rows = rows.assign(**dict.fromkeys(set(SCHEMA.names) - set(rows.columns)))
    pairs = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    return pa.concat_tables([codes, pairs], promote_options="default").select(schema.names)


def _codes(summary: Summary) -> pa.Table:
    return pa.Table.from_pandas(summary.table.assign(baseline=summary.baseline), schema=SCHEMA, preserve_index=False)


def _cells(table: pa.Table) -> pa.Table:
    """A table whose texts are safe to open in a spreadsheet."""
    for place, field in enumerate(table.schema):
        if field.type == pa.string():
            texts = [None if text is None else cell(text) for text in table.column(place).to_pylist()]
            table = table.set_column(place, field, pa.array(texts, pa.string()))
    return table

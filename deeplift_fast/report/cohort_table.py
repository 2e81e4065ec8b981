"""`summary.parquet` in a cohort's folder: the contributions per sample, code by code, for pages about one patient."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from deeplift_fast.cohort.about import metadata_of
from deeplift_fast.cohort.hashing import digest
from deeplift_fast.cohort.manifest import NAME as MANIFEST
from deeplift_fast.cohort.store import LocalStore, Store, open_store
from deeplift_fast.errors import CohortError, CohortWarning, warn
from deeplift_fast.report.completeness import Completeness
from deeplift_fast.report.distribution import CohortTable
from deeplift_fast.report.folder import CohortFolder
from deeplift_fast.report.per_sample import QUANTILES
from deeplift_fast.report.summary import summary_of
from deeplift_fast.report.titles import Titles

__all__ = ["CohortTable", "cohort_table", "keep", "titled"]

NAME = "summary.parquet"
MOST_BYTES = 1 << 28
"""Largest accepted number of bytes of the file."""

SCHEMA = pa.schema(
    {
        "target": pa.int64(),
        "feature": pa.string(),
        "code": pa.string(),
        "kind": pa.string(),
        "samples": pa.int64(),
        "patients": pa.int64(),
        "rows": pa.int64(),
        "mean": pa.float64(),
        "mean_abs": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        **dict.fromkeys(QUANTILES, pa.float64()),
    }
)
"""Columns of the file, as :class:`CohortTable` describes them. Its metadata hold the totals."""

_TOTALS, _DIGEST = "deeplift_fast.totals", "deeplift_fast.digest"
_OWN_RIGHTS = 0o077
"""Rights of other users."""


def cohort_table(folder: CohortFolder, titles: Titles | None = None) -> CohortTable:
    """The contributions per sample of a finished or running cohort.

    They are read from `summary.parquet`. If that is missing, damaged or not of the cohort's present parts, the parts
    are read and the file is written.

    Args:
        folder: the cohort.
        titles: describes codes; `None` for no descriptions.

    Raises:
        SummaryError: if a part is missing or damaged, or a run has replaced it since `folder` was opened.

    Warns:
        CohortWarning: if the file cannot be written; the result is the same.
    """
    found = _kept(folder)
    if found is None:
        found = summary_of(folder, with_pairs=False).cohort
        keep(found, folder.out, folder.about)
    return titled(found, titles)


def keep(cohort: CohortTable, out: str, about: Mapping[str, Any]) -> None:
    """Writes `summary.parquet`, unless it is there already.

    Args:
        cohort: the table, without descriptions.
        out: the cohort's folder.
        about: the facts about the run.

    Warns:
        CohortWarning: if the file cannot be written.
    """
    if _content(out, cohort.source) is not None:
        return
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(cohort.table, schema=SCHEMA, preserve_index=False)
    totals = json.dumps(
        {
            "source": cohort.source,
            "patients": cohort.patients,
            "outputs": cohort.outputs.to_dict("list"),
            "completeness": asdict(cohort.completeness),
        }
    )
    facts = metadata_of(about) | {_TOTALS: totals, _DIGEST: _digest(cohort.table, totals)}
    pq.write_table(table.replace_schema_metadata(facts), sink, compression="zstd", write_page_checksum=True)
    try:
        _store(out).write(NAME, memoryview(sink.getvalue()))
    except (CohortError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        warn(f"{NAME} could not be kept in {out} ({reason}); it is made again each time", CohortWarning)


def titled(cohort: CohortTable, titles: Titles | None) -> CohortTable:
    """The table with the columns `title`, `ambiguous`, `unit`, `ref_low` and `ref_high`."""
    table = cohort.table.copy()
    found = [
        None if titles is None else titles.find(feature, code)
        for feature, code in zip(table["feature"], table["code"], strict=True)
    ]
    table["title"] = pd.Series([None if each is None else each.text for each in found], table.index, object)
    table["ambiguous"] = np.array([each is not None and each.ambiguous for each in found], bool)
    table["unit"] = pd.Series([None if each is None else each.unit for each in found], table.index, object)
    table["ref_low"] = np.array([None if each is None else each.low for each in found], np.float64)
    table["ref_high"] = np.array([None if each is None else each.high for each in found], np.float64)
    return CohortTable(table, cohort.patients, cohort.outputs, cohort.completeness, cohort.source)


def _kept(folder: CohortFolder) -> CohortTable | None:
    """The table in the file; `None` if it is missing, damaged or of other parts."""
    found = _content(folder.out, folder.source)
    if found is None:
        return None
    table, totals = found
    return CohortTable(
        table,
        totals["patients"],
        pd.DataFrame(totals["outputs"]).astype({"target": np.int64, "samples": np.int64}),
        Completeness(**totals["completeness"]),
        totals["source"],
    )


def _content(out: str, source: str) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """Table and totals of the file, if it is whole and was made from this source."""
    try:
        content = _store(out).read(NAME, MOST_BYTES)
        if content is None:
            return None
        stored = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
        about = {key.decode(): value.decode() for key, value in (stored.schema.metadata or {}).items()}
        table, totals = stored.cast(SCHEMA).to_pandas(), about[_TOTALS]
        if about[_DIGEST] != _digest(table, totals) or (found := json.loads(totals))["source"] != source:
            return None
        return table, found
    except (pa.ArrowException, CohortError, OSError, ValueError, KeyError):
        return None


def _digest(table: pd.DataFrame, totals: str) -> str:
    rows = pd.util.hash_pandas_object(table[SCHEMA.names], index=False).to_numpy()
    return digest([rows, totals])


def _store(out: str) -> Store:
    """The cohort's store, which gives new files the rights that the manifest has."""
    store = open_store(out)
    if isinstance(store, LocalStore):
        store.shared = bool(os.stat(store.folder / MANIFEST).st_mode & _OWN_RIGHTS)
    return store

"""A part as the content of its files: a Parquet file for each table."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deeplift_fast.cohort.about import metadata_of
from deeplift_fast.cohort.attributing import Attributor, PartResult
from deeplift_fast.cohort.failures import Failure
from deeplift_fast.cohort.manifest import Part
from deeplift_fast.cohort.manifest_content import FOLDERS, INTERACTIONS, file_name
from deeplift_fast.cohort.part_interactions import interactions_table
from deeplift_fast.cohort.part_tables import part_tables
from deeplift_fast.cohort.samples import Stretch

ROW_GROUP = 1 << 20
ENCODED_AT_ONCE = 1 << 16  # rows; pyarrow's default of 1,024 takes 1.5 times as long

# Plain small integers are written faster than with a dictionary, and are as short after compression.
_DICTIONARY_ENCODED = (
    *("patient_id", "visit_id", "feature", "code", "time", "day", "stay", "split", "target"),
    *("first_feature", "first_code", "second_feature", "second_code"),
)
_WITH_STATISTICS = ("sample",)  # only the order of this column lets a reader skip row groups


@dataclass(frozen=True)
class EncodedPart:
    """An attributed part that is ready to be written.

    Attributes:
        stretch: the part without its samples.
        part: its entry for the manifest.
        contents: by name, the content of its files.
        failures: samples that could not be attributed.
        deltas: convergence deltas of the attributed samples, float32.
        seconds: duration of the attribution.
    """

    stretch: Stretch
    part: Part
    contents: dict[str, memoryview]
    failures: list[Failure]
    deltas: np.ndarray
    seconds: float

    @property
    def budget(self) -> int:
        """Padded steps per batch at the end of the part."""
        return self.part.budget


def encoded(result: PartResult, attributor: Attributor, about: Mapping[str, Any]) -> EncodedPart:
    """Makes the tables of an attributed part and encodes them.

    Args:
        result: the attributed part.
        attributor: its attributor.
        about: the facts in the manifest, for the files' metadata.

    Raises:
        CohortError: if a sample says another split than the run was given.
    """
    stretch = result.stretch
    keys, texts = attributor.keys, attributor.texts
    splits = attributor.splits
    samples, attributions = part_tables(result.batches, stretch.begin, stretch.identifiers, keys, texts, splits)
    tables = dict(zip(FOLDERS, (attributions, samples), strict=True))
    if attributor.interactions is not None:
        pairs = [batch.pairs for batch in result.batches if batch.pairs is not None]
        tables[INTERACTIONS] = interactions_table(pairs, stretch.begin, stretch.identifiers, keys, texts)
    contents = {
        file_name(folder, stretch.part): memoryview(_parquet(table.replace_schema_metadata(metadata_of(about))))
        for folder, table in tables.items()
    }
    part = Part(
        begin=stretch.begin,
        end=stretch.end,
        samples=len(samples),
        failures=len(result.failures),
        rows=len(attributions),
        budget=result.budget,
        seconds=round(result.seconds, 3),
        files={
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()
        },
        interactions=len(tables[INTERACTIONS]) if INTERACTIONS in tables else None,
    )
    return EncodedPart(stretch, part, contents, result.failures, result.deltas, result.seconds)


def _parquet(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    encoded = [name for name in table.column_names if name in _DICTIONARY_ENCODED]
    pq.write_table(
        table,
        sink,
        compression={name: _compression(table[name]) for name in table.column_names},
        row_group_size=ROW_GROUP,
        write_batch_size=ENCODED_AT_ONCE,
        use_dictionary=encoded,
        column_encoding={"sample": "DELTA_BINARY_PACKED"},
        write_page_checksum=True,
        write_statistics=[name for name in table.column_names if name in _WITH_STATISTICS],
    )
    return sink.getvalue()


def _compression(column: pa.ChunkedArray) -> str:
    """The compression of a column: none for nothing but null, which holds nothing to compress."""
    return "none" if column.null_count == len(column) else "zstd"

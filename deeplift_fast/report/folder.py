"""Reads the output folder of a finished or running cohort: the parts that its manifest names."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deeplift_fast.cohort.about import OtherSchemaError, metadata_of
from deeplift_fast.cohort.failures import MOST_BYTES as MOST_FAILURES
from deeplift_fast.cohort.failures import NAME as FAILURES
from deeplift_fast.cohort.manifest import NAME as MANIFEST
from deeplift_fast.cohort.manifest import Manifest, check_total, read
from deeplift_fast.cohort.manifest_content import INTERACTIONS, file_name, is_count, quoted
from deeplift_fast.cohort.store import open_store, whole_version
from deeplift_fast.errors import CohortError, SummaryError

BATCH_ROWS = 1 << 17
"""The number of attribution rows that are read at a time."""


class CohortFolder:
    """The finished parts of a cohort.

    The manifest is read once, so parts that are finished later are absent.

    Args:
        out: the folder, a path in which `~` is the home folder, or an fsspec URL.

    Raises:
        SummaryError: if the manifest is missing, cannot be read, or has another schema version than this package's.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = str(out)
        try:
            self._store = open_store(out)
        except CohortError as error:
            raise SummaryError(
                f"{self.out} cannot be opened ({error}); give a folder, or a URL that fsspec knows"
            ) from error
        self.manifest = self._read_manifest()
        self.parts = tuple(sorted(self.manifest.parts))
        """Numbers of the finished parts."""

    @property
    def about(self) -> dict[str, Any]:
        """The facts about the run, as :mod:`deeplift_fast.cohort.about` describes them."""
        return self.manifest.about

    @property
    def rules(self) -> str:
        """The rule set."""
        return str(self.manifest.identity["interpreter"]["rules"])

    @property
    def baseline(self) -> str:
        """The reference of the contributions."""
        return str(self.manifest.identity.get("baseline", "unknown"))

    @property
    def prediction_difference(self) -> dict[str, Any] | None:
        """The difference between the model's own output and the explained output, as in the manifest."""
        return self.manifest.prediction_difference

    @property
    def has_interactions(self) -> bool:
        """Whether the run wrote the table `interactions` too."""
        return INTERACTIONS in self.manifest.identity

    @property
    def expected(self) -> int | None:
        """The number of parts of the finished cohort; `None` while unknown, as for an iterable of batches."""
        total = self.manifest.total
        return None if total is None else -(-total // int(self.manifest.identity["part_samples"]))

    @property
    def source(self) -> str:
        """A digest of everything that is read: the parts' files, their number in all, and the run's identity."""
        parts = {
            number: [part.begin, part.end, part.failures, part.files] for number, part in self.manifest.parts.items()
        }
        text = json.dumps([parts, self.expected, self.manifest.identity], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()

    def samples(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Columns of a part's samples; each call reads the file and verifies its checksum.

        Raises:
            SummaryError: if the file is missing or damaged.
        """
        name = file_name("samples", part)
        content = self._content(name, part)
        with self._reading(name):
            file = _file(content, columns)
        self._check_against_manifest(name, part, file)
        with self._reading(name):
            return file.read(list(columns))

    def attributions(self, part: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of a part's attributions, `BATCH_ROWS` rows at a time; the compressed file is held in memory.

        Raises:
            SummaryError: if the file is missing or damaged.
        """
        name = file_name("attributions", part)
        content = self._content(name, part)
        with self._reading(name):
            yield from _file(content, columns).iter_batches(BATCH_ROWS, columns=list(columns))

    def interactions(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Columns of a part's interactions, of a run that wrote them.

        Raises:
            SummaryError: if the file is missing or damaged, or has another number of rows than the manifest says.
        """
        name = file_name(INTERACTIONS, part)
        content = self._content(name, part)
        with self._reading(name):
            file = _file(content, columns)
            if file.metadata.num_rows != self.manifest.parts[part].interactions:
                raise self._damaged(name)
            return file.read(list(columns))

    def rows_of(self, part: int, sample: int, columns: Sequence[str], table: str = "attributions") -> pa.Table:
        """Columns of one sample's rows in a table; row groups of other samples are not decoded.

        Args:
            part: the part that holds the sample.
            sample: the sample's number.
            columns: names of the columns.
            table: `"attributions"`, or `"interactions"` of a run that wrote them.

        Raises:
            SummaryError: if the file is missing or damaged.
        """
        name = file_name(table, part)
        content = self._content(name, part)
        with self._reading(name):
            file = _file(content, (*columns, "sample"))
            groups = [group for group in range(file.num_row_groups) if _may_hold(file, group, sample)]
            batches = file.iter_batches(BATCH_ROWS, row_groups=groups, columns=[*columns, "sample"])
            wanted = [batch.filter(pa.compute.equal(batch["sample"], sample)) for batch in batches]
            tables = [pa.Table.from_batches([batch]) for batch in wanted if len(batch)]
            return pa.concat_tables(tables).select(list(columns)) if tables else file.read_row_groups([], list(columns))

    def failures(self) -> dict[str, int]:
        """The number of failed samples in the finished parts, by reason.

        Raises:
            SummaryError: if the file is missing or damaged, or its numbers of failures differ from the manifest's.
        """
        try:
            table = whole_version(self._store, FAILURES, MOST_FAILURES, _failures)
        except CohortError as error:
            raise SummaryError(str(error)) from error
        except ValueError as error:
            raise self._damaged(FAILURES) from error
        failed = {number: part.failures for number, part in self.manifest.parts.items()}
        if table is None and any(failed.values()):
            raise self._missing(FAILURES, f"though {MANIFEST} says that samples failed")
        if table is None:
            return {}
        counts = Counter(table["part"].to_pylist())
        if any(counts[part] != count for part, count in failed.items()):
            raise self._damaged(FAILURES)
        counted = table.filter(pa.compute.is_in(table["part"], pa.array(self.parts, pa.int32())))
        found = counted["reason"].value_counts().to_pylist()
        return {row["values"]: row["counts"] for row in sorted(found, key=lambda row: -row["counts"])}

    def is_current(self) -> bool:
        """Whether the manifest still has the same entries for these parts; a later run may replace them."""
        try:
            now = self._read_manifest().parts
        except SummaryError:
            return False
        return all(now.get(number) == part for number, part in self.manifest.parts.items())

    def _check_against_manifest(self, name: str, part: int, file: pq.ParquetFile) -> None:
        """Checks that the manifest agrees with the samples' file of a part."""
        metadata = file.schema_arrow.metadata or {}
        of_identity = {"rules": self.rules, "baseline": self.baseline}
        facts = [*metadata_of(self.about).items(), *metadata_of(of_identity).items()]
        found = [(key, metadata.get(key.encode(), b"nothing").decode(errors="replace"), said) for key, said in facts]
        found.append(("samples", str(file.metadata.num_rows), str(self.manifest.parts[part].samples)))
        for key, there, said in found:
            if there != said:
                raise SummaryError(
                    f"{self._store.shown}/{MANIFEST} is damaged: its {key.rpartition('.')[2]} is {quoted(said)} where "
                    f"{name} has {quoted(there)}; put back what the run wrote, or run the cohort again with --force"
                )

    def _content(self, name: str, part: int) -> bytes:
        """The bytes of a part's file, with the size and checksum in the manifest."""
        about = self.manifest.parts[part].files.get(name)
        if about is None:
            raise self._missing(name, f"and {MANIFEST} does not name it, though it names part {part}")
        try:
            if about["bytes"] != self._store.size(name):
                self._store.open(name).close()  # raises if the file is missing
                raise self._damaged(name)
            with self._store.open(name) as file:
                content = file.read()
        except FileNotFoundError as error:
            raise self._missing(name, f"though {MANIFEST} names it") from error
        except CohortError as error:
            raise SummaryError(str(error)) from error
        if about["sha256"] != hashlib.sha256(content).hexdigest():
            raise self._damaged(name)
        return content

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Reports errors of reading a table as a damaged file."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise self._damaged(name) from error

    def _read_manifest(self) -> Manifest:
        try:
            manifest = read(self._store)
            if manifest is not None:
                _check(manifest)
        except CohortError as error:
            raise SummaryError(str(error)) from error
        except OtherSchemaError as error:
            raise SummaryError(
                f"{self._store.shown}/{MANIFEST} cannot be read: {error}; run the cohort again with --force "
                "(force=True in Python), or read it with the version that wrote it"
            ) from error
        except ValueError as error:
            raise SummaryError(
                f"{self._store.shown}/{MANIFEST} cannot be read as a cohort's manifest ({error}); accepted: one that "
                "this version of `deeplift-fast run` or attribute_cohort wrote. If it is damaged, put back what the "
                "run wrote, or run the cohort again with --force"
            ) from error
        if manifest is None:
            raise SummaryError(
                f"{self.out} holds no {MANIFEST}; accepted: the folder that `deeplift-fast run --out` or "
                "attribute_cohort wrote, finished or not"
            )
        return manifest

    def _missing(self, name: str, why: str) -> SummaryError:
        return SummaryError(
            f"{self._store.shown}/{name} is missing, {why}; run the cohort again with the same command: it writes "
            "missing files"
        )

    def _damaged(self, name: str) -> SummaryError:
        return SummaryError(
            f"{self._store.shown}/{name} is damaged: it is not what was written; run the cohort again with the same "
            "command: it writes damaged parts again"
        )


def _file(content: bytes, columns: Sequence[str]) -> pq.ParquetFile:
    """A Parquet file with these columns; raises KeyError if one is missing."""
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    for name in columns:
        if name not in file.schema_arrow.names:
            raise KeyError(name)
    return file


def _may_hold(file: pq.ParquetFile, group: int, sample: int) -> bool:
    """Whether a row group may hold a sample's rows, by its statistics if it has them."""
    column = file.metadata.row_group(group).column(file.schema_arrow.names.index("sample"))
    found = column.statistics
    return found is None or not found.has_min_max or found.min <= sample <= found.max


def _failures(content: bytes) -> pa.Table:
    """The part and reason of each failure; raises ValueError if the file is damaged."""
    try:
        table = _file(content, ("part", "reason")).read(["part", "reason"])
        return table.cast(pa.schema({"part": pa.int32(), "reason": pa.string()}))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(str(error)) from error


def _check(manifest: Manifest) -> None:
    """Raises ValueError unless the manifest has the entries that a summary needs."""
    if not is_count(manifest.identity.get("part_samples"), 1):
        raise ValueError(f"part_samples is {quoted(manifest.identity.get('part_samples'))}")
    interpreter = manifest.identity.get("interpreter")
    if not isinstance(interpreter, dict) or not isinstance(interpreter.get("rules"), str):
        raise ValueError("interpreter has no rules")
    for number, part in manifest.parts.items():
        if part.samples + part.failures != part.end - part.begin:
            raise ValueError(f"part {number}: its samples and failures are not those from {part.begin} to {part.end}")
    check_total(manifest)

"""The output folder of a cohort, read while it grows: only parts that its manifest names are looked at."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from deeplift_fast.cohort.errors import CohortError
from deeplift_fast.cohort.failures import MOST_BYTES as MOST_FAILURES
from deeplift_fast.cohort.failures import NAME as FAILURES
from deeplift_fast.cohort.failures import parsed as parsed_failures
from deeplift_fast.cohort.manifest_content import (
    MOST_BYTES,
    check_files,
    check_identity,
    check_parts,
    file_name,
    is_count,
    parsed,
    quoted,
)
from deeplift_fast.cohort.store import open_store
from deeplift_fast.cohort.versions import whole_version
from deeplift_fast.report.errors import SummaryError

MANIFEST = "manifest.json"

BATCH_ROWS = 1 << 17
"""Attribution rows held at a time."""

_NEEDED = {"identity", "parts", "total"}


class CohortFolder:
    """What a finished or a running cohort has written.

    The manifest is read once: parts that are finished later do not show.

    Args:
        out: the folder, a path in which `~` is the home folder, or an fsspec URL.

    Raises:
        SummaryError: if there is no manifest, or it is not one.
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
        self.parts = tuple(sorted(map(int, self.manifest["parts"])))
        """Numbers of the finished parts."""

    @property
    def rules(self) -> str:
        """The rule set."""
        return str(self.manifest["identity"]["interpreter"]["rules"])

    @property
    def expected(self) -> int | None:
        """How many parts the finished cohort will have; `None` while nobody knows (a stream of batches)."""
        total = self.manifest["total"]
        return None if total is None else -(-int(total) // int(self.manifest["identity"]["part_samples"]))

    def samples(self, part: int, columns: Sequence[str]) -> pa.Table:
        """Columns of a part's samples.

        Raises:
            SummaryError: if the file is missing or damaged.
        """
        name = file_name("samples", part)
        with self._open(name, part) as file:
            try:
                return pq.ParquetFile(file).read(list(columns))
            except (pa.ArrowException, OSError) as error:
                raise self._damaged(name) from error

    def attributions(self, part: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of a part's attributions, `BATCH_ROWS` rows at a time.

        Raises:
            SummaryError: if the file is missing or damaged.
        """
        name = file_name("attributions", part)
        with self._open(name, part) as file:
            try:
                yield from pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=list(columns))
            except (pa.ArrowException, OSError) as error:
                raise self._damaged(name) from error

    def failures(self) -> dict[str, int]:
        """How many samples of the finished parts failed, by reason."""
        try:
            table = whole_version(self._store, FAILURES, MOST_FAILURES, parsed_failures)
        except CohortError as error:
            raise SummaryError(str(error)) from error
        except ValueError as error:
            raise self._damaged(FAILURES) from error
        if table is None:
            return {}
        counted = table.filter(pa.compute.is_in(table["part"], pa.array(self.parts, pa.int32())))
        found = counted["reason"].value_counts().to_pylist()
        return {row["values"]: row["counts"] for row in sorted(found, key=lambda row: -row["counts"])}

    def is_current(self) -> bool:
        """Whether the manifest says the same of these parts: a run may have begun anew, or gone beyond a limit."""
        try:
            now = self._read_manifest()["parts"]
        except SummaryError:
            return False
        return all(now.get(str(part)) == self.manifest["parts"][str(part)] for part in self.parts)

    def _open(self, name: str, part: int) -> BinaryIO:
        """Opens a file of a part, which has the bytes that the manifest says."""
        about = self.manifest["parts"][str(part)].get("files", {}).get(name)
        if about is None:
            raise self._missing(name, f"and {MANIFEST} does not name it, though it names part {part}")
        try:
            file = self._opened(name)
        except FileNotFoundError as error:
            raise self._missing(name, f"though {MANIFEST} names it") from error
        found = file.seek(0, os.SEEK_END)
        file.seek(0)
        if about.get("bytes") not in (None, found):
            file.close()
            raise self._damaged(name)
        return file

    def _opened(self, name: str) -> BinaryIO:
        try:
            return self._store.open(name)
        except CohortError as error:
            raise SummaryError(str(error)) from error

    def _read_manifest(self) -> dict[str, Any]:
        """The manifest, or its other version where it is being written."""
        try:
            manifest = whole_version(self._store, MANIFEST, MOST_BYTES, self._checked)
        except CohortError as error:
            raise SummaryError(str(error)) from error
        if manifest is None:
            raise SummaryError(
                f"{self.out} holds no {MANIFEST}; accepted: the folder that `deeplift-fast run --out` or "
                "attribute_cohort wrote, finished or not"
            )
        return manifest

    def _checked(self, content: bytes) -> dict[str, Any]:
        path = f"{self._store.shown}/{MANIFEST}"
        try:
            manifest = parsed(content)
        except ValueError as error:
            raise SummaryError(f"{path} cannot be read ({error}); is it a cohort's?") from error
        if not manifest.keys() >= _NEEDED:
            raise SummaryError(f"{path} is not a cohort's manifest: it lacks one of {', '.join(sorted(_NEEDED))}")
        try:
            _check(manifest)
        except ValueError as error:
            raise SummaryError(
                f"{path} is not a cohort's manifest: its fields have other types or values ({error})"
            ) from error
        return manifest

    def _missing(self, name: str, why: str) -> SummaryError:
        return SummaryError(
            f"{self._store.shown}/{name} is missing, {why}; run the cohort again with the same command: it writes what "
            "is missing"
        )

    def _damaged(self, name: str) -> SummaryError:
        return SummaryError(
            f"{self._store.shown}/{name} is damaged: it is not what was written; run the cohort again with the same "
            "command: it writes damaged parts anew"
        )


def _check(manifest: Mapping[str, Any]) -> None:
    """Raise ValueError unless the fields that are looked at have their types."""
    identity, total = manifest["identity"], manifest["total"]
    check_identity(identity)
    if total is not None and not is_count(total):
        raise ValueError(f"total is {quoted(total)}")
    if not is_count(identity.get("part_samples"), 1):
        raise ValueError(f"part_samples is {quoted(identity.get('part_samples'))}")
    interpreter = identity.get("interpreter")
    if not isinstance(interpreter, dict) or not isinstance(interpreter.get("rules"), str):
        raise ValueError("interpreter has no rules")
    check_parts(manifest["parts"], lambda number, part: check_files(number, part.get("files", {})))

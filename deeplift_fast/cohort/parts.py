"""Parts on disk: a Parquet file for each table, then the entry in the manifest.

A part counts only once the manifest names it. Files of other parts are overwritten or removed.
"""

import hashlib
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deeplift_fast.cohort import failures
from deeplift_fast.cohort.about import metadata_of
from deeplift_fast.cohort.attributing import Attributor, PartResult
from deeplift_fast.cohort.lock import Requirable
from deeplift_fast.cohort.manifest import Manifest, Part
from deeplift_fast.cohort.manifest_content import ALL_FOLDERS, FOLDERS, INTERACTIONS, file_name, folders_of
from deeplift_fast.cohort.part_interactions import interactions_table
from deeplift_fast.cohort.part_tables import part_tables
from deeplift_fast.cohort.store import TEMPORARY, Store

ROW_GROUP = 1 << 20
ENCODED_AT_ONCE = 1 << 16  # rows; pyarrow's default of 1,024 takes 1.5 times as long

_PART = re.compile(r"part-\d{6,}\.parquet")

# Plain small integers are written faster than with a dictionary, and are as short after compression.
_DICTIONARY_ENCODED = (
    *("patient_id", "visit_id", "feature", "code", "time", "day", "stay", "split", "target"),
    *("first_feature", "first_code", "second_feature", "second_code"),
)
_WITH_STATISTICS = ("sample",)  # only the order of this column lets a reader skip row groups


def write_files(
    store: Store,
    result: PartResult,
    attributor: Attributor,
    seconds: float,
    held: Requirable,
    about: Mapping[str, Any],
) -> Part:
    """Writes a part's files.

    Args:
        store: the output folder.
        result: the attributed part.
        attributor: its attributor.
        seconds: duration of the attribution.
        held: the folder's lock; a run that lost it writes nothing.
        about: the facts in the manifest, for the files' metadata.

    Returns:
        The part's entry for the manifest.

    Raises:
        OSError: if the files cannot be written.
        CohortError: if the lock was lost.
    """
    stretch = result.stretch
    keys, texts = attributor.keys, attributor.texts
    splits = attributor.splits
    samples, attributions = part_tables(result.batches, stretch.begin, stretch.identifiers, keys, texts, splits)
    tables = dict(zip(FOLDERS, (attributions, samples), strict=True))
    if attributor.interactions is not None:
        pairs = [batch.pairs for batch in result.batches if batch.pairs is not None]
        tables[INTERACTIONS] = interactions_table(pairs, stretch.begin, stretch.identifiers, keys, texts)
    files = {}
    for folder, table in tables.items():
        content = memoryview(_parquet(table.replace_schema_metadata(metadata_of(about))))
        name = file_name(folder, stretch.part)
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        store.write(name, content, held.require)
    return Part(
        begin=stretch.begin,
        end=stretch.end,
        samples=len(samples),
        failures=len(result.failures),
        rows=len(attributions),
        budget=result.budget,
        seconds=round(seconds, 3),
        files=files,
        interactions=len(tables[INTERACTIONS]) if INTERACTIONS in tables else None,
    )


def remove_leftovers(store: Store, manifest: Manifest) -> None:
    """Removes the leftovers of killed runs: unfinished files, and files of parts that the manifest does not name."""
    named = {name for part in manifest.parts.values() for name in part.files}
    for name in set(part_files(store)) - named:
        store.remove(name)
    for folder in ("", *ALL_FOLDERS):
        for name in store.names(folder):
            if name.startswith(TEMPORARY):
                store.remove(f"{folder}/{name}" if folder else name)


def part_files(store: Store) -> list[str]:
    """Names of all files of parts in the folder, whoever wrote them."""
    return [f"{folder}/{name}" for folder in ALL_FOLDERS for name in store.names(folder) if _PART.fullmatch(name)]


class Recorder:
    """Keeps the manifest and the failures of a run; the only writer of both.

    Args:
        store: the output folder.
        manifest: its manifest.
        failed: failures in the folder; those of parts outside the manifest are dropped.
        held: the folder's lock, checked immediately before each write.
    """

    def __init__(self, store: Store, manifest: Manifest, failed: pa.Table, held: Requirable) -> None:
        self.manifest = manifest
        self._store, self._held = store, held
        self._failures = failures.of_parts(failed, manifest.parts)

    def save(self) -> None:
        """Writes the manifest.

        Raises:
            OSError: if it cannot be written.
            CohortError: if the lock was lost; the other methods raise it too.
        """
        self.manifest.save(self._store, self._held.require)

    def add(self, number: int, part: Part, failed: list[failures.Failure]) -> None:
        """Takes a part whose files are written; from now on it counts.

        Raises:
            OSError: if the manifest cannot be written; then the part does not count.
        """
        kept = self._failures
        if number in self.manifest.parts:
            kept = kept.filter(pa.compute.not_equal(kept["part"], number))
        together = pa.concat_tables([kept, failures.table_of(failed, number)])
        if len(failed) or len(kept) != len(self._failures):
            self._write_failures(together)
        before = self.manifest.parts.get(number)
        self.manifest.parts[number] = part
        self.manifest.budget = min(self.manifest.budget or part.budget, part.budget)
        try:
            self.save()
        except BaseException:
            del self.manifest.parts[number]
            if before is not None:
                self.manifest.parts[number] = before
            raise
        self._failures = together

    def finish(self, total: int | None, finished: bool) -> None:
        """Settles the folders of parts and writes the final state, with the failures even if there are none.

        Folders are settled only here: a part that a power failure damages fails its checksum and is done again.
        """
        self._store.settle(*folders_of(self.manifest.identity.get(INTERACTIONS)))
        self._write_failures(self._failures)
        self.manifest.total, self.manifest.finished = total, finished
        self.save()

    def _write_failures(self, table: pa.Table) -> None:
        about = metadata_of(self.manifest.about)
        failures.write(self._store, table.replace_schema_metadata(about), self._held.require)


class Writer:
    """Writes parts in a separate thread while the next is attributed; a context manager.

    At most one part waits while another is written.

    Args:
        write: writes a part, given its result and the seconds of its attribution.
    """

    def __init__(self, write: Callable[[PartResult, float], None]) -> None:
        self.waited = 0.0
        """Seconds that the caller waited for the writer."""
        self._write = write
        self._waiting: queue.Queue[tuple[PartResult, float] | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="deeplift_fast writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *about: Any) -> None:
        began = time.perf_counter()
        self._waiting.put(None)
        self._thread.join()
        self.waited += time.perf_counter() - began
        if about[0] is None:
            self._raise()

    def put(self, result: PartResult, seconds: float) -> None:
        """Takes a part; blocks while another part waits.

        Raises:
            OSError: if an earlier part could not be written.
        """
        self._raise()
        began = time.perf_counter()
        self._waiting.put((result, seconds))
        self.waited += time.perf_counter() - began

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        broken = False
        while (item := self._waiting.get()) is not None:
            if broken:
                continue
            try:
                self._write(*item)
            except BaseException as error:
                self._error, broken = error, True


def _parquet(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    encoded = [name for name in table.column_names if name in _DICTIONARY_ENCODED]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=ROW_GROUP,
        write_batch_size=ENCODED_AT_ONCE,
        use_dictionary=encoded,
        column_encoding={"sample": "DELTA_BINARY_PACKED"},
        write_page_checksum=True,
        write_statistics=[name for name in table.column_names if name in _WITH_STATISTICS],
    )
    return sink.getvalue()

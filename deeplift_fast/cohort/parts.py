"""Parts on disk: a Parquet file for each table, then the entry in the manifest.

A part counts only once the manifest names it. Files of other parts are overwritten or removed.
"""

import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from deeplift_fast.cohort import failures
from deeplift_fast.cohort.about import metadata_of
from deeplift_fast.cohort.encoding import EncodedPart
from deeplift_fast.cohort.lock import Requirable
from deeplift_fast.cohort.manifest import Manifest, Part
from deeplift_fast.cohort.manifest_content import ALL_FOLDERS, INTERACTIONS, folders_of
from deeplift_fast.cohort.store import TEMPORARY, Store

_PART = re.compile(r"part-\d{6,}\.parquet")


def write_files(store: Store, encoded: EncodedPart, held: Requirable) -> None:
    """Writes a part's files.

    Args:
        store: the output folder.
        encoded: the part.
        held: the folder's lock; a run that lost it writes nothing.

    Raises:
        OSError: if the files cannot be written.
        CohortError: if the lock was lost.
    """
    for name, content in encoded.contents.items():
        store.write(name, content, held.require)


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


class Writer[Item]:
    """Writes parts in a separate thread while the next is attributed; a context manager.

    At most one part waits while another is written.

    Args:
        write: writes a part.
    """

    def __init__(self, write: Callable[[Item], None]) -> None:
        self.waited = 0.0
        """Seconds that the caller waited for the writer."""
        self._write = write
        self._waiting: queue.Queue[tuple[Item] | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="deeplift_fast writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Writer[Item]":
        return self

    def __exit__(self, *about: Any) -> None:
        began = time.perf_counter()
        self._waiting.put(None)
        self._thread.join()
        self.waited += time.perf_counter() - began
        if about[0] is None:
            self._raise()

    def put(self, item: Item) -> None:
        """Takes a part; blocks while another part waits.

        Raises:
            OSError: if an earlier part could not be written.
        """
        self._raise()
        began = time.perf_counter()
        self._waiting.put((item,))
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

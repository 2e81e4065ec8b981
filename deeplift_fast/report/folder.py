"""The output folder of a cohort, read while it grows: only parts that its manifest names are looked at."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from deeplift_fast.report.errors import SummaryError

BATCH_ROWS = 1 << 17
"""Attribution rows held at a time."""

_NEEDED = {"identity", "parts", "total"}


class CohortFolder:
    """What a finished or a running cohort has written.

    The manifest is read once: parts that are finished later do not show.

    Args:
        out: the folder, a path or an fsspec URL.

    Raises:
        SummaryError: if there is no manifest, or it is not one.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = str(out)
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.out)
        except (ImportError, ValueError, OSError) as error:
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
    def baseline(self) -> str:
        """What its contributions are relative to."""
        return str(self.manifest["identity"].get("baseline", "unknown"))

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
        with self._open("samples", part) as (name, file):
            try:
                return pq.ParquetFile(file).read(list(columns))
            except (pa.ArrowException, OSError) as error:
                raise _damaged(name) from error

    def attributions(self, part: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of a part's attributions, `BATCH_ROWS` rows at a time.

        Raises:
            SummaryError: if the file is missing or damaged.
        """
        with self._open("attributions", part) as (name, file):
            try:
                yield from pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=list(columns))
            except (pa.ArrowException, OSError) as error:
                raise _damaged(name) from error

    def failures(self) -> dict[str, int]:
        """How many samples of the finished parts failed, by reason."""
        path = f"{self._root}/failures.parquet"
        if not self._files.exists(path):
            return {}
        try:
            with self._files.open(path, "rb") as file:
                table = pq.ParquetFile(file).read(["part", "reason"])
                table = table.cast(pa.schema({"part": pa.int32(), "reason": pa.string()}))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _damaged(path) from error
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

    def _open(self, table: str, part: int) -> "_Opened":
        name = f"{table}/part-{part:06d}.parquet"
        about = self.manifest["parts"][str(part)].get("files", {}).get(name, {})
        return _Opened(self._files, f"{self._root}/{name}", about.get("bytes"))

    def _read_manifest(self) -> dict[str, Any]:
        path = f"{self._root}/manifest.json"
        try:
            with self._files.open(path, "rb") as file:
                manifest = json.load(file)
        except FileNotFoundError as error:
            raise SummaryError(
                f"{self.out} holds no manifest.json; accepted: the folder that `deeplift-fast run --out` or "
                "attribute_cohort wrote, finished or not"
            ) from error
        except (OSError, ValueError) as error:
            raise SummaryError(f"{path} cannot be read ({type(error).__name__}); is it a cohort's?") from error
        if not isinstance(manifest, dict) or not manifest.keys() >= _NEEDED:
            raise SummaryError(f"{path} is not a cohort's manifest: it lacks one of {', '.join(sorted(_NEEDED))}")
        if not _is_sound(manifest):
            raise SummaryError(f"{path} is not a cohort's manifest: its fields have other types")
        return manifest


def _is_sound(manifest: dict[str, Any]) -> bool:
    """Whether the fields that are looked at have their types."""
    try:
        identity, total, parts = manifest["identity"], manifest["total"], manifest["parts"]
        files = [about for part in parts.values() for about in part.get("files", {}).values()]
        named = all(int(part) >= 0 for part in parts) and all(isinstance(about, dict) for about in files)
        rules, size = identity["interpreter"]["rules"], identity["part_samples"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return named and isinstance(rules, str) and isinstance(size, int) and isinstance(total, int | None) and size > 0


class _Opened:
    """A file of a part, opened; a context manager that gives its name and the file.

    Args:
        files: the file system.
        name: the file.
        size: its bytes; `None` where nobody knows.
    """

    def __init__(self, files: Any, name: str, size: int | None) -> None:
        self._name = name
        try:
            self._file = files.open(name, "rb")
        except FileNotFoundError as error:
            raise SummaryError(
                f"{name} is missing, though the manifest names it; run the cohort again with the same command: it "
                "writes what is missing"
            ) from error
        except OSError as error:
            raise SummaryError(f"{name} cannot be read ({error.strerror or type(error).__name__})") from error
        found = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        if size not in (None, found):
            self._file.close()
            raise _damaged(name)

    def __enter__(self) -> tuple[str, Any]:
        return self._name, self._file

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _damaged(name: str) -> SummaryError:
    return SummaryError(
        f"{name} is damaged: it is not what was written; run the cohort again with the same command: it writes "
        "damaged parts anew"
    )

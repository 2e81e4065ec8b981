"""The output folder of a cohort, read while it grows: only parts that its manifest names are looked at."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from deeplift_fast.report.errors import SummaryError

BATCH_ROWS = 1 << 17
"""Attribution rows held at a time."""


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
        self._files, self._root = fsspec.core.url_to_fs(self.out)
        self.manifest = self._read_manifest()
        self.parts = tuple(sorted(_part_numbers(self.manifest)))
        """Numbers of the finished parts."""

    @property
    def rules(self) -> str | None:
        """The rule set; `None` if the manifest does not say."""
        found = _find(self.manifest, "rules")
        return found if isinstance(found, str) else None

    @property
    def expected(self) -> int | None:
        """How many parts the finished cohort will have; `None` if the manifest does not say (a stream of batches)."""
        found = _find(self.manifest, "parts_in_all")
        return found if isinstance(found, int) else None

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
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path) from error
        counted = table.filter(pa.compute.is_in(table["part"], pa.array(self.parts, pa.int32())))
        found = counted["reason"].cast(pa.string()).value_counts().to_pylist()
        return {row["values"]: row["counts"] for row in sorted(found, key=lambda row: -row["counts"])}

    def _open(self, table: str, part: int) -> "_Opened":
        return _Opened(self._files, f"{self._root}/{table}/part-{part:06d}.parquet")

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
        if not isinstance(manifest, dict) or "parts" not in manifest:
            raise SummaryError(f"{path} names no parts; it is not a cohort's manifest")
        return manifest


class _Opened:
    """A file of a part, opened; a context manager that gives its name and the file."""

    def __init__(self, files: Any, name: str) -> None:
        self._name = name
        try:
            self._file = files.open(name, "rb")
        except FileNotFoundError as error:
            raise SummaryError(
                f"{name} is missing, though the manifest names it; run the cohort again with the same command: it "
                "writes what is missing"
            ) from error

    def __enter__(self) -> tuple[str, Any]:
        return self._name, self._file

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _damaged(name: str) -> SummaryError:
    return SummaryError(
        f"{name} is damaged: it cannot be read as Parquet; run the cohort again with the same command: it writes "
        "damaged parts anew"
    )


def _part_numbers(manifest: Mapping[str, Any]) -> Iterator[int]:
    """Numbers of the parts that a manifest lists, be it by number or as a list of entries."""
    parts = manifest["parts"]
    if isinstance(parts, Mapping):
        yield from map(int, parts)
    else:
        yield from (int(entry["part"]) for entry in parts)


def _find(manifest: Mapping[str, Any], name: str) -> Any:
    """A setting of the manifest, wherever one level of grouping put it."""
    if name in manifest:
        return manifest[name]
    groups = (group for key, group in manifest.items() if key != "parts" and isinstance(group, Mapping))
    return next((group[name] for group in groups if name in group), None)

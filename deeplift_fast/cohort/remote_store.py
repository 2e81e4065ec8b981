"""Any place that fsspec reaches: object stores, other machines, memory."""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import fsspec

from deeplift_fast.cohort.store_protocol import FULL, TEMPORARY, require_at_most, sha256_of
from deeplift_fast.errors import CohortError

COPY = ".copy"
"""What the name of a file's other version ends with."""


class RemoteStore:
    """A place that fsspec reaches, such as `s3://bucket/folder` or `memory://folder`.

    Who may read is the place's own affair: its buckets and credentials say so.

    Args:
        url: the folder's URL.

    Raises:
        CohortError: if fsspec does not know the protocol, or lacks a package for it.
    """

    def __init__(self, url: str) -> None:
        self.shown = url
        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            raise CohortError(
                f"out is {url!r}, which fsspec cannot open ({error}); give a local folder, or install what it needs"
            ) from error
        self._root = root.rstrip("/")

    def make(self, *folders: str) -> None:
        """As :meth:`Store.make`; a bucket, or whatever else comes first in the path, is never made.

        Object stores have no folders, and some of them take one that is to be made for a bucket. So folders are made
        only where nothing can be written without.
        """
        for folder in ("", *folders):
            tried = f"{folder}/{TEMPORARY}{secrets.token_hex(8)}".lstrip("/")
            try:
                self._files.pipe_file(self._path(tried), b"tried")
            except Exception:
                self._make_folder(folder)
                self.write(tried, b"tried")
            self.remove(tried)

    def _make_folder(self, folder: str) -> None:
        first = self._root.lstrip("/").partition("/")[0]
        path = self._path(folder).rstrip("/")
        with self._told(folder, "made"):
            if not self._files.exists(self._root[: self._root.index(first)] + first):
                raise CohortError(
                    f"out is {self.shown}, whose {first!r} is not there, or not for you to see; make that bucket or "
                    "folder yourself, or correct the name: it is not made here"
                )
            if path.lstrip("/") != first:
                self._files.makedirs(path, exist_ok=True)

    def write(self, name: str, data: memoryview | bytes, require: Callable[[], None] | None = None) -> None:
        """As :meth:`Store.write`."""
        if require is not None:
            require()
        with self._told(name, "written"):
            self._files.pipe_file(self._path(name), bytes(data))

    def settle(self, *folders: str) -> None:
        """Nothing: an object that is there stays there."""

    def open(self, name: str) -> BinaryIO:
        """As :meth:`Store.open`."""
        with self._told(name, "read", (FileNotFoundError,)):
            self._files.invalidate_cache()
            file: BinaryIO = self._files.open(self._path(name), "rb")
            return file

    def read(self, name: str, most: int | None = None) -> bytes | None:
        """As :meth:`Store.read`."""
        size = self.size(name)
        if size is None:
            return None
        require_at_most(most, size, name, self.shown)
        with contextlib.suppress(FileNotFoundError), self._told(name, "read", (FileNotFoundError,)):
            content: bytes = self._files.cat_file(self._path(name))
            return content
        return None

    def digest(self, name: str) -> str | None:
        """As :meth:`Store.digest`."""
        try:
            with self.open(name) as file, self._told(name, "read", (FileNotFoundError,)):
                return sha256_of(file)
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """As :meth:`Store.size`."""
        with contextlib.suppress(FileNotFoundError), self._told(name, "read", (FileNotFoundError,)):
            self._files.invalidate_cache()
            return int(self._files.size(self._path(name)) or 0)
        return None

    def names(self, folder: str) -> list[str]:
        """As :meth:`Store.names`."""
        found: list[Any] = []
        with contextlib.suppress(FileNotFoundError), self._told(folder, "read", (FileNotFoundError,)):
            self._files.invalidate_cache()
            found = self._files.ls(self._path(folder), detail=True)
        return sorted(each["name"].rsplit("/", 1)[-1] for each in found if each["type"] == "file")

    def remove(self, name: str) -> None:
        """As :meth:`Store.remove`."""
        with contextlib.suppress(FileNotFoundError), self._told(name, "removed", (FileNotFoundError,)):
            self._files.rm_file(self._path(name))

    def replace(
        self, name: str, data: bytes | memoryview, lasting: bool = True, require: Callable[[], None] | None = None
    ) -> None:
        """As :meth:`Store.replace`: some places show a file while it is written, so a copy of it is written first."""
        self.write(name + COPY, data, require)
        self.write(name, data, require)

    def versions(self, name: str, most: int) -> Iterator[bytes | None]:
        """As :meth:`Store.versions`."""
        yield self.read(name, most)
        yield self.read(name + COPY, most)

    def remove_versions(self, name: str) -> None:
        """As :meth:`Store.remove_versions`."""
        self.remove(name + COPY)
        self.remove(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _told(self, name: str, done: str, passed: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Says of an error of the place what could not be done, by its kind: its words are another package's."""
        try:
            yield
        except Exception as error:
            is_full = isinstance(error, OSError) and error.errno in FULL
            if isinstance(error, (CohortError, *passed)) or is_full:
                raise
            raise CohortError(
                f"out is {self.shown}, where {name or 'the folder'} cannot be {done} ({type(error).__name__}); put "
                "that right and run the same again: finished parts are kept"
            ) from error

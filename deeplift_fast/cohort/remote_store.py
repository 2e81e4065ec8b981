"""The output folder anywhere that fsspec reaches: object stores, other machines, memory."""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, override

import fsspec

from deeplift_fast.cohort.store_protocol import FULL, TEMPORARY, Store, require_at_most, sha256_of
from deeplift_fast.errors import CohortError

COPY = ".copy"
"""Suffix of a file's second version."""


class RemoteStore(Store):
    """A folder that fsspec reaches, such as `s3://bucket/folder` or `memory://folder`.

    Access rights are those of the bucket or the server.

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
                f"out is {url!r}, which fsspec cannot open ({error}); give a local folder, or install its package"
            ) from error
        self._root = root.rstrip("/")

    @override
    def make(self, *folders: str) -> None:
        """The first element of the path, such as a bucket, is never made.

        Object stores have no folders, and some would make a bucket instead. So a folder is made only if no file can be
        written without it.
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
        with self._naming_errors(folder, "made"):
            if not self._files.exists(self._root[: self._root.index(first)] + first):
                raise CohortError(
                    f"out is {self.shown}, whose {first!r} is not there, or not visible to you; make that bucket or "
                    "folder yourself, or correct the name: it is not made here"
                )
            if path.lstrip("/") != first:
                self._files.makedirs(path, exist_ok=True)

    @override
    def write(self, name: str, data: memoryview | bytes, require: Callable[[], None] | None = None) -> None:
        if require is not None:
            require()
        with self._naming_errors(name, "written"):
            self._files.pipe_file(self._path(name), bytes(data))

    @override
    def settle(self, *folders: str) -> None:
        """Does nothing: objects outlast a power failure."""

    @override
    def open(self, name: str) -> BinaryIO:
        with self._naming_errors(name, "read", (FileNotFoundError,)):
            self._files.invalidate_cache()
            file: BinaryIO = self._files.open(self._path(name), "rb")
            return file

    @override
    def read(self, name: str, most: int | None = None) -> bytes | None:
        size = self.size(name)
        if size is None:
            return None
        require_at_most(most, size, name, self.shown)
        with contextlib.suppress(FileNotFoundError), self._naming_errors(name, "read", (FileNotFoundError,)):
            content: bytes = self._files.cat_file(self._path(name))
            return content
        return None

    @override
    def digest(self, name: str) -> str | None:
        try:
            with self.open(name) as file, self._naming_errors(name, "read", (FileNotFoundError,)):
                return sha256_of(file)
        except FileNotFoundError:
            return None

    @override
    def size(self, name: str) -> int | None:
        with contextlib.suppress(FileNotFoundError), self._naming_errors(name, "read", (FileNotFoundError,)):
            self._files.invalidate_cache()
            return int(self._files.size(self._path(name)) or 0)
        return None

    @override
    def names(self, folder: str) -> list[str]:
        found: list[Any] = []
        with contextlib.suppress(FileNotFoundError), self._naming_errors(folder, "read", (FileNotFoundError,)):
            self._files.invalidate_cache()
            found = self._files.ls(self._path(folder), detail=True)
        return sorted(each["name"].rsplit("/", 1)[-1] for each in found if each["type"] == "file")

    @override
    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._naming_errors(name, "removed", (FileNotFoundError,)):
            self._files.rm_file(self._path(name))

    @override
    def replace(
        self, name: str, data: bytes | memoryview, lasting: bool = True, require: Callable[[], None] | None = None
    ) -> None:
        """Writes a copy first, since some places show a file before it is whole."""
        self.write(name + COPY, data, require)
        self.write(name, data, require)

    @override
    def versions(self, name: str, most: int) -> Iterator[bytes | None]:
        yield self.read(name, most)
        yield self.read(name + COPY, most)

    @override
    def remove_versions(self, name: str) -> None:
        self.remove(name + COPY)
        self.remove(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _naming_errors(self, name: str, done: str, passed: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Turns an error into a CohortError that names the file and the error's class, without its message."""
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

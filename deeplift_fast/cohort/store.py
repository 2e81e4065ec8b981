"""Where a cohort's files go: a local folder, or any place that fsspec reaches.

A file appears whole or not at all. Locally it is written to a temporary name, flushed to the disk and renamed. Object
stores show an object once all of it is there, so elsewhere it is written as it is.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import fsspec

from deeplift_fast.cohort.errors import CohortError

TEMPORARY = ".tmp-"
"""What the names of files begin with that are not whole yet."""

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""Errors of a disk, a quota or a file limit that is exhausted."""


class Store(Protocol):
    """Files by their name under one folder, `/` between folder and file."""

    shown: str
    """The folder, as messages name it."""

    def make(self, *folders: str) -> None:
        """Makes the folder, and folders in it, where they are missing."""

    def write(self, name: str, data: memoryview | bytes) -> None:
        """Makes a file appear, whole, in place of what it replaces.

        Raises:
            OSError: if there is no room; what was there is there still.
            CohortError: if it cannot be written for another reason; the same holds.
        """

    def settle(self, *folders: str) -> None:
        """Makes files that appeared in folders outlast a power failure; their content does already.

        Args:
            folders: under the root; `""` for the root itself.
        """

    def read(self, name: str) -> bytes | None:
        """What a file holds; `None` where there is none.

        Raises:
            CohortError: if it cannot be read.
        """

    def size(self, name: str) -> int | None:
        """Bytes of a file; `None` where there is none.

        Raises:
            CohortError: if it is no file.
        """

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder under the root, sorted, without the folder; none where it is missing.

        Args:
            folder: the folder; `""` for the root itself.
        """

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""


class LocalStore:
    """A folder of this machine, or of a shared file system.

    Args:
        folder: the folder; made by `make`.
        shared: whether others may read, as the user's umask says; files are for their owner alone otherwise.
    """

    def __init__(self, folder: Path, shared: bool = False) -> None:
        self.folder = folder
        self.shared = shared
        self.shown = str(folder)

    def make(self, *folders: str) -> None:
        """As :meth:`Store.make`."""
        mode = 0o777 if self.shared else 0o700
        for folder in (self.folder, *(self.folder / name for name in folders)):
            for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
                missing.mkdir(mode=mode, exist_ok=True)
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))

    def write(self, name: str, data: memoryview | bytes) -> None:
        """As :meth:`Store.write`."""
        path = self.folder / name
        temporary = path.with_name(f"{TEMPORARY}{uuid4().hex[:12]}-{path.name}")
        with self._told(name, "written"):
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666 if self.shared else 0o600)
            try:
                with open(handle, "wb", buffering=0) as file:
                    rest = memoryview(data)
                    while len(rest):
                        rest = rest[file.write(rest) :]
                    os.fsync(handle)
                temporary.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise

    def settle(self, *folders: str) -> None:
        """As :meth:`Store.settle`."""
        for folder in folders:
            handle = os.open(self.folder / folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                with contextlib.suppress(OSError):  # some network file systems have no such thing
                    os.fsync(handle)
            finally:
                os.close(handle)

    def read(self, name: str) -> bytes | None:
        """As :meth:`Store.read`."""
        with self._told(name, "read"):
            try:
                return (self.folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def size(self, name: str) -> int | None:
        """As :meth:`Store.size`."""
        path = self.folder / name
        with self._told(name, "read"):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            try:
                return path.stat().st_size
            except FileNotFoundError:
                return None

    def names(self, folder: str) -> list[str]:
        """As :meth:`Store.names`."""
        path = self.folder / folder
        return sorted(each.name for each in path.iterdir() if each.is_file()) if path.is_dir() else []

    def remove(self, name: str) -> None:
        """As :meth:`Store.remove`."""
        with self._told(name, "removed"):
            (self.folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _told(self, name: str, done: str) -> Iterator[None]:
        """Says of what the user must put right what it is; a disk that is full is told by the run."""
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise
            raise CohortError(
                f"out is {self.shown}, where {name} cannot be {done} ({error.strerror}); put that right and run the "
                "same again: finished parts are kept"
            ) from error


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
        """As :meth:`Store.make`."""
        for folder in (self._root, *(f"{self._root}/{name}" for name in folders)):
            self._files.makedirs(folder, exist_ok=True)

    def write(self, name: str, data: memoryview | bytes) -> None:
        """As :meth:`Store.write`."""
        self._files.pipe_file(f"{self._root}/{name}", bytes(data))

    def settle(self, *folders: str) -> None:
        """Nothing: an object that is there stays there."""

    def read(self, name: str) -> bytes | None:
        """As :meth:`Store.read`."""
        self._files.invalidate_cache()
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        return content

    def size(self, name: str) -> int | None:
        """As :meth:`Store.size`."""
        self._files.invalidate_cache()
        try:
            return int(self._files.size(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """As :meth:`Store.names`."""
        self._files.invalidate_cache()
        try:
            found = self._files.ls(f"{self._root}/{folder}", detail=True)
        except FileNotFoundError:
            return []
        return sorted(each["name"].rsplit("/", 1)[-1] for each in found if each["type"] == "file")

    def remove(self, name: str) -> None:
        """As :meth:`Store.remove`."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")


def open_store(out: str | Path, shared: bool = False) -> Store:
    """The store of a folder or URL; nothing is made yet.

    Args:
        out: a local path, or a URL that fsspec knows.
        shared: as for :class:`LocalStore`.

    Raises:
        CohortError: for a URL that cannot be opened, or what is no path.
    """
    path = str(out).removeprefix("file://").removeprefix("local://")
    if not isinstance(out, str | os.PathLike) or not path or "\0" in path:
        raise CohortError(f"out is {out!r}; accepted: a folder, or a URL that fsspec knows")
    return RemoteStore(path) if "://" in path else LocalStore(Path(path), shared)

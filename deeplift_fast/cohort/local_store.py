"""A folder of this machine, or of a shared file system.

A file is written to a temporary name, flushed to the disk and renamed, so that it appears whole or not at all. Inside
the folder no link is followed and only regular files are opened: others may be able to write there.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from deeplift_fast.cohort.store_protocol import FULL, TEMPORARY, require_at_most, sha256_of
from deeplift_fast.errors import CohortError
from deeplift_fast.support.guarded_files import created, keep_private, opened

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


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
        for name in folders:
            with self._told(name, "written"), self._at(f"{name}/"):
                pass

    def write(
        self,
        name: str,
        data: memoryview | bytes,
        require: Callable[[], None] | None = None,
        lasting: bool = True,
    ) -> None:
        """As :meth:`Store.write`; `lasting` as for `replace`."""
        with self._told(name, "written"), self._at(name) as (folder, base):
            temporary = f"{TEMPORARY}{secrets.token_hex(8)}-{base}"
            handle = created(temporary, folder, self.shared)
            try:
                with open(handle, "wb", buffering=0) as file:
                    rest = memoryview(data)
                    while len(rest):
                        rest = rest[file.write(rest) :]
                    if lasting:
                        os.fsync(handle)
                if require is not None:
                    require()
                os.rename(temporary, base, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise

    def settle(self, *folders: str) -> None:
        """As :meth:`Store.settle`."""
        for folder in folders:
            with self._told(folder, "written"), self._at(f"{folder}/") as (handle, _), contextlib.suppress(OSError):
                os.fsync(handle)  # some network file systems have no such thing

    def open(self, name: str) -> BinaryIO:
        """As :meth:`Store.open`."""
        with self._told(name, "read", (FileNotFoundError,)), self._at(name) as (folder, base):
            return open(opened(base, folder), "rb")

    def read(self, name: str, most: int | None = None) -> bytes | None:
        """As :meth:`Store.read`."""
        try:
            with self.open(name) as file, self._told(name, "read"):
                require_at_most(most, os.fstat(file.fileno()).st_size, name, self.shown)
                return file.read()
        except FileNotFoundError:
            return None

    def digest(self, name: str) -> str | None:
        """As :meth:`Store.digest`."""
        try:
            with self.open(name) as file, self._told(name, "read"):
                return sha256_of(file)
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """As :meth:`Store.size`."""
        try:
            with self.open(name) as file:
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """As :meth:`Store.names`; links count as files, and are not followed."""
        with self._told(folder, "read"):
            try:
                with self._at(f"{folder}/") as (handle, _), os.scandir(handle) as found:
                    return sorted(each.name for each in found if not each.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return []

    def remove(self, name: str) -> None:
        """As :meth:`Store.remove`."""
        with self._told(name, "removed"), contextlib.suppress(FileNotFoundError), self._at(name) as (folder, base):
            os.unlink(base, dir_fd=folder)

    def replace(
        self, name: str, data: bytes | memoryview, lasting: bool = True, require: Callable[[], None] | None = None
    ) -> None:
        """As :meth:`Store.replace`: a file appears whole here."""
        self.write(name, data, require, lasting)

    def versions(self, name: str, most: int) -> Iterator[bytes | None]:
        """As :meth:`Store.versions`."""
        yield self.read(name, most)

    def remove_versions(self, name: str) -> None:
        """As :meth:`Store.remove_versions`."""
        self.remove(name)

    def descriptor(self, name: str) -> int:
        """Opens a file for reading and writing, made where it is missing; the caller closes it.

        Raises:
            OSError: if it cannot be opened, or is a link or no regular file.
        """
        with self._at(name) as (folder, base):
            while True:
                with contextlib.suppress(FileExistsError):
                    return created(base, folder, self.shared)
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    handle = opened(base, folder, write=True)
                    if not self.shared:
                        keep_private(handle)
                    return handle

    @contextlib.contextmanager
    def _at(self, name: str) -> Iterator[tuple[int, str]]:
        """A descriptor of the folder that a file is in, and the file's name in it.

        The output folder may be a link, which its user chose; a folder in it may not.
        """
        inner, _, base = name.rpartition("/")
        outer = os.open(self.folder, _FOLDER)
        try:
            handle = os.open(inner, _FOLDER | os.O_NOFOLLOW, dir_fd=outer) if inner else os.dup(outer)
        except NotADirectoryError:
            if not stat.S_ISLNK(os.stat(inner, dir_fd=outer, follow_symlinks=False).st_mode):
                raise
            raise OSError(errno.ELOOP, "it is a link, which is not followed", inner) from None
        finally:
            os.close(outer)
        try:
            yield handle, base
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _told(self, name: str, done: str, passed: tuple[type[OSError], ...] = ()) -> Iterator[None]:
        """Says of what the user must put right what it is; a disk that is full is told by the run."""
        try:
            yield
        except OSError as error:
            if error.errno in FULL or isinstance(error, passed):
                raise
            raise CohortError(
                f"out is {self.shown}, where {name or 'the folder'} cannot be {done} ({error.strerror}); put that "
                "right and run the same again: finished parts are kept"
            ) from error

"""The output folder on this machine or a shared file system.

A file is written under a temporary name, flushed to the disk and renamed, so that it appears whole or not at all. In
the folder no link is followed and only regular files are opened, since others may be able to write there.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, override

from deeplift_fast.cohort.store_protocol import FULL, TEMPORARY, Store, require_at_most, sha256_of
from deeplift_fast.errors import CohortError
from deeplift_fast.support.guarded_files import created, keep_private, opened

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class LocalStore(Store):
    """A folder on this machine or a shared file system.

    Args:
        folder: the folder; `make` creates it.
        shared: whether others may read the files, as the user's umask allows; otherwise only their owner may.
    """

    def __init__(self, folder: Path, shared: bool = False) -> None:
        self.folder = folder
        self.shared = shared
        self.shown = str(folder)

    @override
    def make(self, *folders: str) -> None:
        mode = 0o777 if self.shared else 0o700
        for folder in (self.folder, *(self.folder / name for name in folders)):
            for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
                missing.mkdir(mode=mode, exist_ok=True)
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        for name in folders:
            with self._naming_errors(name, "written"), self._at(f"{name}/"):
                pass

    @override
    def write(
        self, name: str, data: memoryview | bytes, require: Callable[[], None] | None = None, lasting: bool = True
    ) -> None:
        with self._naming_errors(name, "written"), self._at(name) as (folder, base):
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

    @override
    def settle(self, *folders: str) -> None:
        for folder in folders:
            with (
                self._naming_errors(folder, "written"),
                self._at(f"{folder}/") as (handle, _),
                contextlib.suppress(OSError),
            ):
                os.fsync(handle)  # some network file systems cannot

    @override
    def open(self, name: str) -> BinaryIO:
        with self._naming_errors(name, "read", (FileNotFoundError,)), self._at(name) as (folder, base):
            return open(opened(base, folder), "rb")

    @override
    def read(self, name: str, most: int | None = None) -> bytes | None:
        try:
            with self.open(name) as file, self._naming_errors(name, "read"):
                require_at_most(most, os.fstat(file.fileno()).st_size, name, self.shown)
                return file.read()
        except FileNotFoundError:
            return None

    @override
    def digest(self, name: str) -> str | None:
        try:
            with self.open(name) as file, self._naming_errors(name, "read"):
                return sha256_of(file)
        except FileNotFoundError:
            return None

    @override
    def size(self, name: str) -> int | None:
        try:
            with self.open(name) as file:
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return None

    @override
    def names(self, folder: str) -> list[str]:
        """Links count as files and are not followed."""
        with self._naming_errors(folder, "read"):
            try:
                with self._at(f"{folder}/") as (handle, _), os.scandir(handle) as found:
                    return sorted(each.name for each in found if not each.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return []

    @override
    def remove(self, name: str) -> None:
        with (
            self._naming_errors(name, "removed"),
            contextlib.suppress(FileNotFoundError),
            self._at(name) as (folder, base),
        ):
            os.unlink(base, dir_fd=folder)

    @override
    def replace(
        self, name: str, data: bytes | memoryview, lasting: bool = True, require: Callable[[], None] | None = None
    ) -> None:
        self.write(name, data, require, lasting)

    @override
    def versions(self, name: str, most: int) -> Iterator[bytes | None]:
        yield self.read(name, most)

    @override
    def remove_versions(self, name: str) -> None:
        self.remove(name)

    def descriptor(self, name: str) -> int:
        """Opens a file for reading and writing, and creates it if it is missing; the caller closes it.

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
        """A descriptor of a file's folder, and the file's name in it.

        The output folder itself may be a link, since the user chose it; a folder in it may not.
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
    def _naming_errors(self, name: str, done: str, passed: tuple[type[OSError], ...] = ()) -> Iterator[None]:
        """Turns an OSError into a CohortError that names the file; the run itself reports a full disk."""
        try:
            yield
        except OSError as error:
            if error.errno in FULL or isinstance(error, passed):
                raise
            raise CohortError(
                f"out is {self.shown}, where {name or 'the folder'} cannot be {done} ({error.strerror}); put that "
                "right and run the same again: finished parts are kept"
            ) from error

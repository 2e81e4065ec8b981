"""The interface of an output folder, and helpers that its implementations share."""

import errno
import hashlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from deeplift_fast.errors import CohortError

TEMPORARY = ".tmp-"
"""Prefix of the names of unfinished files."""

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""Error numbers of a full disk, quota or file limit."""

_AT_ONCE = 1 << 20


class Store(Protocol):
    """Files by their name under one folder; `/` separates an inner folder from its file."""

    shown: str
    """The folder's name in messages."""

    def make(self, *folders: str) -> None:
        """Makes the folder, and folders in it, if they are missing."""

    def write(self, name: str, data: memoryview | bytes, require: Callable[[], None] | None = None) -> None:
        """Writes a whole file, or replaces one.

        Args:
            name: the file.
            data: its content.
            require: called immediately before the file appears; if it raises, nothing changes.

        Raises:
            OSError: if there is no room; an old file stays.
            CohortError: if the file cannot be written for another reason; an old file stays.
        """

    def settle(self, *folders: str) -> None:
        """Makes the names of new files outlast a power failure; their content does already.

        Args:
            folders: the files' folders, under the root; `""` for the root itself.
        """

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading; the caller closes it.

        Raises:
            FileNotFoundError: if it is missing.
            CohortError: if it cannot be read, or is no file.
        """

    def read(self, name: str, most: int | None = None) -> bytes | None:
        """The content of a file; `None` if it is missing.

        Args:
            name: the file.
            most: largest accepted number of bytes; `None` for any.

        Raises:
            CohortError: if it cannot be read, or is larger.
        """

    def digest(self, name: str) -> str | None:
        """SHA-256 of a file's content, in hexadecimal; `None` if it is missing.

        Raises:
            CohortError: if it cannot be read.
        """

    def size(self, name: str) -> int | None:
        """Number of bytes of a file; `None` if it is missing.

        Raises:
            CohortError: if it is no file.
        """

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files in a folder under the root, without the folder; empty if it is missing.

        Args:
            folder: the folder; `""` for the root itself.
        """

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""

    def replace(
        self, name: str, data: bytes | memoryview, lasting: bool = True, require: Callable[[], None] | None = None
    ) -> None:
        """Writes a file that must never be lost: whenever this ends, one version of it is whole.

        Args:
            name: the file.
            data: its content.
            lasting: whether the content must outlast a power failure.
            require: as for :meth:`write`.

        Raises:
            OSError, CohortError: as :meth:`write` does.
        """

    def versions(self, name: str, most: int) -> Iterator[bytes | None]:
        """The content of a file that :meth:`replace` wrote, then that of its second version, if this place has one.

        A missing version is `None`. If the file was cut short while it was written, the second version is whole.

        Args:
            name: the file.
            most: largest accepted number of bytes of each.

        Raises:
            CohortError: as :meth:`read` does.
        """

    def remove_versions(self, name: str) -> None:
        """Removes a file that :meth:`replace` wrote."""


def require_at_most(most: int | None, size: int, name: str, shown: str) -> None:
    """Raise CohortError if a file has more than `most` bytes; `None` allows any number."""
    if most is not None and size > most:
        raise CohortError(
            f"out is {shown}, where {name} has {size:,} bytes; accepted: at most {most:,}: no run wrote it"
        )


def sha256_of(file: BinaryIO) -> str:
    """SHA-256 of the rest of a file, in hexadecimal; read piece by piece."""
    hasher = hashlib.sha256()
    while piece := file.read(_AT_ONCE):
        hasher.update(piece)
    return hasher.hexdigest()

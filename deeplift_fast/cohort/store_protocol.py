"""What a run needs of the place where a cohort's files go, and what both kinds of places share."""

import errno
import hashlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from deeplift_fast.errors import CohortError

TEMPORARY = ".tmp-"
"""What the names of files begin with that are not whole yet."""

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""Errors of a disk, a quota or a file limit that is exhausted."""

_AT_ONCE = 1 << 20


class Store(Protocol):
    """Files by their name under one folder, `/` between folder and file."""

    shown: str
    """The folder, as messages name it."""

    def make(self, *folders: str) -> None:
        """Makes the folder, and folders in it, where they are missing."""

    def write(self, name: str, data: memoryview | bytes, require: Callable[[], None] | None = None) -> None:
        """Makes a file appear, whole, in place of what it replaces.

        Args:
            name: the file.
            data: what it is to hold.
            require: called last of all before it appears; if this raises, nothing changes.

        Raises:
            OSError: if there is no room; what was there is there still.
            CohortError: if it cannot be written for another reason; the same holds.
        """

    def settle(self, *folders: str) -> None:
        """Makes files that appeared in folders outlast a power failure; their content does already.

        Args:
            folders: under the root; `""` for the root itself.
        """

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading; the caller closes it.

        Raises:
            FileNotFoundError: if there is none.
            CohortError: if it cannot be read, or is no file.
        """

    def read(self, name: str, most: int | None = None) -> bytes | None:
        """What a file holds; `None` where there is none.

        Args:
            name: the file.
            most: bytes that it may have; `None` for any number.

        Raises:
            CohortError: if it cannot be read, or is larger.
        """

    def digest(self, name: str) -> str | None:
        """SHA-256 of what a file holds, in hexadecimal; `None` where there is none.

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

    def replace(
        self, name: str, data: bytes | memoryview, lasting: bool = True, require: Callable[[], None] | None = None
    ) -> None:
        """As :meth:`write`, for a file that nothing else could stand in for: whenever this ends, one version is whole.

        Args:
            name: the file.
            data: what it is to hold.
            lasting: whether that must outlast a power failure.
            require: as for :meth:`write`.

        Raises:
            OSError, CohortError: as :meth:`write` does.
        """

    def versions(self, name: str, most: int) -> Iterator[bytes | None]:
        """What a file holds that :meth:`replace` wrote, then its other version, if this place has such.

        Either is `None` where it is not there. The file may be cut short where its writing was; then the other version
        is whole.

        Args:
            name: the file.
            most: bytes that each may have.

        Raises:
            CohortError: as :meth:`read` does.
        """

    def remove_versions(self, name: str) -> None:
        """Removes a file that :meth:`replace` wrote."""


def require_at_most(most: int | None, size: int, name: str, shown: str) -> None:
    """Raise CohortError if a file has more bytes than it may have; `None` allows any number."""
    if most is not None and size > most:
        raise CohortError(
            f"out is {shown}, where {name} has {size:,} bytes; accepted: at most {most:,}: it is not what a run wrote"
        )


def sha256_of(file: BinaryIO) -> str:
    """SHA-256 of what is left of a file, in hexadecimal; memory holds a piece of it."""
    hasher = hashlib.sha256()
    while piece := file.read(_AT_ONCE):
        hasher.update(piece)
    return hasher.hexdigest()

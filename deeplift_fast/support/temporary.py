"""Temporary files and folders; the next run removes those of killed runs.

The process that makes one locks it, and the lock ends with the process. So an unlocked one belongs to a killed run.
"""

import contextlib
import fcntl
import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from deeplift_fast.support.guarded_files import created, opened

MARK = ".deeplift-fast-temporary"  # the file in a temporary folder that is locked during use
_FILE = ".deeplift-fast-"
_PART = ".part"


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Make a file that only its owner may read, after removing those of killed runs.

    Args:
        folder: the folder of the file.

    Yields:
        Its path, and the file, open for writing. It is removed at the end, unless it was renamed.

    Raises:
        OSError: if it cannot be made.
    """
    for left in folder.glob(f"{_FILE}*{_PART}"):
        _if_left_behind(left, left.unlink)
    while True:
        path = folder / f"{_FILE}{secrets.token_hex(8)}{_PART}"
        with open(created(path), "wb") as file:
            if _locked(file.fileno()):
                try:
                    yield path, file
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        path.unlink()
                return


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str, rescue: Callable[[Path], object] = lambda _: None) -> Iterator[Path]:
    """Make a folder that only its owner may read, after removing those of killed runs with the same prefix.

    Args:
        parent: the folder to make it in.
        prefix: the beginning of its name.
        rescue: called with the folder of a killed run before its removal.

    Yields:
        The folder. It is removed at the end, with its content.

    Raises:
        OSError: if it cannot be made.
    """
    for mark in parent.glob(f"{glob.escape(prefix)}*/{MARK}"):
        _if_left_behind(mark, partial(_rescue_and_remove, mark.parent, rescue))
    folder, handle = _new_folder(parent, prefix)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            _remove(folder)
        os.close(handle)


def _new_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """A folder, and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        handle = created(folder / MARK)
        if _locked(handle):
            return folder, handle
        os.close(handle)


def _locked(handle: int) -> bool:
    """Lock a new file; false if another process locked it first, to remove it as one of a killed run.

    On a file system without locks no file is ever removed that way.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return os.fstat(handle).st_nlink > 0


def _if_left_behind(path: Path, remove: Callable[[], object]) -> None:
    """Call `remove` if this user owns a file and no process holds its lock; errors are ignored."""
    with contextlib.suppress(OSError), open(opened(path, write=True), "rb") as file:
        if os.fstat(file.fileno()).st_uid == os.geteuid():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove()


def _rescue_and_remove(folder: Path, rescue: Callable[[Path], object]) -> None:
    rescue(folder)
    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, its mark last, so that the next run finds an interrupted removal."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name in os.listdir(handle):
            if name != MARK:
                _remove_inner(name, handle)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(MARK, dir_fd=handle)
    finally:
        os.close(handle)
    folder.rmdir()


def _remove_inner(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=folder)

"""Files in folders that others may write to, opened so that nobody else's link, pipe or mode decides.

A name may have become a link to another file, a pipe that nobody reads, or a device without an end. Files are opened
without following links, and looked at through their descriptor before they are used.
"""

import contextlib
import errno
import os
import stat

_ALWAYS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

PRIVATE = 0o600
AS_UMASK_SAYS = 0o666


def opened(name: str | os.PathLike[str], folder: int | None = None, write: bool = False) -> int:
    """Opens a regular file that is there.

    Args:
        name: the file; relative to `folder` if that is given.
        folder: descriptor of a folder.
        write: whether to write to it as well; then it must have no second name (a hard link).

    Returns:
        A descriptor.

    Raises:
        OSError: if it is missing, a link, no regular file, or cannot be opened; `strerror` says which.
    """
    try:
        handle = os.open(name, (os.O_RDWR if write else os.O_RDONLY) | _ALWAYS, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # what opening a link, and a socket, gives
            said = "it is a link, which is not followed" if error.errno == errno.ELOOP else "it is no regular file"
            raise OSError(error.errno, said, str(name)) from None
        raise
    try:
        _require_regular(handle, str(name), write)
    except BaseException:
        os.close(handle)
        raise
    return handle


def created(name: str | os.PathLike[str], folder: int | None = None, shared: bool = False) -> int:
    """Makes a new file and opens it for reading and writing.

    Args:
        name: the file, which must not be there; relative to `folder` if that is given.
        folder: descriptor of a folder.
        shared: whether others may read it, as the umask says; it is for its owner alone otherwise.

    Returns:
        A descriptor.

    Raises:
        OSError: if something of that name is there, a link that leads nowhere included, or it cannot be made.
    """
    mode = AS_UMASK_SAYS if shared else PRIVATE
    handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _ALWAYS, mode, dir_fd=folder)
    if not shared:
        keep_private(handle)
    return handle


def keep_private(handle: int) -> None:
    """Takes a file's rights from all but its owner, where it is this user's and has other rights.

    A file system without rights of its own (FAT, some network mounts) keeps those that its mount gives to all files.
    """
    about = os.fstat(handle)
    if stat.S_IMODE(about.st_mode) != PRIVATE and about.st_uid == os.geteuid():
        with contextlib.suppress(OSError):
            os.fchmod(handle, PRIVATE)


def _require_regular(handle: int, name: str, write: bool) -> None:
    about = os.fstat(handle)
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", name)
    if write and about.st_nlink > 1:
        raise OSError(errno.EMLINK, "it has a second name, a hard link", name)

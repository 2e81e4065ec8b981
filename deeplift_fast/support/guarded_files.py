"""Files in folders that other users may write to.

Another user may have replaced a file by a link, a pipe or a device. Files are opened without following links, and
checked through their descriptor before use.
"""

import contextlib
import errno
import os
import stat

_ALWAYS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

PRIVATE = 0o600
AS_UMASK_SAYS = 0o666


def opened(name: str | os.PathLike[str], folder: int | None = None, write: bool = False) -> int:
    """Open an existing regular file.

    Args:
        name: the file; relative to `folder` if that is given.
        folder: descriptor of a folder.
        write: whether to write to it as well; it must then have no second name (a hard link).

    Returns:
        A descriptor.

    Raises:
        OSError: if it is missing, a link, no regular file, or cannot be opened; `strerror` says which.
    """
    try:
        handle = os.open(name, (os.O_RDWR if write else os.O_RDONLY) | _ALWAYS, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # for a link, and for a socket
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
    """Make a new file and open it for reading and writing.

    Args:
        name: the new file; relative to `folder` if that is given.
        folder: descriptor of a folder.
        shared: whether other users get the rights that the umask leaves; otherwise only the owner has rights.

    Returns:
        A descriptor.

    Raises:
        OSError: if the name exists, even as a broken link, or the file cannot be made.
    """
    mode = AS_UMASK_SAYS if shared else PRIVATE
    handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _ALWAYS, mode, dir_fd=folder)
    if not shared:
        keep_private(handle)
    return handle


def keep_private(handle: int) -> None:
    """Take the rights of all other users from this user's file.

    On a file system without rights of its own (FAT, some network mounts) this changes nothing.
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

"""One run per output folder.

In a local folder the operating system holds the lock, which ends with the process. Elsewhere, and on file systems
without such locks, the lock is a file that the run refreshes. Another run takes over a lock file that has gone stale.
"""

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from typing import Protocol, override

from deeplift_fast.cohort.lock_owner import Owner, is_left_behind, owner_of, span, this_run
from deeplift_fast.cohort.store import FULL, LocalStore, Store
from deeplift_fast.errors import CohortError, CohortWarning, warn

NAME = ".lock"
STALE = 600.0
"""Seconds without a refresh after which a lock file counts as left behind."""

BEAT = 30.0
"""Seconds between refreshes of a lock file."""

SETTLE = 1.0
"""Seconds that a new lock file must stay unchanged: two runs may have written theirs at once."""

TRIES = 3
"""Tries to write a lock file if writing takes long."""

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EINVAL)
"""Errors of file systems without locks of the operating system."""

_MOST_BYTES = 4096

_HELD: set[int] = set()
"""Descriptors of held locks; a forked child closes them, or it would share the lock with its parent."""


def _close_in_child() -> None:
    for handle in _HELD:
        with contextlib.suppress(OSError):
            os.close(handle)
    _HELD.clear()


os.register_at_fork(after_in_child=_close_in_child)


class Requirable(Protocol):
    """A lock that can be checked to be still this run's."""

    def require(self) -> None:
        """Checks that the lock is still this run's.

        Raises:
            CohortError: if another run took it.
        """


class Lock(Requirable, Protocol):
    """A lock that this run holds."""

    @property
    def token(self) -> str:
        """A text that no other run's lock has."""


class SeenLock(Requirable):
    """A run's lock as its workers see it, through the lock's file.

    Args:
        store: the output folder.
        token: the lock's token.
    """

    def __init__(self, store: Store, token: str) -> None:
        self._store, self._token = store, token

    @override
    def require(self) -> None:
        """Accepts a missing file, which the run itself writes anew."""
        found = _found(self._store)
        if found is not None and found.token != self._token:
            raise _lost(self._store, found)


@contextlib.contextmanager
def held(store: Store) -> Iterator[Lock]:
    """Holds the lock of an output folder, which must exist.

    Args:
        store: the output folder.

    Yields:
        The lock, to be checked before each write that another run might make too.

    Raises:
        CohortError: if another run holds it, naming its host, process and age; if no run wrote its content; if it
            cannot be written.
    """
    owner = this_run()
    if isinstance(store, LocalStore) and (handle := _system_lock(store)) is not None:
        with _SystemLock(store, owner, handle) as system:
            yield system
    else:
        with _LockFile(store, owner) as file:
            yield file


def _system_lock(store: LocalStore) -> int | None:
    """A descriptor with the system's lock; `None`, with a warning, if the file system has no locks.

    Raises:
        CohortError: if another run holds it.
    """
    handle = _descriptor(store)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = _owner_at(handle)
        if found is not None and found.refreshed is not None:  # a lock file of a machine without locks for this folder
            _require_free(store, found)
        return handle
    except OSError as error:
        found = _owner_at(handle)
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise _refusal(store, found) from None
        if error.errno not in WITHOUT_LOCKS:
            raise CohortError(
                f"out is {store.shown}, where {NAME} cannot be locked ({error.strerror}); choose another folder"
            ) from error
        warn(
            f"out is {store.shown}, whose file system has no locks ({error.strerror}): {NAME} is refreshed every "
            f"{BEAT:g} s instead, and a run that is killed on another machine holds the folder for {span(STALE)}",
            CohortWarning,
        )
        return None
    except BaseException:
        os.close(handle)
        raise


def _descriptor(store: LocalStore) -> int:
    try:
        return store.descriptor(NAME)
    except OSError as error:
        raise _not_writable(store, error) from error


def _not_writable(store: Store, error: OSError) -> CohortError:
    return CohortError(
        f"out is {store.shown}, where {NAME} cannot be written ({error.strerror}); choose one that you may write to"
    )


def _require_free(store: Store, found: Owner | None) -> None:
    """Raise CohortError unless a lock file's run has ended."""
    try:
        free = found is None or is_left_behind(found, STALE)
    except ValueError as error:
        raise _malformed(store, error) from None
    if not free:
        raise _refusal(store, found)


def _owner_at(handle: int) -> Owner | None:
    """The run named in a system lock's file, for messages; the lock itself decides who holds it."""
    with contextlib.suppress(ValueError):
        return owner_of(os.pread(handle, _MOST_BYTES, 0))
    return None


class _SystemLock:
    """The lock of the operating system on a file; a context manager.

    Args:
        store: the folder.
        owner: this run.
        handle: a locked descriptor of the file.
    """

    def __init__(self, store: LocalStore, owner: Owner, handle: int) -> None:
        self._store, self._owner, self._handle = store, owner, handle
        self.token = owner.token
        _HELD.add(handle)

    def __enter__(self) -> "_SystemLock":
        try:
            self._write(self._owner.content(refreshed=False))
            self.require()  # the file may have been removed before it was locked
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _HELD.discard(self._handle)
        with contextlib.suppress(CohortError, OSError):
            found = _owner_at(self._handle)
            if found is None or found.token == self.token:  # the file is not another run's by now
                self._write(b"")
        os.close(self._handle)

    def require(self) -> None:
        """See :class:`Requirable`; a removed file is created and locked anew."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(self._store.folder / NAME), os.fstat(self._handle)):
                return
        other = _descriptor(self._store)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.dup2(other, self._handle, inheritable=False)
        except OSError:
            raise _lost(self._store, _owner_at(other)) from None
        finally:
            os.close(other)
        self._write(self._owner.content(refreshed=False))

    def _write(self, content: bytes) -> None:
        """Writes the file, which other runs and this run's workers on other machines read.

        Raises:
            CohortError: if it cannot be written.
            OSError: if the disk is full.
        """
        try:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, content, 0)
            with contextlib.suppress(OSError):  # some network file systems cannot
                os.fsync(self._handle)  # or workers on other machines might read the content of the run before
        except OSError as error:
            if error.errno in FULL:
                raise
            raise _not_writable(self._store, error) from error


class _LockFile:
    """A refreshed file that names the run; a context manager.

    Two runs that see no lock at the same time both write theirs. Each reads the file again after some time, and the one
    that wrote last holds the lock. A run that is late to refresh its lock sees the other run's, and stops.

    Args:
        store: the folder.
        owner: this run.
    """

    def __init__(self, store: Store, owner: Owner) -> None:
        self._store, self._owner = store, owner
        self.token = owner.token
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._refreshed = time.monotonic()
        self._beats = threading.Thread(target=self._keep_refreshing, name="deeplift_fast lock", daemon=True)

    def __enter__(self) -> "_LockFile":
        settle = SETTLE
        try:
            for _ in range(TRIES):
                late = self._try(settle)
                if not late:
                    self._beats.start()
                    return self
                self._let_go()
                settle = 2 * late
        except BaseException:
            with contextlib.suppress(CohortError):
                self._let_go()
            raise
        raise CohortError(
            f"out is {self._store.shown}, where {NAME} takes {late:.0f} s to write, so that two runs that start "
            "together could both hold it; choose another folder"
        )

    def _try(self, settle: float) -> float:
        """Writes the lock file and checks that it stays.

        Args:
            settle: seconds that it must stay.

        Returns:
            0 if the lock is held. Otherwise the seconds that reading and writing took, which are more than `settle`:
            another run may have checked its own file before this one was written.

        Raises:
            CohortError: if another run holds it.
        """
        began = time.monotonic()
        found = _found(self._store)
        _require_free(self._store, found)
        if found is not None:  # a file that was cut short must not outlast its copy
            self._store.remove(NAME)
        self._refresh()
        taken = time.monotonic() - began
        time.sleep(settle)
        found = _found(self._store)
        if not self._is_ours(found):
            raise _refusal(self._store, found)
        return taken if taken > settle else 0.0

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._beats.join()
        try:
            self._let_go()
        except CohortError as error:
            warn(f"{error}; {NAME} counts as left behind after {span(STALE)}", CohortWarning)

    def require(self) -> None:
        """See :class:`Requirable`; a removed file is written anew."""
        with self._writing:
            try:
                found = _found(self._store)
                if found is None:
                    self._refresh()
            except CohortError:
                if time.monotonic() - self._refreshed > STALE:  # another run may have taken it over
                    raise
                return
        if found is not None and not self._is_ours(found):
            raise _lost(self._store, found)

    def _keep_refreshing(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(Exception), self._writing:  # the folder may be out of reach for some time
                found = _found(self._store)
                if found is None or self._is_ours(found):
                    self._refresh()

    def _refresh(self) -> None:
        self._store.replace(NAME, self._owner.content(refreshed=True), lasting=False)
        self._refreshed = time.monotonic()

    def _is_ours(self, found: Owner | None) -> bool:
        return found is not None and found.token == self._owner.token

    def _let_go(self) -> None:
        """Removes the lock file, unless it is another run's."""
        found = _found(self._store)
        if found is None or self._is_ours(found):
            self._store.remove_versions(NAME)


def _found(store: Store) -> Owner | None:
    """The run named in the lock's file; `None` if there is none.

    Raises:
        CohortError: if it cannot be read, or no run wrote its content.
    """
    wrong = None
    for place, content in enumerate(store.versions(NAME, _MOST_BYTES)):
        if not content:  # missing, released as a system lock, or just being written
            continue
        try:
            return owner_of(content)
        except ValueError as error:
            wrong = error if place == 0 else wrong  # a copy alone: the first writing was cut short
    if wrong is not None:
        raise _malformed(store, wrong)
    return None


def _malformed(store: Store, error: ValueError) -> CohortError:
    return CohortError(
        f"out is {store.shown}, whose {NAME} was not written by a run ({error}); remove that file if no other run is "
        "writing there, or choose another folder"
    )


def _refusal(store: Store, found: Owner | None) -> CohortError:
    return CohortError(
        f"out is {store.shown}, where another run is writing ({_shown(found)}); wait for it, stop it, or choose "
        "another folder"
    )


def _lost(store: Store, found: Owner | None) -> CohortError:
    return CohortError(
        f"out is {store.shown}, which another run took over ({_shown(found)}) while this one gave no sign of life; "
        "this one stops: its finished parts are kept; wait for the other run, then run the same again to continue"
    )


def _shown(found: Owner | None) -> str:
    return "an unknown process" if found is None else found.shown()

"""One run per output folder.

On a local folder the operating system holds the lock, so that it ends with the process, however that ends. Elsewhere
the lock is a file that the run refreshes; one that nobody refreshed for a while is taken over.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from deeplift_fast.cohort.errors import CohortError
from deeplift_fast.cohort.store import LocalStore, Store

NAME = ".lock"
STALE = 600.0
"""Seconds after which a lock file that is not refreshed counts as left behind, where no system lock can tell."""

BEAT = 30.0
"""Seconds between signs of life."""

_HELD: set[int] = set()
"""Descriptors of held locks: a forked child shares the lock with its parent unless it closes them."""


def _close_in_child() -> None:
    for handle in _HELD:
        with contextlib.suppress(OSError):
            os.close(handle)
    _HELD.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def held(store: Store) -> Iterator[None]:
    """Holds the folder's lock; it must exist.

    Args:
        store: the output folder.

    Raises:
        CohortError: if another run holds it, naming its host, process and age; if nothing can be written there.
    """
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    with _held_by_system(store, owner) if isinstance(store, LocalStore) else _held_by_file(store, owner):
        yield


@contextlib.contextmanager
def _held_by_system(store: LocalStore, owner: dict[str, Any]) -> Iterator[None]:
    try:
        handle = store.descriptor(NAME)
    except OSError as error:
        raise CohortError(
            f"out is {store.shown}, where {NAME} cannot be written ({error.strerror}); choose one that you may write"
        ) from error
    _HELD.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(store, _parsed(os.pread(handle, 4096, 0))) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        _HELD.discard(handle)
        os.close(handle)


@contextlib.contextmanager
def _held_by_file(store: Store, owner: dict[str, Any]) -> Iterator[None]:
    found = _parsed(store.read(NAME) or b"")
    if found and not _left_behind(found):
        raise _refusal(store, found)
    ended = threading.Event()
    _say_alive(store, owner)
    beats = threading.Thread(target=_keep_saying, args=(store, owner, ended), name="deeplift_fast lock", daemon=True)
    try:
        if _parsed(store.read(NAME) or b"").get("pid") != owner["pid"]:  # two began at once: the last to write won
            raise _refusal(store, _parsed(store.read(NAME) or b""))
        beats.start()
        yield
    finally:
        ended.set()
        if beats.ident is not None:
            beats.join()
        if _parsed(store.read(NAME) or b"").get("since") == owner["since"]:
            store.remove(NAME)


def _say_alive(store: Store, owner: dict[str, Any]) -> None:
    store.write(NAME, json.dumps({**owner, "refreshed": time.time()}).encode())


def _keep_saying(store: Store, owner: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):  # the place may be out of reach for a while
            _say_alive(store, owner)


def _left_behind(found: dict[str, Any]) -> bool:
    if found.get("host") == socket.gethostname():
        try:
            os.kill(int(found["pid"]), 0)
        except (ProcessLookupError, ValueError, KeyError):
            return True
        except PermissionError:
            pass
    return time.time() - float(found.get("refreshed", 0.0)) > STALE


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(store: Store, found: dict[str, Any]) -> CohortError:
    age = max(0.0, time.time() - float(found.get("since", time.time())))
    owner = f"process {found.get('pid', '?')} on {found.get('host', '?')}, for {_span(age)}"
    return CohortError(
        f"out is {store.shown}, where another run is writing ({owner}); wait for it, stop it, or choose another folder"
    )


def _span(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"

"""Where a cohort's files go: a local folder, or any place that fsspec reaches."""

import os
from pathlib import Path

from deeplift_fast.cohort.local_store import LocalStore
from deeplift_fast.cohort.remote_store import RemoteStore
from deeplift_fast.cohort.store_protocol import FULL, TEMPORARY, Store
from deeplift_fast.errors import CohortError
from deeplift_fast.support.home import expanded

__all__ = ["FULL", "TEMPORARY", "LocalStore", "RemoteStore", "Store", "open_store"]


def open_store(out: str | Path, shared: bool = False) -> Store:
    """The store of a folder or URL; nothing is made yet.

    Args:
        out: a local path, in which `~` is the home folder, or a URL that fsspec knows.
        shared: as for :class:`LocalStore`.

    Raises:
        CohortError: for a URL that cannot be opened, or what is no path.
    """
    path = str(out).removeprefix("file://").removeprefix("local://")
    if not isinstance(out, str | os.PathLike) or not path or "\0" in path:
        raise CohortError(f"out is {out!r}; accepted: a folder, or a URL that fsspec knows")
    if "://" in path:
        return RemoteStore(path)
    try:
        return LocalStore(expanded(path, "out"), shared)
    except ValueError as error:
        raise CohortError(str(error)) from None

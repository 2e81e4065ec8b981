"""Where a cohort's files go: a local folder, or any place that fsspec reaches."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from deeplift_fast.cohort.local_store import LocalStore
from deeplift_fast.cohort.remote_store import RemoteStore
from deeplift_fast.cohort.store_protocol import FULL, TEMPORARY, Store
from deeplift_fast.errors import CohortError
from deeplift_fast.support.home import expanded

__all__ = ["FULL", "TEMPORARY", "LocalStore", "RemoteStore", "Store", "open_store", "told_if_full", "whole_version"]


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


def whole_version[Parsed](
    store: Store, name: str, most: int, parse: Callable[[bytes], Parsed], repair: bool = False
) -> Parsed | None:
    """What a file holds, or its other version where its own writing was cut short.

    Args:
        store: the folder.
        name: a file that `Store.replace` wrote.
        most: bytes that it may have.
        parse: makes something of its content, or raises ValueError.
        repair: whether to write the file anew where it is the other version that is whole, so that one version is
            always whole, also when that one is written over next.

    Returns:
        What `parse` gave; `None` where the file is not there, or its first writing was cut short.

    Raises:
        ValueError: as `parse` does, for the file itself.
        CohortError: if it cannot be read.
    """
    wrong = None
    for place, content in enumerate(store.versions(name, most)):
        if content is None:
            continue
        try:
            found = parse(content)
        except ValueError as error:
            wrong = error if place == 0 else wrong
            continue
        if place > 0 and repair:
            store.write(name, content)
        return found
    if wrong is not None:
        raise wrong
    return None


@contextlib.contextmanager
def told_if_full(shown: str, kept: Callable[[], str]) -> Iterator[None]:
    """Turns such an error into one that names `out`.

    Args:
        shown: the output folder, as messages name it.
        kept: says what is kept.

    Raises:
        CohortError: where nothing more can be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise CohortError(
            f"out is {shown}, where nothing more can be written ({error.strerror}); {kept()}: free space there, or "
            "raise the limit, and run the same again to go on"
        ) from error

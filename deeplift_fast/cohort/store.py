"""The output folder of a cohort: a local folder, or one that fsspec reaches."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from deeplift_fast.cohort.local_store import LocalStore
from deeplift_fast.cohort.remote_store import RemoteStore
from deeplift_fast.cohort.store_protocol import FULL, TEMPORARY, Store
from deeplift_fast.errors import CohortError
from deeplift_fast.support.home import expanded

__all__ = ["FULL", "TEMPORARY", "LocalStore", "RemoteStore", "Store", "naming_full", "open_store", "whole_version"]


def open_store(out: str | Path, shared: bool = False) -> Store:
    """The store of a folder or URL; nothing is created yet.

    Args:
        out: a local path, in which `~` is the home folder, or a URL that fsspec knows.
        shared: as for :class:`LocalStore`.

    Raises:
        CohortError: if `out` is no path, or a URL that cannot be opened.
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
    """The parsed content of a file, or of its second version if the file was cut short.

    Args:
        store: the folder.
        name: a file that `Store.replace` wrote.
        most: largest accepted number of bytes.
        parse: parses the content, or raises ValueError.
        repair: whether to write the file anew from its second version. Otherwise no version might be whole while the
            second is overwritten next.

    Returns:
        The result of `parse`; `None` if the file is missing, or its first writing was cut short.

    Raises:
        ValueError: the error of `parse` for the file itself.
        CohortError: if the file cannot be read.
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
def naming_full(shown: str, kept: Callable[[], str]) -> Iterator[None]:
    """Turns the error of a full disk, quota or file limit into one that names `out`.

    Args:
        shown: the output folder's name in messages.
        kept: tells what is kept.

    Raises:
        CohortError: if nothing more can be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise CohortError(
            f"out is {shown}, where nothing more can be written ({error.strerror}); {kept()}: free space there, or "
            "raise the limit, and run the same again to continue"
        ) from error

"""Writes files that only their owner may read: a row of few samples is nearly one patient's data."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from deeplift_fast.cohort.store import LocalStore, open_store
from deeplift_fast.errors import SummaryError
from deeplift_fast.support.home import expanded
from deeplift_fast.support.temporary import temporary_file

OWN = {"attributions", "samples", "interactions", "manifest.json", "failures.parquet", "summary.parquet", ".lock"}
"""Names in a cohort's folder that belong to the run. Nothing else is written there."""

ROOT = 0
"""The number of the user root, whose links are followed."""


def write_private(out: str, given: Path, to: Callable[[BinaryIO], Any], replace: bool = True) -> None:
    """Writes a temporary file and renames it, so that readers never see half a file; devices and pipes are written to.

    Args:
        out: the cohort's folder, whose own files are never replaced.
        given: the path of the file.
        to: writes the content to a file.
        replace: whether an existing file is replaced.

    Raises:
        SummaryError: if the path cannot be written, belongs to the cohort, or exists and is not to be replaced.
    """
    try:
        path = expanded(given, "path")
        if _is_the_cohorts(out, path):
            raise SummaryError(f"{path} belongs to the cohort; nothing was written to it; give another path")
        if path.exists() and (path.is_symlink() or not path.is_file()):  # such as /dev/stdout, a pipe, or a folder
            if path.is_symlink() and path.lstat().st_uid not in (ROOT, os.geteuid()):
                raise SummaryError(f"{path} is a link of another user, which is not followed; give another path")
            if path.is_file() and not replace:
                raise _exists(path)
            with path.open("wb") as file:
                to(file)
        elif path.exists() and not replace:
            raise _exists(path)
        else:
            with temporary_file(path.parent) as (beside, file):
                to(file)
                file.flush()
                beside.replace(path)
    except OSError as error:
        raise SummaryError(f"{given} cannot be written ({error.strerror}); give another path") from error


def require_absent(given: Path, replace: bool) -> None:
    """Raises SummaryError if a file exists and is not to be replaced."""
    path = expanded(given, "path")
    if path.is_file() and not replace:
        raise _exists(path)


def _exists(path: Path) -> SummaryError:
    return SummaryError(f"{path} exists; give another path, or replace it with --force")


def _is_the_cohorts(out: str, path: Path) -> bool:
    """Whether `path` is among the run's own files in the cohort's folder."""
    store = open_store(out)
    if not isinstance(store, LocalStore):
        return False
    folder, found = store.folder.resolve(), path.resolve()
    return folder in found.parents and found.relative_to(folder).parts[0] in OWN

"""Output folders that are complete or absent."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from deeplift_fast.errors import DemoError
from deeplift_fast.support.temporary import temporary_folder

_OLD = "old"


def check_out(out: Path, force: bool, marks: Sequence[str], what: str, option: str) -> None:
    """Checks that `out` is free, or that `force` is set and `out` is an earlier result or empty.

    Args:
        out: output folder.
        force: whether an earlier result may be replaced.
        marks: relative paths; an earlier result has at least one of them.
        what: name of a result, for messages.
        option: name of `out` on the command line.

    Raises:
        DemoError: if `out` exists and may not be replaced.
    """
    if not out.exists():
        return
    if not force:
        raise DemoError(f"{out} exists already; choose another folder with {option}, or replace it with --force")
    if not out.is_dir() or (any(out.iterdir()) and not any((out / mark).exists() for mark in marks)):
        raise DemoError(f"{out} is not {what}, so --force does not replace it; choose another {option}")


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Makes new files and folders readable by the user only, because they may hold patient data."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def replaced(out: Path, force: bool, marks: Sequence[str], what: str, option: str) -> Iterator[Path]:
    """A folder that replaces `out` on success and is removed on failure.

    It is in a temporary folder beside `out`. Temporary folders of killed runs are removed first.

    Arguments as for :func:`check_out`.

    Raises:
        DemoError: as :func:`check_out`, or if the parent of `out` cannot be written to.
    """
    with contextlib.ExitStack() as until:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            beside = until.enter_context(
                temporary_folder(out.parent, f"{out.name}.tmp-", lambda left: _put_back(left, out))
            )
            folder = beside / "new"
            folder.mkdir()
        except OSError as error:
            raise DemoError(
                f"cannot write to {out.parent}: {error.strerror}; choose another folder with {option}"
            ) from error
        yield folder
        check_out(out, force, marks, what, option)  # it may have appeared meanwhile
        if out.exists():
            out.rename(beside / _OLD)
        folder.rename(out)


def _put_back(left: Path, out: Path) -> None:
    """Restores an earlier result that a killed run had moved away and not yet replaced."""
    if (left / _OLD).is_dir() and not out.exists():
        (left / _OLD).rename(out)
